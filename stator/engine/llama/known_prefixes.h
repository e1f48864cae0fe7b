#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <unordered_set>
#include <variant>
#include <vector>

#include "stator/protocol/kv_event.h"
#include "stator/tokens/token.h"

namespace stator::engine::llama {

/// The sequence hashes of the blocks that the prefix cache holds, for readers on other threads: it
/// follows the cache's events. Bounded like the cache. Thread-safe.
class KnownPrefixes {
  public:
    void apply(std::span<const protocol::KvEvent> events) {
        const std::scoped_lock lock(mutex_);
        for (const protocol::KvEvent& event : events) {
            if (const auto* stored = std::get_if<protocol::KvStored>(&event.what)) {
                for (const auto& block : stored->blocks) known_.insert(block.sequence);
            } else if (const auto* removed = std::get_if<protocol::KvRemoved>(&event.what)) {
                for (const auto hash : removed->sequences) known_.erase(hash);
            } else {
                known_.clear();
            }
        }
    }

    /// Of a prompt's blocks, the hashes of which are given from its beginning: how many are here
    /// before the first that is not.
    [[nodiscard]] std::uint32_t leading(std::span<const tokens::SequenceHash> hashes) const {
        const std::scoped_lock lock(mutex_);
        std::uint32_t n = 0;
        while (n < hashes.size() && known_.contains(hashes[n])) ++n;
        return n;
    }

  private:
    mutable std::mutex mutex_;
    std::unordered_set<tokens::SequenceHash> known_;
};

}  // namespace stator::engine::llama
