#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "stator/index/holder_pool.h"
#include "stator/index/run.h"

namespace stator::index {

/// Who holds which blocks of a run: the writer's side. Each change is one RunChange.
class Holders {
  public:
    /// So many ranks that hold a whole run become a set of bits.
    static constexpr std::uint32_t kManyFull = 16;

    explicit Holders(HolderPool& pool) : pool_(pool) {}

    /// Adds blocks [begin, end). How many of them were not held before; nothing if there is no
    /// memory for it (then nothing changed).
    std::optional<std::uint32_t> add(Run& run, const Entry& entry, std::uint32_t rank_words);
    /// Takes blocks [begin, end) away. How many of them were held.
    std::uint32_t remove(Run& run, const Entry& entry);
    /// Removes all and frees their memory.
    void clear(Run& run);

    /// What a rank holds, in any way. Valid until the next call.
    std::span<const Entry> of(const Run& run, std::uint32_t rank);
    [[nodiscard]] bool holds(const Run& run, std::uint32_t rank, std::uint32_t way) const;
    [[nodiscard]] bool holds_all(const Run& run, std::uint32_t rank, std::uint32_t way) const {
        return way < kMemories && bit(run, way, rank);
    }
    /// Behind the last block that anyone holds.
    [[nodiscard]] std::uint32_t end(const Run& run) const;
    [[nodiscard]] bool any_bits(const Run& run) const;
    /// Every entry, those of bits included.
    template <typename Take>
    void for_each(const Run& run, Take take) const {
        const std::uint32_t n = run.entries.load(std::memory_order_relaxed);
        for (std::uint32_t i = 0; i < n; ++i) take(Entry::of(entry(run, i)));
        const std::uint32_t length = run.length.load(std::memory_order_relaxed);
        for (std::uint32_t way = 0; way < kMemories; ++way) {
            const std::uint32_t at = run.bits[way].load(std::memory_order_relaxed);
            const auto words = static_cast<std::uint32_t>(at == 0 ? 0 : pool_.get(at));
            for (std::uint32_t w = 0; w < words; ++w) {
                for (std::uint64_t left = pool_.get(at + 1 + w); left != 0; left &= left - 1) {
                    take(Entry{w * 64 + static_cast<std::uint32_t>(std::countr_zero(left)), 0, way,
                               length});
                }
            }
        }
    }
    /// Entries of ranks that hold the whole run become bits, if they are many.
    void gather_full(Run& run, std::uint32_t way, std::uint32_t rank_words);
    /// Puts entries, sorted, into a run that has none.
    [[nodiscard]] bool assign(Run& run, std::span<const std::uint64_t> words);

  private:
    [[nodiscard]] std::uint64_t entry(const Run& run, std::uint32_t i) const {
        return run.entries.load(std::memory_order_relaxed) == 1
                   ? run.only.load(std::memory_order_relaxed)
                   : pool_.get(run.list.load(std::memory_order_relaxed) + i);
    }
    void set_entry(Run& run, std::uint32_t i, std::uint64_t word);
    [[nodiscard]] std::uint32_t lower(const Run& run, std::uint32_t rank) const;
    [[nodiscard]] bool bit(const Run& run, std::uint32_t way, std::uint32_t rank) const;
    /// Replaces entries [from, to) by others. False if there is no memory for it.
    [[nodiscard]] bool splice(Run& run, std::uint32_t from, std::uint32_t to,
                              std::span<const std::uint64_t> words);
    [[nodiscard]] bool set_bit(Run& run, std::uint32_t way, std::uint32_t rank,
                               std::uint32_t rank_words);
    void clear_bit(Run& run, std::uint32_t way, std::uint32_t rank);

    HolderPool& pool_;
    std::vector<std::uint64_t> mine_;
    std::vector<std::uint64_t> moved_;
    std::vector<Entry> of_;
};

}  // namespace stator::index
