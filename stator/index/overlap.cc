#include "stator/index/overlap.h"

#include <algorithm>

namespace stator::index {
namespace {

/// So few ranks are cheaper as single entries than as a set of bits.
constexpr int kFew = 4;

bool deeper(const RankDepth& a, const RankDepth& b) {
    return a.depth != b.depth ? a.depth > b.depth : a.rank < b.rank;
}

}  // namespace

std::uint32_t Depths::of(RankSlot rank) const {
    for (const Group& group : groups_) {
        const std::uint32_t word = rank.value / 64;
        if (word >= group.first && word < group.first + group.words &&
            (words_[group.at + word - group.first] >> (rank.value % 64) & 1) != 0) {
            return group.depth;
        }
    }
    for (const RankDepth& one : singles_) {
        if (one.rank == rank) return one.depth;
    }
    return 0;
}

std::size_t Depths::top(std::span<RankDepth> out) const {
    std::size_t n = 0;
    // False if it does not belong in `out`.
    const auto take = [&](const RankDepth& one) {
        if (n == out.size() && (n == 0 || !deeper(one, out[n - 1]))) return false;
        std::size_t at = n < out.size() ? n++ : n - 1;
        for (; at > 0 && deeper(one, out[at - 1]); --at) out[at] = out[at - 1];
        out[at] = one;
        return true;
    };
    for (const RankDepth& one : singles_) take(one);
    // Later groups are deeper; within a group, later slots come after earlier ones.
    for (std::size_t g = groups_.size(); g-- > 0;) {
        const Group& group = groups_[g];
        bool more = true;
        for (std::uint32_t w = 0; more && w < group.words; ++w) {
            for (std::uint64_t bits = words_[group.at + w]; more && bits != 0; bits &= bits - 1) {
                more = take({RankSlot((group.first + w) * 64 +
                                      static_cast<std::uint32_t>(std::countr_zero(bits))),
                             group.depth});
            }
        }
    }
    return n;
}

void Depths::clear() {
    singles_.clear();
    groups_.clear();
    words_.clear();
    deepest_ = 0;
    holders_ = 0;
}

void Depths::add(std::uint32_t slot, std::uint32_t depth) {
    singles_.push_back({RankSlot(slot), depth});
    deepest_ = std::max(deepest_, depth);
    ++holders_;
}

void Depths::add_bits(std::span<const std::uint64_t> bits, std::uint32_t first_word,
                      std::uint32_t depth) {
    int count = 0;
    for (const std::uint64_t word : bits) count += std::popcount(word);
    if (count == 0) return;
    if (count <= kFew) {
        for (std::size_t w = 0; w < bits.size(); ++w) {
            for (std::uint64_t left = bits[w]; left != 0; left &= left - 1) {
                add((first_word + static_cast<std::uint32_t>(w)) * 64 +
                        static_cast<std::uint32_t>(std::countr_zero(left)),
                    depth);
            }
        }
        return;
    }
    groups_.push_back({depth, first_word, static_cast<std::uint32_t>(bits.size()),
                       static_cast<std::uint32_t>(words_.size())});
    words_.insert(words_.end(), bits.begin(), bits.end());
    deepest_ = std::max(deepest_, depth);
    holders_ += static_cast<std::size_t>(count);
}

}  // namespace stator::index
