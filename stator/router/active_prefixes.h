#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "stator/router/route.h"

namespace stator::router {

/// The prefixes of the requests that are booked: what a rank will hold for sure, before any event
/// says so. Of a long prompt not every block is kept: the first kDense, then fewer and fewer (from
/// place p the next is max(kStride, p / kDense) further on), and the last; so an answer may fall
/// short by kStride blocks or a kDense-th of it, and never says too much. With
/// `every_block` it is exact. Memory: some 60 bytes a block kept and 8 a rank that has it. Not
/// thread-safe.
class ActivePrefixes {
  public:
    static constexpr std::size_t kDense = 32;
    static constexpr std::size_t kStride = 4;

    explicit ActivePrefixes(bool every_block = false) : every_block_(every_block) {}

    /// `blocks`: a prompt's sequence hashes. The same must be given to remove().
    void add(RankIndex rank, std::span<const std::uint64_t> blocks);
    void remove(RankIndex rank, std::span<const std::uint64_t> blocks);
    /// The hashes that are kept of a prompt, at most `most` of them: add_places() of these, in
    /// another router, is found there like the prompt itself as far as they reach.
    [[nodiscard]] std::vector<std::uint64_t> places(std::span<const std::uint64_t> blocks,
                                                    std::size_t most) const;
    void add_places(RankIndex rank, std::span<const std::uint64_t> places);
    void remove_places(RankIndex rank, std::span<const std::uint64_t> places);
    /// Calls found(rank, depth in blocks) for the ranks that have some of it, the deepest answer of
    /// a rank last.
    template <typename Found>
    void find(std::span<const std::uint64_t> blocks, Found&& found) {
        path_.clear();
        for_each_place(blocks.size(), [&](std::size_t i) {
            const auto entry = entries_.find(blocks[i]);
            // Names are of whole prefixes: where one is unknown, all longer ones are.
            if (entry == entries_.end()) return false;
            path_.push_back({&entry->second, static_cast<std::uint32_t>(i + 1)});
            return true;
        });
        // Holders of a longer prefix are among those of a shorter one: as many are the same ones.
        for (std::size_t i = 0; i < path_.size(); ++i) {
            const std::vector<Holder>& holders = *path_[i].holders;
            if (i + 1 < path_.size() && path_[i + 1].holders->size() == holders.size()) continue;
            for (const Holder& h : holders) found(h.rank, path_[i].depth);
        }
    }
    /// With every_block: how many distinct blocks the rank's bookings have.
    [[nodiscard]] std::uint32_t distinct_blocks(RankIndex rank) const {
        return rank < distinct_.size() ? distinct_[rank] : 0;
    }
    [[nodiscard]] std::size_t size() const { return entries_.size(); }

  private:
    struct Holder {
        RankIndex rank;
        std::uint32_t count;
    };
    struct Place {
        const std::vector<Holder>* holders;
        std::uint32_t depth;
    };
    struct Hash {
        std::size_t operator()(std::uint64_t h) const { return h; }  // it is one already
    };

    template <typename Each>
    void for_each_place(std::size_t blocks, Each&& each) const {
        const std::size_t dense = every_block_ ? blocks : std::min(blocks, kDense);
        for (std::size_t i = 0; i < dense; ++i) {
            if (!each(i)) return;
        }
        // The same places for every prompt, so that those of a shared prefix are shared.
        std::size_t place = dense + kStride - 1;
        bool last_met = false;
        while (place < blocks) {
            if (!each(place)) return;
            last_met = place + 1 == blocks;
            place += std::max(kStride, place / kDense);
        }
        if (blocks > dense && !last_met) each(blocks - 1);
    }

    void add_one(RankIndex rank, std::uint64_t hash);
    void remove_one(RankIndex rank, std::uint64_t hash);

    bool every_block_;
    std::unordered_map<std::uint64_t, std::vector<Holder>, Hash> entries_;
    std::vector<std::uint32_t> distinct_;
    std::vector<Place> path_;  ///< of the last find(), for its memory
};

}  // namespace stator::router
