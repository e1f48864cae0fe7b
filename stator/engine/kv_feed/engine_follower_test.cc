#include "stator/engine/kv_feed/engine_follower.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <array>
#include <deque>

#include "stator/codec/msgpack.h"
#include "stator/engine/kv_feed/engine_feed_fixture.h"

namespace stator::engine {
namespace {

using namespace std::chrono_literals;
using codec::MsgpackWriter;
using protocol::KvEvent;
using State = EngineFollower::State;
using testing::Optional;

/// An engine's publisher: each message stores a block of its own, or takes back an older one.
struct Publisher {
    std::vector<std::string> messages;
    std::vector<std::uint64_t> blocks;
    double time = 1000;
    std::uint64_t last = 0;

    void store() {
        blocks.push_back(++last);
        publish([&](MsgpackWriter& w) {
            w.map(4).string("type").string("BlockStored").string("block_hashes").array(1);
            w.number(last).string("token_ids").array(2).number(last).number(last + 1);
            w.string("block_size").number(2);
        });
    }
    void remove() {
        if (blocks.empty()) return store();
        publish([&](MsgpackWriter& w) {
            w.map(2).string("type").string("BlockRemoved").string("block_hashes").array(1);
            w.number(blocks.front());
        });
        blocks.erase(blocks.begin());
    }
    void restart() {
        messages.clear();
        blocks.clear();
        time += 50;
    }
    void publish(const std::function<void(MsgpackWriter&)>& event) {
        std::string& out = messages.emplace_back();
        MsgpackWriter w(out);
        w.array(2).real(++time).array(1);
        event(w);
    }
};

struct Follow {
    explicit Follow(bool replay, EngineFollowerOptions o = {})
        : follower({.block_tokens = 2}, with(o, replay), now) {}
    static EngineFollowerOptions with(EngineFollowerOptions o, bool replay) {
        o.has_replay = replay;
        return o;
    }
    EngineFollower::Wish message(const Publisher& p, std::uint64_t n) {
        return take([&](auto& out) { return follower.on_message(n, p.messages[n], now, out); });
    }
    /// The engine keeps its last `kept` messages.
    EngineFollower::Wish replay(const Publisher& p, std::uint64_t from, std::size_t kept = 1000) {
        const std::uint64_t oldest = p.messages.size() > kept ? p.messages.size() - kept : 0;
        for (std::uint64_t n = std::max(from, oldest); n < p.messages.size(); ++n) {
            std::vector<KvEvent> out;
            follower.on_replayed(n, p.messages[n], now, out);
            apply(out);
        }
        return take([&](auto& out) { return follower.on_replay_end(now, out); });
    }
    EngineFollower::Wish start() {
        return take([&](auto& out) { return follower.start(now, out); });
    }
    EngineFollower::Wish wait(std::chrono::milliseconds time) {
        now = now + time;
        return take([&](auto& out) { return follower.on_time(now, out); });
    }
    template <typename F>
    EngineFollower::Wish take(const F& call) {
        std::vector<KvEvent> out;
        const auto wish = call(out);
        apply(out);
        return wish;
    }
    void apply(const std::vector<KvEvent>& out) {
        for (const auto& e : out) {
            EXPECT_EQ(e.seq.value, ++last);
            held.apply(e);
        }
    }
    [[nodiscard]] bool same(const Publisher& p) const {
        return follower.state() == State::kLive && held.held().size() == p.blocks.size() &&
               std::ranges::all_of(p.blocks, [&](std::uint64_t b) {
                   const auto first = static_cast<tokens::TokenId>(b);
                   const std::array<tokens::TokenId, 2> tokens{first, first + 1};
                   const auto block = tokens::block_hash(tokens, tokens::hash_seed());
                   return held.held().contains(tokens::sequence_hash(block).value);
               });
    }
    void expect_same(const Publisher& p) { EXPECT_TRUE(same(p)); }

