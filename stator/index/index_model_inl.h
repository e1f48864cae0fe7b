#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "stator/tokens/hash.h"

namespace stator::index {

/// Random requests that share prefixes.
class RandomPaths {
  public:
    RandomPaths(const HistoryShape& shape, std::mt19937_64& random)
        : shape_(shape), random_(random) {}

    std::vector<tokens::SequenceHash> next() {
        std::vector<tokens::SequenceHash> path;
        const std::uint64_t n = 1 + random_() % shape_.longest;
        for (std::uint64_t i = 0; i < n; ++i) {
            const std::uint64_t label = random_() % 100 < shape_.fork_percent ? random_() % 3 : 0;
            const tokens::BlockHash block(label + 1);
            path.push_back(i == 0 ? tokens::sequence_hash(block)
                                  : tokens::sequence_hash(path.back(), block));
        }
        return path;
    }

  private:
    const HistoryShape& shape_;
    std::mt19937_64& random_;
};

template <typename Subject>
class History {
  public:
    History(Subject& index, const IndexOptions& options, const HistoryShape& shape,
            std::uint64_t seed)
        : index_(index),
          options_(options),
          model_(shape.lossy ? without_quota(options) : options),
          shape_(shape),
          random_(seed),
          paths_(shape_, random_) {}

    std::optional<std::string> run() {
        while (ranks_.size() < shape_.ranks) join();
        for (step_ = 0; step_ < shape_.steps; ++step_) {
            act();
            if (auto difference = compare()) {
                return fmt::format("step {} ({}): {}", step_, what_, *difference);
            }
        }
        return std::nullopt;
    }

  private:
    static IndexOptions without_quota(IndexOptions options) {
        options.max_predicted_per_tenant = 0;
        return options;
    }
    using Hashes = std::vector<tokens::SequenceHash>;
    std::uint64_t below(std::uint64_t n) { return random_() % n; }
    RankSlot rank() { return ranks_[below(ranks_.size())]; }
    protocol::KvTier tier() {
        return shape_.lower_tiers && below(4) == 0 ? static_cast<protocol::KvTier>(1 + below(2))
                                                   : protocol::KvTier::kDevice;
    }
    /// Often one that was used before.
    const Hashes& path() {
        if (known_.size() < 8 || (known_.size() < 64 && below(4) == 0)) {
            known_.push_back(paths_.next());
            return known_.back();
        }
        if (below(8) == 0) known_[below(known_.size())] = paths_.next();
        return known_[below(known_.size())];
    }

    void join() {
        const auto slot = index_.add_rank();
        if (!slot) return;
        model_.add_rank(*slot);
        ranks_.push_back(*slot);
    }
    void act() {
        const std::uint64_t what = below(100);
        if (what < 45) {
            store();
        } else if (what < 75) {
            remove();
        } else if (what < 85) {
            if (shape_.predictions) predict();
        } else if (what < 88) {
            clear();
        } else if (what < 91) {
            change_ranks();
        } else if (what < 94) {
            replace();
        } else {
            what_ = "tidy";
            now_ = now_ + std::chrono::nanoseconds(below(30));
            index_.tidy(now_, 1 + below(10));
            model_.expire(now_);
        }
    }
    void store() {
        what_ = "stored";
        const Hashes& all = path();
        const std::uint64_t begin = below(3) == 0 ? below(all.size()) : 0;
        const std::uint64_t end = begin + 1 + below(all.size() - begin);
        const auto blocks = std::span(all).subspan(begin, end - begin);
        const auto r = rank();
        const auto t = tier();
        std::optional<tokens::SequenceHash> parent;
        if (begin > 0) parent = all[begin - 1];
        // By one event, or block by block as decoding does.
        if (below(4) != 0) {
            index_.stored(r, t, parent, blocks);
        } else {
            for (std::size_t i = 0; i < blocks.size(); ++i) {
                index_.stored(r, t, i == 0 ? parent : std::optional(blocks[i - 1]),
                              blocks.subspan(i, 1));
            }
        }
        model_.stored(r, t, blocks);
    }
    void remove() {
        what_ = "removed";
        const Hashes& all = path();
        const std::uint64_t begin = below(all.size());
        const std::uint64_t end =
            below(2) == 0 ? all.size() : begin + 1 + below(all.size() - begin);
        Hashes blocks(all.begin() + static_cast<std::ptrdiff_t>(begin),
                      all.begin() + static_cast<std::ptrdiff_t>(end));
        switch (below(4)) {
            case 0:
                break;
            case 1:
                std::ranges::shuffle(blocks, random_);
                break;
            default:
                std::ranges::reverse(blocks);
        }
        if (below(10) == 0) blocks.emplace_back(random_());
        if (below(10) == 0) blocks.push_back(blocks.front());
        const auto r = rank();
        const auto t = tier();
        index_.removed(r, t, blocks);
        model_.removed(r, t, blocks);
    }
    void predict() {
        what_ = "predict";
        const Hashes& all = path();
        const auto blocks = std::span(all).first(1 + below(all.size()));
        const auto r = rank();
        const TimePoint until = now_ + std::chrono::nanoseconds(1 + below(100));
        const std::uint64_t tenant = shape_.tenants > 1 ? below(shape_.tenants) : 0;
        index_.predict(r, std::nullopt, blocks, until, tenant);
        model_.predict(r, blocks, until, tenant);
    }
    void clear() {
        what_ = "cleared";
        const auto r = rank();
        index_.cleared(r);
        model_.cleared(r);
    }
    void change_ranks() {
        what_ = "ranks change";
        const std::uint64_t at = below(ranks_.size());
        index_.remove_rank(ranks_[at]);
        model_.remove_rank(ranks_[at]);
        ranks_.erase(ranks_.begin() + static_cast<std::ptrdiff_t>(at));
        if (below(2) == 0) index_.tidy(now_, 1'000'000);
        model_.expire(now_);
        join();
        if (ranks_.empty()) join();
    }
    void replace() {
        what_ = "replace";
        const auto r = rank();
        // What the index says that another rank has, and so tests the export, too.
        std::vector<std::pair<protocol::KvTier, Hashes>> kept;
        index_.export_rank(rank(), [&](const HeldBlocks& held) {
            kept.emplace_back(held.tier, Hashes(held.blocks.begin(), held.blocks.end()));
        });
        std::vector<HeldBlocks> blocks;
        for (const auto& [t, hashes] : kept) blocks.push_back({t, hashes});
        index_.replace(r, blocks);
        model_.cleared(r);
        for (const HeldBlocks& held : blocks) model_.stored(r, held.tier, held.blocks);
    }

