#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/transfer/transfer.h"

namespace stator::worker {

/// For tests: a transfer plane whose claims end when the test says so, and that remembers what it
/// was told. Keeps what is published, and hands it to who claims it at_once. Thread-safe.
class FakeTransfer final : public transfer::TransferPlane {
  public:
    using Bytes = std::shared_ptr<const protocol::HandoffBytes>;
    struct Claim {
        transfer::ClaimId id;
        std::shared_ptr<const protocol::Handoff> what;
        transfer::ClaimOptions options;
        std::function<void(Result<Bytes>)> done;
    };

    static Bytes bytes_of(std::shared_ptr<const protocol::Handoff> what) {
        auto out = std::make_shared<protocol::HandoffBytes>();
        out->what = std::move(what);
        return out;
    }

    // transfer::HandoffStore
    Result<std::unique_ptr<transfer::HandoffBuffer>> reserve(std::uint64_t bytes) override {
        return std::make_unique<Buffer>(bytes);
    }
    Result<std::shared_ptr<const protocol::Handoff>> publish(
        std::unique_ptr<transfer::HandoffBuffer> buffer, protocol::Handoff what) override {
        const std::scoped_lock lock(mutex_);
        what.id.fill(static_cast<std::uint8_t>(++published_));
        what.bytes = buffer->bytes().size();
        what.places = {{"fake", "here"}};
        return std::make_shared<const protocol::Handoff>(std::move(what));
    }

    // transfer::TransferPlane
    transfer::ClaimId claim(std::shared_ptr<const protocol::Handoff> what,
                            transfer::ClaimOptions options,
                            std::function<void(Result<Bytes>)> done) override {
        std::unique_lock lock(mutex_);
        const transfer::ClaimId id(++last_);
        ++claims_;
        if (at_once) {
            lock.unlock();
            done(bytes_of(std::move(what)));
            return id;
        }
        open_.push_back({id, std::move(what), std::move(options), std::move(done)});
        changed_.notify_all();
        return id;
    }
    void cancel(transfer::ClaimId id) override {
        std::unique_lock lock(mutex_);
        ++cancels_;
        changed_.notify_all();
        const auto it = std::ranges::find(open_, id, &Claim::id);
        if (it == open_.end()) return;
        const auto done = std::move(it->done);
        open_.erase(it);
        lock.unlock();
        done(error(ErrorCode::kCancelled, "cancelled"));
    }
    void release(std::shared_ptr<const protocol::Handoff> what) override {
        const std::scoped_lock lock(mutex_);
        released_.push_back(std::move(what));
        changed_.notify_all();
    }
    [[nodiscard]] Usage usage() const override {
        const std::scoped_lock lock(mutex_);
        return usage_;
    }
    [[nodiscard]] std::vector<std::string> methods() const override { return {"fake"}; }
    [[nodiscard]] std::map<std::string, std::string> why_off() const override { return {}; }
    [[nodiscard]] double bytes_per_second(std::string_view) const override { return 0; }
    void stop() override {}

    // The test's side.
    bool at_once = false;
    void set_usage(Usage usage) {
        const std::scoped_lock lock(mutex_);
        usage_ = usage;
    }
    /// True once so many claims wait for an answer.
    [[nodiscard]] bool wait_open(std::size_t n) {
        return wait([&] { return open_.size() == n; });
    }
    [[nodiscard]] bool wait_released(std::size_t n) {
        return wait([&] { return released_.size() == n; });
    }
    [[nodiscard]] bool wait_cancels(std::size_t n) {
        return wait([&] { return cancels_ >= n; });
    }
    /// The oldest claim that waits, taken out.
    [[nodiscard]] Claim next() {
        const std::scoped_lock lock(mutex_);
        Claim out = std::move(open_.at(0));
        open_.erase(open_.begin());
        return out;
    }
    void succeed() {
        const Claim c = next();
        c.done(bytes_of(c.what));
    }
    void fail(ErrorCode code) { next().done(error(code, "the claim fails")); }
    [[nodiscard]] std::vector<std::shared_ptr<const protocol::Handoff>> released() {
        const std::scoped_lock lock(mutex_);
        return released_;
    }
    [[nodiscard]] std::size_t claims() {
        const std::scoped_lock lock(mutex_);
        return claims_;
    }

  private:
    class Buffer final : public transfer::HandoffBuffer {
      public:
        explicit Buffer(std::uint64_t n) : bytes_(n) {}
        std::span<std::byte> bytes() override { return bytes_; }

      private:
        std::vector<std::byte> bytes_;
    };

    bool wait(const std::function<bool()>& what) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(10), what);
    }

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Claim> open_;
    std::vector<std::shared_ptr<const protocol::Handoff>> released_;
    Usage usage_;
    std::uint64_t last_ = 0;
    std::size_t claims_ = 0;
    std::size_t cancels_ = 0;
    std::uint64_t published_ = 0;
};

}  // namespace stator::worker