    TimePoint now = TimePoint{} + 1h;
    EngineFollower follower;
    HeldBlocks held;
    std::uint64_t last = 0;
};

TEST(EngineFollower, ALateOneHasTheHistoryReplayed) {
    Publisher p;
    for (int i = 0; i < 5; ++i) p.store();
    p.remove();
    Follow f(true);
    EXPECT_THAT(f.start(), Optional(0));
    EXPECT_EQ(f.follower.state(), State::kSyncing);
    p.store();
    EXPECT_FALSE(f.message(p, 6));
    EXPECT_FALSE(f.replay(p, 0));
    f.expect_same(p);
    EXPECT_FALSE(f.follower.incomplete());
    // What the replay brought comes once more.
    EXPECT_FALSE(f.message(p, 6));
    f.expect_same(p);
    EXPECT_EQ(f.follower.stats().repeated, 1U);
    EXPECT_EQ(f.follower.stats().restarts, 0U);
}

TEST(EngineFollower, AHoleIsFilled) {
    Publisher p;
    Follow f(true);
    (void)f.start();
    EXPECT_FALSE(f.replay(p, 0));
    for (int i = 0; i < 6; ++i) p.store();
    p.remove();
    EXPECT_FALSE(f.message(p, 0));
    EXPECT_THAT(f.message(p, 3), Optional(1));
    EXPECT_FALSE(f.message(p, 4));
    EXPECT_EQ(f.follower.state(), State::kGap);
    EXPECT_FALSE(f.replay(p, 1));
    f.expect_same(p);
    EXPECT_EQ(f.follower.stats().gaps, 1U);
    EXPECT_FALSE(f.follower.incomplete());
}

TEST(EngineFollower, AHoleThatNobodyCanFillClearsWhatWasKnown) {
    for (const bool replay : {true, false}) {
        Publisher p;
        Follow f(replay);
        (void)f.start();
        if (replay) (void)f.replay(p, 0);
        for (int i = 0; i < 3; ++i) p.store();
        EXPECT_FALSE(f.message(p, 0));
        for (int i = 0; i < 10; ++i) p.remove();
        p.blocks.clear();  // what is known for sure afterwards
        p.store();
        p.store();
        const auto n = p.messages.size();
        const auto wish = f.message(p, n - 2);
        if (replay) {
            EXPECT_THAT(wish, Optional(1));
            EXPECT_FALSE(f.replay(p, 1, 2));
        }
        EXPECT_FALSE(f.message(p, n - 1));
        f.expect_same(p);
        EXPECT_TRUE(f.follower.incomplete());
        EXPECT_EQ(f.follower.stats().lost_history, 1U);
    }
}

TEST(EngineFollower, ANewLifeBeginsWithNothing) {
    for (const bool replay : {true, false}) {
        Publisher p;
        Follow f(replay);
        (void)f.start();
        if (replay) (void)f.replay(p, 0);
        for (int i = 0; i < 5; ++i) {
            p.store();
            EXPECT_FALSE(f.message(p, static_cast<std::uint64_t>(i)));
        }
        p.restart();
        p.store();
        const auto wish = f.message(p, 0);
        if (replay) {
            EXPECT_THAT(wish, Optional(0));
            EXPECT_FALSE(f.replay(p, 0));
        }
        f.expect_same(p);
        EXPECT_EQ(f.follower.stats().restarts, 1U);
        EXPECT_FALSE(f.follower.incomplete());
    }
}

TEST(EngineFollower, AReplayThatIsSilentIsAskedForAgainAndThenDoneWithout) {
    Publisher p;
    for (int i = 0; i < 3; ++i) p.store();
    Follow f(true, {.replay_tries = 2});
    EXPECT_THAT(f.start(), Optional(0));
    EXPECT_FALSE(f.wait(4s));
    EXPECT_THAT(f.wait(2s), Optional(0));
    EXPECT_FALSE(f.message(p, 2));
    EXPECT_FALSE(f.wait(6s));
    EXPECT_EQ(f.follower.state(), State::kLive);
    EXPECT_TRUE(f.follower.incomplete());
    EXPECT_EQ(f.held.held().size(), 1U);
}

TEST(EngineFollower, WhatIsHeldIsBounded) {
    Publisher p;
    for (int i = 0; i < 100; ++i) p.store();
    Follow f(true, {.held_messages = 10});
    (void)f.start();
    for (std::uint64_t n = 0; n < 95; ++n) EXPECT_FALSE(f.message(p, n));
    // The replay ends before what is held begins.
    Publisher early = p;
    early.messages.resize(50);
    auto wish = f.replay(early, 0);
    ASSERT_TRUE(wish);
    EXPECT_FALSE(f.replay(p, *wish));
    f.expect_same(p);
}

TEST(EngineFollower, AnUnreadableMessageClearsWhatWasKnown) {
    Publisher p;
    Follow f(false);
    (void)f.start();
    p.store();
    p.store();
    EXPECT_FALSE(f.message(p, 0));
    p.messages[1] = "\xc1";
    EXPECT_FALSE(f.message(p, 1));
    EXPECT_TRUE(f.held.held().empty());
    EXPECT_TRUE(f.follower.incomplete());
    EXPECT_EQ(f.follower.stats().unreadable, 1U);
}

TEST(EngineFollower, AResetFromHereIsNotWaitedFor) {
    Publisher p;
    Follow f(false);
    (void)f.start();
    p.store();
    EXPECT_FALSE(f.message(p, 0));
    std::vector<KvEvent> out;
    f.follower.was_reset(out);
    f.apply(out);
    EXPECT_TRUE(f.held.held().empty());
    EXPECT_EQ(f.follower.state(), State::kLive);
}

RC_GTEST_PROP(EngineFollower, WithAReplayLossesAndRestartsEndInTheEnginesState, ()) {
    Publisher p;
    Follow f(true);
    std::deque<std::uint64_t> on_the_way;
    auto wish = f.start();
    const int steps = *rc::gen::inRange(1, 120);
    for (int i = 0; i < steps; ++i) {
        switch (*rc::gen::inRange(0, 12)) {
            case 0:
                if (*rc::gen::inRange(0, 4) == 0) {
                    // Its connection is a new one: numbers alone need not show it, where the first
                    // of them are lost.
                    p.restart();
                    on_the_way.clear();
                    wish = f.start();
                }
                break;
            case 1:
            case 2:
                if (!on_the_way.empty()) on_the_way.pop_front();  // lost
                break;
            case 3:
            case 4:
                if (wish) wish = f.replay(p, *wish);
                break;
            case 5:
            case 6:
            case 7:
                if (!on_the_way.empty()) {
                    const auto n = on_the_way.front();
                    on_the_way.pop_front();
                    if (const auto next = f.message(p, n)) wish = next;
                }
                break;
            case 8:
                p.remove();
                on_the_way.push_back(p.messages.size() - 1);
                break;
            default:
                p.store();
                on_the_way.push_back(p.messages.size() - 1);
        }
    }
    // Two more that arrive, so that every hole shows, and replays that end.
    for (int i = 0; i < 2; ++i) {
        p.store();
        if (const auto next = f.message(p, p.messages.size() - 1)) wish = next;
        for (int k = 0; k < 5 && wish; ++k) wish = f.replay(p, *wish);
    }
    RC_ASSERT(!wish);
    RC_ASSERT(f.same(p));
}

}  // namespace
}  // namespace stator::engine
