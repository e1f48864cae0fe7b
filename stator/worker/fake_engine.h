#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "stator/engine/engine.h"

namespace stator::worker {

/// For tests: an engine that keeps what it is given and says what the test wants it to.
class FakeEngine final : public engine::Engine {
  public:
    struct Submitted {
        protocol::GenerateRequest request;
        std::shared_ptr<engine::StepSink> sink;
    };

    FakeEngine() {
        info_.kind = "fake";
        info_.kv_layout = "fake:kv";
        info_.context_tokens = 1 << 20;
        load_.running_limit = 4;
        load_.waiting_limit = 4;
    }

    [[nodiscard]] const engine::EngineInfo& info() const override { return info_; }
    [[nodiscard]] Result<void> submit(protocol::GenerateRequest request,
                                      std::shared_ptr<engine::StepSink> sink) override {
        const std::scoped_lock lock(mutex_);
        if (refuse) return tl::unexpected(*refuse);
        submitted_.push_back({std::move(request), std::move(sink)});
        if (on_submit) on_submit(submitted_.back());
        changed_.notify_all();
        return {};
    }
    void cancel(protocol::RequestId id) override {
        const std::scoped_lock lock(mutex_);
        cancelled_.push_back(id);
        changed_.notify_all();
    }
    void release(std::shared_ptr<const protocol::Handoff> handoff) override {
        const std::scoped_lock lock(mutex_);
        released_.push_back(std::move(handoff));
        changed_.notify_all();
    }
    [[nodiscard]] std::uint32_t cached_prefix_tokens(
        const protocol::GenerateRequest&) const override {
        return cached;
    }
    [[nodiscard]] protocol::LoadReport load() const override { return load_; }
    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override { return {}; }
    [[nodiscard]] bool healthy() const override { return true; }
    void stop(Deadline) override {}

    // The test's side.
    /// Its KV goes by this way, without a transfer plane. Set before it is used.
    void moves_kv_by(std::string method) { info_.kv_method = std::move(method); }
    void keeps_media() {
        info_.media = {"image"};
        info_.media_objects = true;
    }
    std::uint32_t cached = 0;
    std::optional<Error> refuse;
    std::function<void(Submitted&)> on_submit;

    [[nodiscard]] bool wait_submitted(std::size_t n) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(10),
                                 [&] { return submitted_.size() == n; });
    }
    [[nodiscard]] bool wait_cancelled(std::size_t n) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(10),
                                 [&] { return cancelled_.size() == n; });
    }
    [[nodiscard]] bool wait_released(std::size_t n) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(10),
                                 [&] { return released_.size() == n; });
    }
    [[nodiscard]] std::size_t submitted() {
        const std::scoped_lock lock(mutex_);
        return submitted_.size();
    }
    [[nodiscard]] Submitted last() {
        const std::scoped_lock lock(mutex_);
        return submitted_.back();
    }

    /// The end of a request, with one token or with a handoff.
    static void end(const Submitted& to, protocol::FinishReason reason,
                    std::shared_ptr<const protocol::Handoff> handoff = nullptr) {
        protocol::StepBatch batch;
        protocol::StepEvent event;
        event.id = to.request.id;
        event.finish = reason;
        event.handoff = std::move(handoff);
        if (reason == protocol::FinishReason::kLength) {
            event.count = 1;
            batch.tokens.push_back({.token = 7});
        }
        batch.events.push_back(std::move(event));
        to.sink->on_step(std::move(batch));
    }

  private:
    engine::EngineInfo info_;
    protocol::LoadReport load_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Submitted> submitted_;
    std::vector<protocol::RequestId> cancelled_;
    std::vector<std::shared_ptr<const protocol::Handoff>> released_;
};

}  // namespace stator::worker