    std::optional<std::string> compare() {
        for (int i = 0; i < 3; ++i) {
            if (auto difference = compare(path())) return difference;
        }
        const std::size_t quota = options_.max_predicted_per_tenant;
        for (std::uint64_t tenant = 0; quota > 0 && tenant < shape_.tenants; ++tenant) {
            if (index_.predicted_of(tenant) > quota) {
                return fmt::format("tenant {} has {} predicted blocks of at most {}", tenant,
                                   index_.predicted_of(tenant), quota);
            }
        }
        if (shape_.lossy) return std::nullopt;
        if (index_.counters().quota_blocks != model_.quota_blocks()) {
            return fmt::format("{} blocks were over a quota, should be {}",
                               index_.counters().quota_blocks, model_.quota_blocks());
        }
        const RankSlot r = rank();
        if (index_.blocks_of(r) != model_.held(r)) {
            return fmt::format("rank {} holds {} blocks, should be {}", r.value,
                               index_.blocks_of(r), model_.held(r));
        }
        if (below(20) != 0) return std::nullopt;
        std::array<std::set<std::uint64_t>, 3> exported;
        index_.export_rank(r, [&](const HeldBlocks& held) {
            for (const auto b : held.blocks) {
                exported[static_cast<std::size_t>(held.tier)].insert(b.value);
            }
        });
        for (std::size_t t = 0; t < 3; ++t) {
            if (exported[t] != model_.blocks(r, static_cast<protocol::KvTier>(t))) {
                return fmt::format("rank {}: the export differs in memory {}", r.value, t);
            }
        }
        return std::nullopt;
    }
    std::optional<std::string> compare(const Hashes& request) {
        index_.lookup(request, overlap_);
        std::size_t holders = 0;
        for (const RankSlot r : ranks_) {
            const std::uint32_t device = model_.device_depth(r, request);
            const std::uint32_t any = model_.any_depth(r, request);
            if (shape_.lossy && overlap_.device().of(r) <= device && overlap_.any().of(r) <= any) {
                continue;
            }
            if (overlap_.device().of(r) != device || overlap_.any().of(r) != any) {
                return fmt::format("rank {} has {} and {} blocks, should be {} and {}", r.value,
                                   overlap_.device().of(r), overlap_.any().of(r), device, any);
            }
            holders += device > 0;
        }
        if (shape_.lossy) return std::nullopt;
        std::size_t listed = 0;
        std::uint32_t deepest = 0;
        overlap_.device().for_each([&](const RankDepth& one) {
            ++listed;
            deepest = std::max(deepest, one.depth);
        });
        if (listed != holders || holders != overlap_.device().holders() ||
            deepest != overlap_.device().deepest()) {
            return fmt::format("{} holders listed, {} counted, should be {}", listed,
                               overlap_.device().holders(), holders);
        }
        return std::nullopt;
    }

    Subject& index_;
    IndexOptions options_;
    IndexModel model_;
    HistoryShape shape_;
    std::mt19937_64 random_;
    RandomPaths paths_;
    std::vector<RankSlot> ranks_;
    std::vector<Hashes> known_;
    TimePoint now_{1000};
    Overlap overlap_;
    int step_ = 0;
    const char* what_ = "";
};

template <typename Subject>
std::optional<std::string> find_difference(Subject& index, const IndexOptions& options,
                                           const HistoryShape& shape, std::uint64_t seed) {
    return History<Subject>(index, options, shape, seed).run();
}

}  // namespace stator::index
