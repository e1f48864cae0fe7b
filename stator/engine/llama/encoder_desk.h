#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/engine/llama/encoded_cache.h"
#include "stator/engine/llama/encoder_metrics.h"
#include "stator/engine/llama/media_encoder.h"
#include "stator/protocol/generate.h"
#include "stator/transfer/handoff_store.h"

namespace stator::engine::llama {

/// Encodes media items one after the other on a thread of its own and leaves their embeddings in
/// the store. ask() and cancel() from any thread; the queue is bounded by who asks.
class EncoderDesk {
  public:
    using Left = Result<std::shared_ptr<const protocol::Handoff>>;
    /// Called on the desk's thread, once for each ask(). `cached`: nothing had to be computed;
    /// `seconds`: what the encoder took. Errors: those of MediaEncoder::encode(), kCancelled,
    /// kDeadlineExceeded; kOverloaded, retryable: no memory to leave it in.
    using Done = std::function<void(protocol::RequestId, Left, bool cached, double seconds)>;

    /// `registry` may be null.
    EncoderDesk(std::unique_ptr<MediaEncoder> encoder,
                std::shared_ptr<transfer::HandoffStore> store, std::uint64_t cache_bytes,
                metrics::Registry* registry, Done done);
    /// Leaves out what is not encoded yet.
    ~EncoderDesk();
    EncoderDesk(const EncoderDesk&) = delete;
    EncoderDesk& operator=(const EncoderDesk&) = delete;

    /// `item` has its content.
    void ask(protocol::RequestId id, protocol::MediaItem item, Deadline deadline);
    /// What waits ends at once, what is being encoded after the picture, of a video the frame, that
    /// is: with kCancelled, if it is not too late. Unknown ids are ignored.
    void cancel(protocol::RequestId id);
    [[nodiscard]] std::size_t waiting() const;
    /// Pictures and frames encoded so far: goes on within a video. Thread-safe.
    [[nodiscard]] std::uint64_t frames() const { return frames_.load(std::memory_order_relaxed); }

  private:
    struct Job {
        protocol::RequestId id;
        protocol::MediaItem item;
        Deadline deadline;
        bool cancelled = false;
    };
    void run();
    void work(const Job& job);
    void end(const Job& job, Left left, bool cached, double seconds);
    [[nodiscard]] bool current_is_cancelled() const;
    [[nodiscard]] Left leave(const Encoded& encoded, const protocol::Digest& digest);

    std::unique_ptr<MediaEncoder> encoder_;  ///< the desk's thread only
    std::shared_ptr<transfer::HandoffStore> store_;
    EncodedCache cache_;  ///< the desk's thread only
    std::atomic<std::uint64_t> frames_{0};
    metrics::Registry unread_;  ///< where none was given
    EncoderMetrics metrics_;
    Done done_;

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Job> jobs_;
    protocol::RequestId current_;
    bool current_cancelled_ = false;
    bool stopping_ = false;
    std::thread thread_;
};

/// The last event of an encode leg.
[[nodiscard]] protocol::StepEvent end_of(protocol::RequestId id, EncoderDesk::Left left);

}  // namespace stator::engine::llama
