#include "stator/engine/mock/core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <map>
#include <random>
#include <set>
#include <unordered_map>

#include "stator/tokens/token_sequence.h"

namespace stator::engine::mock {
namespace {

using protocol::FinishReason;
using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Tokens = std::vector<TokenId>;

CoreOptions small(std::uint32_t blocks) {
    CoreOptions o;
    o.blocks = blocks;
    o.block_tokens = 4;
    o.max_running = 4;
    o.max_waiting = 64;
    o.step_tokens = 16;
    o.step_time = StepTime(ConstantTime{10.0});
    return o;
}

CoreRequest request(std::uint64_t id, const Tokens& prompt, std::uint32_t max_tokens,
                    std::uint32_t block_tokens = 4) {
    tokens::TokenSequence sequence(block_tokens);
    sequence.append(prompt);
    CoreRequest r;
    r.id = RequestId(id);
    r.blocks.assign(sequence.sequence_hashes().begin(), sequence.sequence_hashes().end());
    r.tail.assign(prompt.begin() + static_cast<std::ptrdiff_t>(r.blocks.size() * block_tokens),
                  prompt.end());
    r.hash_seed = sequence.seed();
    r.max_tokens = max_tokens;
    r.ignore_eos = true;
    return r;
}

Tokens counting(TokenId first, std::size_t n) {
    Tokens t(n);
    for (std::size_t i = 0; i < n; ++i) t[i] = first + static_cast<TokenId>(i);
    return t;
}

/// What a follower of the changes believes to be there. Knows nothing of the core.
struct NaiveCache {
    std::map<KvTier, std::set<std::uint64_t>> tiers;

    void apply(const KvChange& change) {
        switch (change.kind) {
            case KvChange::Kind::kStored:
                EXPECT_TRUE(tiers[change.tier].insert(change.block.value).second) << "stored twice";
                break;
            case KvChange::Kind::kRemoved:
                EXPECT_EQ(tiers[change.tier].erase(change.block.value), 1U) << "was not there";
                break;
            case KvChange::Kind::kCleared:
                tiers.clear();
                break;
        }
    }
    void expect_equals(const Core& core) {
        for (const KvTier tier : {KvTier::kDevice, KvTier::kHost, KvTier::kDisk}) {
            std::set<std::uint64_t> there;
            for (const SequenceHash h : core.cached_blocks(tier)) there.insert(h.value);
            ASSERT_EQ(tiers[tier], there) << to_string(tier);
        }
    }
};

/// Drives a core on virtual time and keeps what came out.
struct Driver {
    explicit Driver(CoreOptions o) : core(std::move(o)) {}

    bool step() {
        const auto plan = core.begin_step(now);
        if (plan) {
            now += plan->duration;
            shapes.push_back(plan->shape);
            take();
            core.end_step(outputs);
        } else {
            core.drain_ended(outputs);
        }
        take();
        for (const CoreOutput& o : outputs) {
            EXPECT_FALSE(ends.contains(o.id.value)) << "an output after the end of " << o.id.value;
            if (o.has_token) texts[o.id.value].push_back(o.token);
            if (o.first) firsts[o.id.value] = now;
            if (o.finish) {
                ends[o.id.value] = *o.finish;
                cached[o.id.value] = o.cached_tokens;
            }
        }
        outputs.clear();
        if (plan) return true;
        if (const auto ready = core.next_ready()) {
            now = std::max(now, *ready);
            return true;
        }
        return false;
    }
    void take() {
        changes.clear();
        core.take_changes(changes);
        for (const KvChange& change : changes) naive.apply(change);
        naive.expect_equals(core);
    }
    void run() {
        for (int i = 0; i < 100'000; ++i) {
            if (!step()) return;
        }
        FAIL() << "does not come to an end";
    }

