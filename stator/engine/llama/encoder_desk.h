#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "stator/base/error.h"
#include "stator/engine/llama/media_encoder.h"
#include "stator/protocol/generate.h"
#include "stator/transfer/handoff_store.h"

namespace stator::engine::llama {

/// What was encoded, by the picture's digest; beyond its budget the least recently used go. Not
/// thread-safe.
class EncodedCache {
  public:
    explicit EncodedCache(std::uint64_t budget_bytes) : budget_(budget_bytes) {}

    /// Null: not here.
    [[nodiscard]] std::shared_ptr<const Encoded> find(const protocol::Digest& digest);
    void put(const protocol::Digest& digest, std::shared_ptr<const Encoded> encoded);
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  private:
    struct Entry {
        std::string name;
        std::shared_ptr<const Encoded> encoded;
    };
    std::uint64_t budget_;
    std::uint64_t bytes_ = 0;
    std::list<Entry> entries_;  ///< most recently used first
    std::unordered_map<std::string, std::list<Entry>::iterator> by_name_;
};

/// Encodes media items one after the other on a thread of its own and leaves their embeddings in
/// the store. ask() and drop() from any thread; the queue is bounded by who asks.
class EncoderDesk {
  public:
    using Left = Result<std::shared_ptr<const protocol::Handoff>>;
    /// Called on the desk's thread, once for each ask() unless it was dropped, in order. `cached`:
    /// nothing had to be computed; `seconds`: what the encoder took.
    using Done = std::function<void(protocol::RequestId, Left, bool cached, double seconds)>;

    EncoderDesk(std::unique_ptr<MediaEncoder> encoder,
                std::shared_ptr<transfer::HandoffStore> store, std::uint64_t cache_bytes,
                Done done);
    /// Leaves out what is not encoded yet.
    ~EncoderDesk();
    EncoderDesk(const EncoderDesk&) = delete;
    EncoderDesk& operator=(const EncoderDesk&) = delete;

    /// `item` has its content.
    void ask(protocol::RequestId id, protocol::MediaItem item);
    /// True if it was still waiting: there will be no call for it.
    bool drop(protocol::RequestId id);
    [[nodiscard]] std::size_t waiting() const;

  private:
    struct Job {
        protocol::RequestId id;
        protocol::MediaItem item;
    };
    void run();
    [[nodiscard]] Left leave(const Encoded& encoded, const protocol::Digest& digest);

    std::unique_ptr<MediaEncoder> encoder_;  ///< the desk's thread only
    std::shared_ptr<transfer::HandoffStore> store_;
    EncodedCache cache_;  ///< the desk's thread only
    Done done_;

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Job> jobs_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace stator::engine::llama
