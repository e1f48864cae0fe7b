#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>
#include <vector>

#include "stator/tokens/token.h"

namespace stator::engine::mock {

using tokens::SequenceHash;

/// A memory behind the device's: names of the blocks that lie there, least recently used first out,
/// and when a copy to or from it would be done. Not thread-safe.
class SlowTier {
  public:
    struct Block {
        SequenceHash name;
        std::optional<SequenceHash> parent;
    };

    /// `block_bytes` and the bandwidths (1e9 bytes per second; 0 = at once) give the copies' times.
    SlowTier(std::uint32_t blocks, std::uint64_t block_bytes, double read_gb_per_s,
             double write_gb_per_s);

    [[nodiscard]] bool exists() const { return capacity_ > 0; }
    [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(where_.size()); }
    [[nodiscard]] bool holds(SequenceHash name) const { return where_.contains(name.value); }

    enum class Put : std::uint8_t {
        kStored,
        kThere,    ///< it was there; it is the most recently used now
        kDropped,  ///< copies queue for longer than kMaxWriteQueue
    };
    static constexpr std::chrono::milliseconds kMaxWriteQueue{100};
    /// Takes a block; the one that had to go is handed out in `evicted`.
    [[nodiscard]] Put put(const Block& block, std::chrono::nanoseconds now,
                          std::optional<Block>& evicted);
    /// Makes it the most recently used.
    void touch(SequenceHash name);
    /// Queues a copy of so many blocks to the device; when it will be done.
    [[nodiscard]] std::chrono::nanoseconds read(std::uint32_t blocks, std::chrono::nanoseconds now);
    void clear();

    [[nodiscard]] std::vector<SequenceHash> names() const;

  private:
    std::uint32_t capacity_;
    double read_block_ns_;
    double write_block_ns_;
    std::chrono::nanoseconds read_free_{0};  ///< when the copies queued so far are done
    std::chrono::nanoseconds write_free_{0};
    std::list<Block> order_;  ///< least recently used first
    std::unordered_map<std::uint64_t, std::list<Block>::iterator> where_;
};

}  // namespace stator::engine::mock
