// One writer, several readers: run under ThreadSanitizer, too (tools/dev/test.sh).

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "stator/index/prefix_index.h"
#include "stator/tokens/hash.h"

namespace stator::index {
namespace {

using protocol::KvTier;
using tokens::SequenceHash;
using Hashes = std::vector<SequenceHash>;

constexpr std::size_t kLength = 200;

Hashes chain(std::uint64_t root) {
    Hashes out;
    for (std::size_t i = 0; i < kLength; ++i) {
        const tokens::BlockHash block(root * 1'000'003 + i);
        out.push_back(i == 0 ? tokens::sequence_hash(block)
                             : tokens::sequence_hash(out.back(), block));
    }
    return out;
}

IndexOptions small() {
    IndexOptions o;
    o.max_ranks = 128;
    o.max_blocks = 1 << 16;
    return o;
}

/// What never changes is answered exactly whatever happens around it: rank 0 holds every chain's
/// first half for good, rank 1 nothing of them; others come and go, tables grow, runs are split and
/// joined by many.
TEST(IndexConcurrency, ReadersSeeWhatDoesNotChange) {
    PrefixIndex index(small());
    std::vector<Hashes> chains;
    for (std::uint64_t i = 1; i <= 16; ++i) chains.push_back(chain(i));
    const RankSlot steady = index.add_rank().value();
    const RankSlot idle = index.add_rank().value();
    for (const Hashes& c : chains) {
        index.stored(steady, KvTier::kDevice, std::nullopt, std::span(c).first(kLength / 2));
    }
    std::atomic<bool> done{false};
    std::atomic<int> wrong{0};
    std::atomic<std::size_t> lookups{0};
    const auto read = [&](std::size_t first) {
        Overlap overlap;
        for (std::size_t i = first; !done || i < first + 100; ++i) {
            const Hashes& request = chains[i % chains.size()];
            index.lookup(request, overlap);
            if (overlap.device().of(steady) != kLength / 2 || overlap.device().of(idle) != 0 ||
                overlap.any().of(steady) != kLength / 2 || overlap.device().deepest() > kLength) {
                ++wrong;
            }
            ++lookups;
        }
    };
    std::thread a(read, 0);
    std::thread b(read, 7);
    std::vector<RankSlot> ranks;
    for (int i = 0; i < 40; ++i) ranks.push_back(index.add_rank().value());
    std::uint64_t dice = 88172645463325252U;
    const auto below = [&](std::size_t n) {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        return static_cast<std::size_t>(dice % n);
    };
    for (int step = 0; step < 20'000; ++step) {
        RankSlot& r = ranks[below(ranks.size())];
        const Hashes& c = chains[below(chains.size())];
        const std::size_t begin = below(kLength);
        const std::size_t n = 1 + below(kLength - begin);
        const auto blocks = std::span(c).subspan(begin, n);
        switch (below(8)) {
            case 0:
                index.removed(r, KvTier::kDevice, blocks);
                break;
            case 1:
                index.stored(r, KvTier::kHost, std::nullopt, blocks);
                break;
            case 2:
                index.removed(r, KvTier::kHost, blocks);
                break;
            case 3:
                index.predict(r, std::nullopt, blocks, TimePoint{step + 50});
                break;
            case 4:
                index.tidy(TimePoint{step}, 8);
                break;
            case 5:
                if (below(40) == 0) {
                    index.remove_rank(r);
                    r = index.add_rank().value();
                } else {
                    index.cleared(r);
                }
                break;
            default:
                index.stored(r, KvTier::kDevice, std::nullopt, std::span(c).first(begin + n));
        }
        if (step % 50 == 0) {  // grows the tables
            const Hashes fresh = chain(1000 + below(400));
            index.stored(r, KvTier::kDevice, std::nullopt, fresh);
        }
    }
    done = true;
    a.join();
    b.join();
    EXPECT_EQ(wrong, 0);
    EXPECT_GT(lookups, 200u);
}

/// Depths only grow while blocks are only added, and only by whole events.
TEST(IndexConcurrency, AnAppendIsSeenAfterIt) {
    PrefixIndex index(small());
    const Hashes request = chain(1);
    const RankSlot r = index.add_rank().value();
    std::atomic<std::uint32_t> written{0};
    std::atomic<int> wrong{0};
    std::thread reader([&] {
        Overlap overlap;
        std::uint32_t last = 0;
        while (last < kLength) {
            const std::uint32_t before = written;
            index.lookup(request, overlap);
            const std::uint32_t depth = overlap.device().of(r);
            if (depth < before || depth < last || depth > written + 1) ++wrong;
            last = depth;
        }
    });
    for (std::uint32_t i = 0; i < kLength; ++i) {
        index.stored(r, KvTier::kDevice, i == 0 ? std::nullopt : std::optional(request[i - 1]),
                     std::span(request).subspan(i, 1));
        written = i + 1;
        if (i % 16 == 0) std::this_thread::yield();
    }
    reader.join();
    EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace stator::index
