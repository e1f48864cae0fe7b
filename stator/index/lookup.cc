#include <algorithm>
#include <array>

#include "stator/index/prefix_index.h"

namespace stator::index {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using tokens::SequenceHash;

/// One lookup: follows the request from run to run and notes where ranks fall out.
class Lookup {
  public:
    Lookup(const PrefixIndex& index, std::span<const SequenceHash> blocks, Overlap& out)
        : index_(index), blocks_(blocks), out_(out) {}

    void run();

  private:
    /// What a run says, read while it did not change.
    struct Seen {
        std::uint32_t matched = 0;  // blocks of the request, from at_ on
    };
    void start();
    [[nodiscard]] std::uint32_t find_run(std::uint32_t hint) const;
    [[nodiscard]] bool read(const Run& run);
    [[nodiscard]] std::uint32_t match(const Run& run) const;
    void read_bits(const Run& run, std::uint32_t way, int mode);
    void read_entries(std::uint32_t list, std::uint64_t only, std::uint32_t count,
                      std::uint32_t length);
    void cover(std::uint32_t rank, std::uint32_t depth, int mode);
    void fall_out(int mode);
    [[nodiscard]] Depths& depths(int mode) const { return mode == 0 ? out_.device_ : out_.any_; }

    const PrefixIndex& index_;
    const std::span<const SequenceHash> blocks_;
    Overlap& out_;
    int modes_ = 1;         // 0: device memory, 1: any
    std::uint32_t at_ = 0;  // blocks of the request behind us
    std::uint32_t matched_ = 0;
    std::uint32_t words_ = 0;  // of bits of ranks
    std::uint32_t first_ = 0;  // alive ranks are within these words
    std::uint32_t end_ = 0;
};

void PrefixIndex::lookup(std::span<const SequenceHash> blocks, Overlap& out) const {
    Lookup(*this, blocks, out).run();
}

void Lookup::run() {
    start();
    std::uint32_t hint = 0;
    while (at_ < blocks_.size() && first_ < end_) {
        const std::uint32_t id = find_run(hint);
        if (id == 0) break;
        const Run& run = index_.runs_[id];
        hint = run.next.load(memory_order_relaxed);
        __builtin_prefetch(&index_.runs_[hint]);
        if (!read(run)) continue;  // it has another head by now
        for (int mode = 0; mode < modes_; ++mode) fall_out(mode);
        at_ += matched_;
        // What is alive for device memory is alive for any.
        const auto& alive = out_.alive_[modes_ - 1];
        while (first_ < end_ && alive[first_] == 0) ++first_;
        while (first_ < end_ && alive[end_ - 1] == 0) --end_;
    }
    if (at_ == 0) return;
    for (int mode = 0; mode < modes_; ++mode) {
        depths(mode).add_bits(std::span(out_.alive_[mode]).subspan(first_, end_ - first_), first_,
                              at_);
    }
}

void Lookup::start() {
    out_.device_.clear();
    out_.any_.clear();
    out_.lower_tiers_ = index_.lower_blocks_.load(memory_order_relaxed) != 0;
    out_.upper_bound_ = index_.sparse_ranks_.load(memory_order_relaxed) != 0;
    modes_ = out_.lower_tiers_ ? 2 : 1;
    words_ = index_.alive_words_.load(memory_order_acquire);
    end_ = words_;
    for (int mode = 0; mode < modes_; ++mode) {
        out_.alive_[mode].resize(words_);
        out_.cover_[mode].resize(words_);
    }
    for (std::uint32_t w = 0; w < words_; ++w) {
        const std::uint64_t alive = index_.alive_[w].load(memory_order_acquire);
        for (int mode = 0; mode < modes_; ++mode) out_.alive_[mode][w] = alive;
    }
}

std::uint32_t Lookup::find_run(std::uint32_t hint) const {
    const std::uint64_t hash = blocks_[at_].value;
    if (hint != 0 && index_.runs_[hint].head.load(memory_order_relaxed) == hash) return hint;
    while (true) {
        const std::uint64_t generation = index_.heads_.generation();
        const std::uint32_t id = index_.heads_.find(hash, [&](std::uint32_t run) {
            return index_.runs_[run].head.load(memory_order_relaxed) == hash;
        });
        if (id != 0 || generation == index_.heads_.generation()) return id;
    }
}

/// Fills matched_, cover_ and partial_. False if the run does not begin with our block.
bool Lookup::read(const Run& run) {
    while (true) {
        const std::uint32_t version = run.version.load(memory_order_acquire);
        const std::uint32_t length = run.length.load(memory_order_acquire);
        const std::uint32_t list = run.list.load(memory_order_relaxed);
        const std::uint64_t only = run.only.load(memory_order_relaxed);
        const std::uint32_t count = run.entries.load(memory_order_relaxed);
        const bool ours = run.head.load(memory_order_relaxed) == blocks_[at_].value;
        std::atomic_thread_fence(memory_order_acquire);
        // Numbers that belong together, before they are used to read elsewhere.
        if ((version & 1) != 0 || run.version.load(memory_order_relaxed) != version) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
            continue;
        }
        if (!ours || length == 0) return false;
        if (count > 1) index_.pool_.prefetch(list);
        for (const auto& bits : run.bits) {
            const std::uint32_t at = bits.load(memory_order_relaxed);
            if (at != 0) index_.pool_.prefetch(at);
        }
        matched_ = match(run);
        if (at_ + matched_ < blocks_.size()) {
            index_.heads_.prefetch(blocks_[at_ + matched_].value);
        }
        for (int mode = 0; mode < modes_; ++mode) {
            out_.partial_[mode].clear();
            std::fill(out_.cover_[mode].begin() + first_, out_.cover_[mode].begin() + end_, 0);
            read_bits(run, kDevice, mode);
        }
        if (modes_ == 2) {
            read_bits(run, kHost, 1);
            read_bits(run, kDisk, 1);
        }
        read_entries(list, only, count, length);
        std::atomic_thread_fence(memory_order_acquire);
        if (run.version.load(memory_order_relaxed) == version) return true;
    }
}

