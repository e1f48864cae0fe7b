#pragma once

#include <atomic>
#include <cstdint>

namespace stator::index {

/// In what way a rank holds blocks of a run: the memories of protocol::KvTier, and predicted.
inline constexpr std::uint32_t kDevice = 0;
inline constexpr std::uint32_t kHost = 1;
inline constexpr std::uint32_t kDisk = 2;
inline constexpr std::uint32_t kPredicted = 3;
inline constexpr std::uint32_t kMemories = 3;
inline constexpr std::uint32_t kWays = 4;

/// Consecutive blocks, each the child of the one before, and who holds which of them. Every block
/// of the index is in exactly one run, and the predecessor of a block that is not the first of its
/// run is the one before it; so a chain that leaves a run goes on at the *first* block of another
/// one. A block that nobody holds may stay inside a run, never at its end.
///
/// Shared with readers: `version` is odd while the writer changes what belongs together. A line of
/// the cache.
struct alignas(64) Run {
    std::atomic<std::uint32_t> version;
    std::atomic<std::uint16_t> length;  ///< blocks; 0 = not in use
    std::uint16_t units;                ///< of the extent that holds `base`; the writer's
    std::atomic<std::uint64_t> head;    ///< hash of the first block
    std::atomic<std::uint32_t> base;    ///< the first block's place in the block store
    std::atomic<std::uint32_t> list;    ///< in the pool: the entries, sorted, if there are several
    std::atomic<std::uint64_t> only;    ///< the entry, if there is one
    std::atomic<std::uint32_t> entries;
    /// Ranks that hold all blocks, if they are many: in the pool, a word with their number (high
    /// half) and the number of words of bits (low half), then the bits. A run that has this can't
    /// become longer.
    std::atomic<std::uint32_t> bits[kMemories];
    /// Where requests went on when this run was last stored: a hint, the run's head tells.
    std::atomic<std::uint32_t> next;
    std::uint32_t stamp;          ///< the writer's clock when blocks were last stored
    std::uint16_t inner_removed;  ///< blocks removed from the middle since the last look for gaps
    std::uint8_t list_class;      ///< of `list` in the pool
    std::uint8_t words_class[kMemories];  ///< of `bits`
};
static_assert(sizeof(Run) == 64);

inline constexpr std::uint32_t kMaxRun = 2048;  ///< blocks

/// Blocks [begin, end) of a run, held by a rank in one way; as a word that sorts by rank, then
/// begin. A rank's entries of one way neither overlap nor touch.
struct Entry {
    std::uint32_t rank;
    std::uint32_t begin;
    std::uint32_t way;
    std::uint32_t end;

    [[nodiscard]] std::uint64_t word() const {
        return std::uint64_t{rank} << 40 | std::uint64_t{begin} << 24 | std::uint64_t{way} << 22 |
               end;
    }
    static Entry of(std::uint64_t word) {
        return {static_cast<std::uint32_t>(word >> 40),
                static_cast<std::uint32_t>(word >> 24) & 0xffff,
                static_cast<std::uint32_t>(word >> 22) & 3,
                static_cast<std::uint32_t>(word) & 0x3fffff};
    }
};

/// The writer changes a run: readers that overlap with it start again. Within another change of the
/// same run it is a part of that.
class RunChange {
  public:
    explicit RunChange(Run& run) : run_(run) {
        const std::uint32_t v = run_.version.load(std::memory_order_relaxed);
        if ((v & 1) != 0) return;
        outermost_ = true;
        run_.version.store(v + 1, std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_release);
    }
    ~RunChange() {
        if (!outermost_) return;
        const std::uint32_t v = run_.version.load(std::memory_order_relaxed);
        run_.version.store(v + 1, std::memory_order_release);
    }
    RunChange(const RunChange&) = delete;
    RunChange& operator=(const RunChange&) = delete;

  private:
    Run& run_;
    bool outermost_ = false;
};

}  // namespace stator::index
