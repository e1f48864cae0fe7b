#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "stator/base/clock.h"
#include "stator/engine/engine.h"

namespace stator::frontend {

/// A pool's engine, which also knows whether somebody there can answer at all. While nobody can,
/// it is not healthy, and once that has lasted, requests are refused with what is missing; before,
/// they wait in the pool as where no worker is ready. Any thread.
class AnsweringPool final : public engine::Engine {
  public:
    using Release = std::function<void(std::shared_ptr<const protocol::Handoff>)>;

    /// `release` gets the embeddings of requests that are refused; empty: nobody.
    AnsweringPool(std::shared_ptr<engine::Engine> pool, std::chrono::milliseconds wait,
                  Release release, const Clock& clock)
        : pool_(std::move(pool)), wait_(wait), release_(std::move(release)), clock_(clock) {}

    /// What is missing ("no decode worker is ready: …"); empty: nothing.
    void set_lack(const std::string& lack);

    [[nodiscard]] const engine::EngineInfo& info() const override { return pool_->info(); }
    [[nodiscard]] Result<void> submit(protocol::GenerateRequest request,
                                      std::shared_ptr<engine::StepSink> sink) override;
    void cancel(protocol::RequestId id) override { pool_->cancel(id); }
    void release(std::shared_ptr<const protocol::Handoff> handoff) override {
        pool_->release(std::move(handoff));
    }
    [[nodiscard]] std::uint32_t cached_prefix_tokens(
        const protocol::GenerateRequest& request) const override {
        return pool_->cached_prefix_tokens(request);
    }
    [[nodiscard]] protocol::LoadReport load() const override { return pool_->load(); }
    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override {
        return pool_->forward_pass_metrics();
    }
    [[nodiscard]] bool healthy() const override {
        return !lacks_.load(std::memory_order_relaxed) && pool_->healthy();
    }
    void stop(Deadline deadline) override { pool_->stop(deadline); }

  private:
    [[nodiscard]] Result<void> refuse_if_lasting() const;

    std::shared_ptr<engine::Engine> pool_;
    std::chrono::milliseconds wait_;
    Release release_;
    const Clock& clock_;
    std::atomic<bool> lacks_{false};
    mutable std::mutex mutex_;  ///< of what follows
    std::string lack_;
    TimePoint since_;
};

}  // namespace stator::frontend