    Core core;
    Nanos now{0};
    NaiveCache naive;
    std::vector<CoreOutput> outputs;
    std::vector<KvChange> changes;
    std::vector<StepShape> shapes;
    std::map<std::uint64_t, Tokens> texts;
    std::map<std::uint64_t, Nanos> firsts;
    std::map<std::uint64_t, FinishReason> ends;
    std::map<std::uint64_t, std::uint32_t> cached;
};

/// The output of a request that has a core to itself.
Tokens alone(CoreOptions o, CoreRequest r) {
    o.host = o.disk = {};
    o.blocks = 4096;
    r.leg = Leg::kWhole;
    const std::uint64_t id = r.id.value;
    Driver d(std::move(o));
    EXPECT_TRUE(d.core.submit(std::move(r)));
    d.run();
    return d.texts[id];
}

TEST(MockCore, PrefillThenDecode) {
    Driver d(small(64));
    ASSERT_TRUE(d.core.submit(request(1, counting(0, 20), 5)));
    d.run();
    // 16 prompt tokens fit the first step, 4 the second, which also gives the first token.
    ASSERT_EQ(d.shapes.size(), 6U);
    EXPECT_EQ(d.shapes[0].prefill_tokens, 16U);
    EXPECT_EQ(d.shapes[0].prefill_context, 120U);
    EXPECT_EQ(d.shapes[1].prefill_tokens, 4U);
    EXPECT_EQ(d.shapes[1].prefill_context, 16U * 4 + 6);
    EXPECT_EQ(d.shapes[2].decode_sequences, 1U);
    EXPECT_EQ(d.shapes[2].decode_context, 21U);
    EXPECT_EQ(d.texts[1].size(), 5U);
    EXPECT_EQ(d.ends[1], FinishReason::kLength);
    EXPECT_EQ(d.firsts[1], milliseconds(20));
    EXPECT_EQ(d.now, milliseconds(60));
    EXPECT_EQ(d.core.metrics().prefill_tokens, 20U);
    EXPECT_EQ(d.core.metrics().decode_tokens, 4U);
}

TEST(MockCore, DecodesGoBeforePromptsInTheBudget) {
    Driver d(small(64));
    ASSERT_TRUE(d.core.submit(request(1, counting(0, 4), 10)));
    d.step();
    ASSERT_TRUE(d.core.submit(request(2, counting(100, 40), 1)));
    d.step();
    EXPECT_EQ(d.shapes[1].decode_sequences, 1U);
    EXPECT_EQ(d.shapes[1].prefill_tokens, 15U);
}

TEST(MockCore, SecondRequestReusesWholeBlocksButNotTheLastToken) {
    Driver d(small(64));
    ASSERT_TRUE(d.core.submit(request(1, counting(0, 12), 1)));
    d.run();
    ASSERT_TRUE(d.core.submit(request(2, counting(0, 12), 1)));
    d.run();
    EXPECT_EQ(d.cached[2], 8U);
    Tokens longer = counting(0, 12);
    longer.push_back(7);
    ASSERT_TRUE(d.core.submit(request(3, longer, 1)));
    d.run();
    EXPECT_EQ(d.cached[3], 12U);
    EXPECT_EQ(d.texts[1], d.texts[2]);
}

TEST(MockCore, OutputsAreReusedToo) {
    Driver d(small(64));
    Tokens prompt = counting(0, 6);
    ASSERT_TRUE(d.core.submit(request(1, prompt, 9)));
    d.run();
    Tokens next = prompt;
    next.insert(next.end(), d.texts[1].begin(), d.texts[1].end());
    next.push_back(3);
    ASSERT_TRUE(d.core.submit(request(2, next, 1)));
    d.run();
    EXPECT_EQ(d.cached[2], 12U);  // of 6 + 8 computed tokens, whole blocks
}

TEST(MockCore, ResumedRequestGoesOnWithTheSameTokens) {
    const CoreRequest whole = request(1, counting(5, 10), 12);
    const Tokens text = alone(small(64), whole);
    Tokens resumed = counting(5, 10);
    resumed.insert(resumed.end(), text.begin(), text.begin() + 7);
    const Tokens rest = alone(small(64), request(2, resumed, 5));
    EXPECT_EQ(Tokens(text.begin() + 7, text.end()), rest);
}

TEST(MockCore, SeedAndPrefixDecideTheTokens) {
    CoreRequest a = request(1, counting(0, 10), 8);
    CoreRequest b = a;
    b.token_seed = 1;
    CoreRequest c = request(1, counting(1, 10), 8);
    const Tokens text = alone(small(64), a);
    EXPECT_NE(text, alone(small(64), b));
    EXPECT_NE(text, alone(small(64), c));
    CoreOptions eight = small(64);
    eight.seed = 99;
    eight.noise = 0.2;
    EXPECT_EQ(text, alone(eight, a));
}

TEST(MockCore, PreemptsTheLastOneAndStillGivesItsTokens) {
    CoreOptions o = small(10);
    Driver d(o);
    const CoreRequest a = request(1, counting(0, 12), 16);
    const CoreRequest b = request(2, counting(100, 12), 16);
    ASSERT_TRUE(d.core.submit(a));
    ASSERT_TRUE(d.core.submit(b));
    d.run();
    EXPECT_GT(d.core.metrics().preemptions, 0U);
    EXPECT_EQ(d.texts[1], alone(o, a));
    EXPECT_EQ(d.texts[2], alone(o, b));
}

TEST(MockCore, PriorityGoesFirst) {
    CoreOptions o = small(64);
    o.max_running = 1;
    Driver d(o);
    for (std::uint64_t id = 1; id <= 3; ++id) {
        CoreRequest r = request(id, counting(static_cast<TokenId>(id * 100), 4), 2);
        r.priority = id == 3 ? 1 : 0;
        ASSERT_TRUE(d.core.submit(std::move(r)));
    }
    d.run();
    EXPECT_LT(d.firsts[3], d.firsts[1]);
    EXPECT_LT(d.firsts[1], d.firsts[2]);
}

TEST(MockCore, EvictedBlocksGoToTheHostThenToTheDiskAndComeBack) {
    CoreOptions o = small(8);
    o.kv_bytes_per_token = 1'000'000;
    o.host = {4, 1.0, 1000.0};
    o.disk = {64, 0.1, 1000.0};
    Driver d(o);
    ASSERT_TRUE(d.core.submit(request(1, counting(0, 25), 1)));
    d.run();
    ASSERT_TRUE(d.core.submit(request(2, counting(100, 29), 1)));
    d.run();
    EXPECT_EQ(d.core.cached_blocks(KvTier::kHost).size(), 4U);
    EXPECT_FALSE(d.core.cached_blocks(KvTier::kDisk).empty());
    const Nanos before = d.now;
    ASSERT_TRUE(d.core.submit(request(3, counting(0, 25), 1)));
    d.run();
    EXPECT_EQ(d.cached[3], 24U);
    EXPECT_EQ(d.texts[3], d.texts[1]);
    // The blocks on the disk take 40 ms each.
    EXPECT_GT(d.now - before, milliseconds(10 + 40));
}

TEST(MockCore, ClearForgetsEverythingAndRunningRequestsGoOn) {
    Driver d(small(64));
    const CoreRequest a = request(1, counting(0, 12), 12);
    ASSERT_TRUE(d.core.submit(a));
    for (int i = 0; i < 4; ++i) d.step();
    d.core.clear_cache();
    d.take();
    EXPECT_THAT(d.core.cached_blocks(KvTier::kDevice), IsEmpty());
    d.run();
    EXPECT_THAT(d.core.cached_blocks(KvTier::kDevice), IsEmpty());
    EXPECT_EQ(d.texts[1], alone(small(64), a));
    EXPECT_EQ(d.core.load().kv_used_tokens, 0U);
}

TEST(MockCore, PrefillLegHoldsItsBlocksUntilReleased) {
    Driver d(small(64));
    CoreRequest r = request(1, counting(0, 10), 5);
    r.leg = Leg::kPrefill;
    ASSERT_TRUE(d.core.submit(r));
    d.run();
    EXPECT_EQ(d.ends[1], FinishReason::kLength);
    EXPECT_THAT(d.texts[1], IsEmpty());
    EXPECT_EQ(d.core.load().kv_used_tokens, 12U);
    d.core.release(RequestId(1));
    EXPECT_EQ(d.core.load().kv_used_tokens, 0U);
    EXPECT_TRUE(d.core.idle());
}

TEST(MockCore, DecodeLegWaitsForTheKvAndGivesTheSameTokens) {
    CoreOptions o = small(64);
    o.kv_bytes_per_token = 1'000'000;
    o.handoff_gb_per_s = 1.0;
    o.handoff_latency = milliseconds(2);
    Driver d(o);
    CoreRequest r = request(1, counting(0, 10), 5);
    const Tokens whole = alone(o, r);
    r.leg = Leg::kDecode;
    ASSERT_TRUE(d.core.submit(r));
    d.run();
    EXPECT_EQ(d.firsts[1], milliseconds(2 + 9 + 10));
    EXPECT_EQ(d.texts[1], whole);
    EXPECT_EQ(d.core.metrics().prefill_tokens, 1U);
    r.id = RequestId(2);
    const Nanos before = d.now;
    ASSERT_TRUE(d.core.submit(r));
    d.run();
    EXPECT_EQ(d.firsts[2] - before, milliseconds(2 + 1 + 10)) << "two blocks are here already";
}

TEST(MockCore, ImagesAreEncodedOnceWhileTheyAreKept) {
    CoreOptions o = small(64);
    o.step_time = StepTime(ConstantTime{10.0}, EncoderTime{5.0, 0.0});
    Driver d(o);
    CoreRequest r = request(1, counting(0, 12), 1);
    r.images = {{77, 2, 6}};
    ASSERT_TRUE(d.core.submit(r));
    d.run();
    EXPECT_EQ(d.now, milliseconds(15));
    CoreRequest other = request(2, counting(50, 12), 1);
    other.images = r.images;
    ASSERT_TRUE(d.core.submit(other));
    d.run();
    EXPECT_EQ(d.now, milliseconds(25));
    CoreRequest encode;
    encode.id = RequestId(3);
    encode.leg = Leg::kEncode;
    encode.images = {{78, 0, 6}};
    ASSERT_TRUE(d.core.submit(encode));
    d.run();
    EXPECT_EQ(d.ends[3], FinishReason::kStop);
}

TEST(MockCore, AdaptersShareThePlaces) {
    CoreOptions o = small(64);
    o.max_adapters = 1;
    o.adapter_load = milliseconds(50);
    Driver d(o);
    for (std::uint32_t id = 1; id <= 3; ++id) {
        CoreRequest r = request(id, counting(id * 100, 4), 2);
        r.adapter = id == 2 ? 2 : 1;
        ASSERT_TRUE(d.core.submit(r));
    }
    d.run();
    EXPECT_EQ(d.firsts[1], d.firsts[3]);
    EXPECT_GT(d.firsts[2], d.firsts[1]);
    EXPECT_EQ(d.now, milliseconds(50 + 10 + 10 + 50 + 10 + 10));
}

TEST(MockCore, EndsByItselfAtTheMeanLength) {
    CoreOptions o = small(4096);
    o.mean_output_tokens = 20;
    o.eos = 2;
    o.max_running = 64;
    Driver d(o);
    double sum = 0;
    constexpr int kRequests = 60;
    for (std::uint64_t id = 1; id <= kRequests; ++id) {
        CoreRequest r = request(id, counting(static_cast<TokenId>(id * 1000), 5), 1000);
        r.ignore_eos = false;
        r.min_tokens = 3;
        ASSERT_TRUE(d.core.submit(std::move(r)));
    }
    d.run();
    for (auto& [id, text] : d.texts) {
        EXPECT_EQ(d.ends[id], FinishReason::kStop);
        EXPECT_EQ(text.back(), 2U);
        EXPECT_GE(text.size(), 4U);
        sum += static_cast<double>(text.size());
    }
    EXPECT_NEAR(sum / kRequests, 23, 8);
}

TEST(MockCore, RefusesWhatCanNeverRun) {
    Core core(small(4));
    const auto too_long = core.submit(request(1, counting(0, 12), 6));
    ASSERT_FALSE(too_long);
    EXPECT_THAT(too_long.error().message,
                ::testing::HasSubstr("do not fit the KV memory of 4 blocks"));
    EXPECT_TRUE(core.submit(request(1, counting(0, 12), 5)));
    EXPECT_FALSE(core.submit(request(1, counting(0, 4), 1))) << "the same id twice";
    EXPECT_FALSE(core.submit(request(2, {}, 1)));
    CoreOptions o = small(64);
    o.max_running = 1;
    o.max_waiting = 1;
    Core tiny(o);
    EXPECT_TRUE(tiny.submit(request(1, counting(0, 4), 1)));
    EXPECT_TRUE(tiny.submit(request(2, counting(0, 4), 1)));
    const auto full = tiny.submit(request(3, counting(0, 4), 1));
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, ErrorCode::kOverloaded);
}

/// Random loads on a memory that is far too small: every request ends once, with the tokens it has
/// alone, and at every moment the changes add up to exactly the blocks that are there.
TEST(MockCoreProperty, ChangesAddUpAndTokensAreExactThroughEverything) {
    EXPECT_TRUE(rc::check([] {
        std::mt19937 random(*rc::gen::inRange<unsigned>(0, 1U << 30));
        const auto pick = [&](std::uint32_t low, std::uint32_t high) {
            return low + static_cast<std::uint32_t>(random()) % (high - low + 1);
        };
        CoreOptions o = small(pick(8, 24));
        o.max_running = pick(1, 5);
        o.step_tokens = pick(3, 24);
        o.chunked_prefill = pick(0, 3) != 0;
        o.kv_bytes_per_token = 1000;
        if (pick(0, 1) == 1) o.host = {pick(1, 8), 0.001 * pick(1, 50), pick(0, 1) * 0.01};
        if (pick(0, 1) == 1) o.disk = {pick(1, 30), 0.0001 * pick(1, 50), pick(0, 1) * 0.01};
        o.mean_output_tokens = pick(0, 1) * 6;
        Driver d(o);
        std::map<std::uint64_t, CoreRequest> sent;
        std::set<std::uint64_t> cancelled;
        std::set<std::uint64_t> prefills;
        const std::uint32_t requests = pick(5, 40);
        std::uint64_t id = 0;
        for (int turn = 0; turn < 20'000; ++turn) {
            if (id < requests && pick(0, 3) == 0) {
                Tokens prompt = counting(pick(0, 2) * 50, pick(1, 20));
                if (pick(0, 2) == 0) prompt.back() += 1000;
                CoreRequest r = request(++id, prompt, pick(1, 10));
                r.ignore_eos = pick(0, 1) == 0;
                r.priority = static_cast<std::int32_t>(pick(0, 1));
                r.adapter = pick(0, 5) == 0 ? pick(1, 6) : 0;
                r.leg =
                    std::array{Leg::kWhole, Leg::kWhole, Leg::kPrefill, Leg::kDecode}[pick(0, 3)];
                if (r.leg == Leg::kPrefill) prefills.insert(id);
                sent.emplace(id, r);
                RC_ASSERT(d.core.submit(std::move(r)).has_value());
            }
            if (id > 0 && pick(0, 30) == 0) {
                const std::uint64_t gone = pick(1, static_cast<std::uint32_t>(id));
                if (!d.ends.contains(gone)) cancelled.insert(gone);
                d.core.cancel(RequestId(gone));
            }
            if (pick(0, 60) == 0) d.core.clear_cache();
            const bool more = d.step();
            for (const std::uint64_t p : prefills) {
                if (d.ends.contains(p) && pick(0, 3) == 0) d.core.release(RequestId(p));
            }
            if (!more && id == requests && d.ends.size() == requests && d.core.idle()) break;
        }
        RC_ASSERT(d.ends.size() == requests);
        RC_ASSERT(d.core.load().kv_used_tokens == 0U);
        RC_ASSERT(d.core.load().waiting_tokens == 0U);
        for (auto& [which, r] : sent) {
            if (cancelled.contains(which)) continue;
            RC_ASSERT(d.ends[which] != FinishReason::kCancelled);
            if (r.leg == Leg::kPrefill) {
                RC_ASSERT(d.texts[which].empty());
            } else {
                RC_ASSERT(d.texts[which] == alone(o, r));
            }
        }
    }));
}

}  // namespace
}  // namespace stator::engine::mock