/// How many blocks of the request are those of the run, which begins with our block. A hash names
/// the whole prefix, so one equal hash says that all before are equal.
std::uint32_t Lookup::match(const Run& run) const {
    const std::uint32_t base = run.base.load(memory_order_relaxed);
    const std::uint32_t length = run.length.load(memory_order_acquire);
    const auto same = [&](std::uint32_t i) {
        return index_.store_.get(base + i) == blocks_[at_ + i].value;
    };
    std::uint32_t beyond = static_cast<std::uint32_t>(
        std::min<std::size_t>(length, blocks_.size() - at_));  // at least 1
    if (beyond <= 1 || same(beyond - 1)) return beyond;
    // Several probes at a time: their cache misses overlap.
    constexpr std::uint32_t kProbes = 7;
    std::uint32_t equal = 1;
    --beyond;
    while (equal < beyond) {
        const std::uint32_t step = (beyond - equal) / (kProbes + 1) + 1;
        std::uint32_t hits = 0;  // of probes at equal, equal + step, …
        std::uint32_t probes = 0;
        for (; probes < kProbes && equal + probes * step < beyond; ++probes) {
            hits += same(equal + probes * step) ? 1 : 0;
        }
        // Equal ones come first.
        if (hits < probes) beyond = equal + hits * step;
        if (hits > 0) equal += (hits - 1) * step + 1;
    }
    return equal;
}

void Lookup::read_bits(const Run& run, std::uint32_t way, int mode) {
    const std::uint32_t at = run.bits[way].load(memory_order_relaxed);
    if (at == 0) return;
    const auto words = static_cast<std::uint32_t>(index_.pool_.get(at));
    auto& cover = out_.cover_[mode];
    for (std::uint32_t w = first_; w < std::min(end_, words); ++w) {
        cover[w] |= index_.pool_.get(at + 1 + w);
    }
}

void Lookup::cover(std::uint32_t rank, std::uint32_t depth, int mode) {
    if (rank / 64 < first_ || rank / 64 >= end_ || depth == 0) return;
    if (depth >= matched_) {
        out_.cover_[mode][rank / 64] |= std::uint64_t{1} << (rank % 64);
    } else {
        out_.partial_[mode].push_back({RankSlot(rank), depth});
    }
}

/// Entries are sorted by rank, then by begin: a rank's depth is where its entries first leave a
/// gap.
void Lookup::read_entries(std::uint32_t list, std::uint64_t only, std::uint32_t count,
                          std::uint32_t length) {
    std::uint32_t rank = 0;
    std::array<std::uint32_t, 2> depth{};
    const std::uint32_t most = std::min<std::uint32_t>(count, 1U << 17);
    for (std::uint32_t i = 0; i < most; ++i) {
        const Entry e = Entry::of(count == 1 ? only : index_.pool_.get(list + i));
        if (e.rank != rank) {
            for (int mode = 0; mode < modes_; ++mode) cover(rank, depth[mode], mode);
            rank = e.rank;
            // A rank whose whole run is in the bits needs no entry; with both, the bits count.
            depth = {};
        }
        if (e.begin <= depth[0] && (e.way == kDevice || e.way == kPredicted)) {
            depth[0] = std::max(depth[0], std::min(e.end, length));
        }
        if (e.begin <= depth[1]) depth[1] = std::max(depth[1], std::min(e.end, length));
    }
    for (int mode = 0; mode < modes_; ++mode) cover(rank, depth[mode], mode);
}

/// Ranks that don't hold all that matched are out.
void Lookup::fall_out(int mode) {
    auto& alive = out_.alive_[mode];
    const auto& cover = out_.cover_[mode];
    for (const RankDepth& part : out_.partial_[mode]) {
        const std::uint64_t bit = std::uint64_t{1} << (part.rank.value % 64);
        std::uint64_t& word = alive[part.rank.value / 64];
        if ((word & bit) == 0 || (cover[part.rank.value / 64] & bit) != 0) continue;
        word &= ~bit;
        depths(mode).add(part.rank.value, at_ + part.depth);
    }
    if (at_ > 0) {
        // alive without cover, in place of cover, which is not needed any more.
        auto& lost = out_.cover_[mode];
        for (std::uint32_t w = first_; w < end_; ++w) {
            const std::uint64_t still = alive[w] & cover[w];
            lost[w] = alive[w] & ~cover[w];
            alive[w] = still;
        }
        depths(mode).add_bits(std::span(lost).subspan(first_, end_ - first_), first_, at_);
    } else {
        for (std::uint32_t w = first_; w < end_; ++w) alive[w] &= cover[w];
    }
}

}  // namespace stator::index
