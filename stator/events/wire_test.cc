// What travels, byte for byte, and what is made of bytes that should not travel.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <random>

#include "stator/codec/msgpack.h"
#include "stator/events/event_log.h"
#include "stator/events/kv_batch.h"
#include "stator/events/kv_follower.h"
#include "stator/events/kv_mirror.h"
#include "stator/events/message.h"
#include "stator/events/payloads.h"

namespace stator::events {
namespace {

using protocol::EventSeq;
using protocol::Incarnation;
using protocol::KvCleared;
using protocol::KvEvent;
using protocol::KvRemoved;
using protocol::KvStored;
using tokens::BlockHash;
using tokens::SequenceHash;

std::string hex(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return out;
}

Result<std::vector<KvEvent>> decode(std::string_view payload) {
    KvScratch scratch;
    KvBatchReader batch(payload, scratch);
    std::vector<KvEvent> out;
    for (;;) {
        const auto e = batch.next();
        if (!e) return tl::unexpected(e.error());
        if (*e == nullptr) return out;
        out.push_back(**e);
    }
}

/// The example of docs/event-plane.md.
TEST(Wire, TheDocumentedExample) {
    const std::vector<KvEvent> events{
        {EventSeq(41), KvStored{SequenceHash(0x1122), {{BlockHash(1), SequenceHash(2), {}}}}},
        {EventSeq(42), KvRemoved{{SequenceHash(3)}}},
    };
    std::string payload;
    append_kv_batch(payload, events);
    EXPECT_EQ(hex(payload),
              "81a66576656e747392"
              "85a26f70a673746f726564a6706172656e74cd1122a6626c6f636b73c4080100000000000000"
              "a6686173686573c4080200000000000000a16e29"
              "82a26f70a772656d6f766564a6686173686573c4080300000000000000");
    std::string message;
    append_message(message, {"kv", Incarnation(0x0102030405060708), 1, 9, false, payload});
    EXPECT_EQ(hex(message.substr(0, 27)),
              "6b7600"
              "0100000001000000"
              "0807060504030201"
              "0900000000000000");
    EXPECT_EQ(message.substr(27), payload);
    std::string beat;
    append_message(beat, {"kv", Incarnation(0x0102030405060708), 1, 9, true, {}});
    EXPECT_EQ(hex(beat), "6b7600010100000100000008070605040302010900000000000000");
    EXPECT_EQ(*decode(payload), events);
    const auto m = parse_message(message);
    ASSERT_TRUE(m);
    EXPECT_EQ(m->topic, "kv");
    EXPECT_EQ(m->incarnation, Incarnation(0x0102030405060708));
    EXPECT_EQ(m->rank, 1U);
    EXPECT_EQ(m->sequence, 9U);
    EXPECT_FALSE(m->heartbeat);
}

TEST(Wire, MessagesThatAreRefused) {
    std::string good;
    append_message(good, {"kv", Incarnation(1), 0, 1, false, "\x80"});
    EXPECT_TRUE(parse_message(good));
    const auto with = [&](std::size_t at, char c) {
        std::string bytes = good;
        bytes[at] = c;
        return parse_message(bytes);
    };
    EXPECT_FALSE(with(0, 'K'));
    EXPECT_FALSE(with(3, 2)) << "version";
    EXPECT_FALSE(with(4, 0x10)) << "an unknown critical flag";
    EXPECT_TRUE(with(4, 0x0e)) << "other unknown flags";
    EXPECT_TRUE(with(5, 1)) << "reserved bytes";
    EXPECT_FALSE(with(19, 0)) << "sequence 0";
    for (std::size_t n = 0; n < 27; ++n) EXPECT_FALSE(parse_message(good.substr(0, n))) << n;
    EXPECT_FALSE(parse_message(std::string(33, 'a') + '\0' + std::string(24, '\1')));
}

TEST(Wire, AnswersRoundTripAndAreRefusedWhenCut) {
    std::string s;
    append_snapshot(s, {"kv", Incarnation(7), 2, 99, "state"});
    const auto snapshot = parse_snapshot(s);
    ASSERT_TRUE(snapshot);
    EXPECT_EQ(snapshot->topic, "kv");
    EXPECT_EQ(snapshot->incarnation, Incarnation(7));
    EXPECT_EQ(snapshot->rank, 2U);
    EXPECT_EQ(snapshot->sequence, 99U);
    EXPECT_EQ(snapshot->state, "state");
    std::string r;
    append_range(r, {"load", Incarnation(7), 2, 5, {"a", "bc"}});
    const auto range = parse_range(r);
    ASSERT_TRUE(range);
    EXPECT_EQ(range->from, 5U);
    EXPECT_EQ(range->payloads, (std::vector<std::string_view>{"a", "bc"}));
    for (std::size_t n = 0; n < s.size(); ++n) EXPECT_FALSE(parse_snapshot(s.substr(0, n))) << n;
    for (std::size_t n = 0; n < r.size(); ++n) EXPECT_FALSE(parse_range(r.substr(0, n))) << n;
    EXPECT_FALSE(parse_range(s));
    EXPECT_FALSE(parse_snapshot(r));
}

protocol::KvTier random_tier() {
    return *rc::gen::element(protocol::KvTier::kDevice, protocol::KvTier::kDevice,
                             protocol::KvTier::kHost, protocol::KvTier::kDisk);
}

protocol::KvGroup random_group() {
    using enum protocol::KvGroup;
    return *rc::gen::element(kDense, kDense, kDense, kSparse);
}

rc::Gen<std::uint64_t> hashes() { return rc::gen::inRange<std::uint64_t>(0, 40); }

KvEvent random_event(std::uint64_t seq) {
    switch (*rc::gen::inRange(0, 8)) {
        case 0:
            return {EventSeq(seq), KvCleared{}};
        case 1:
        case 2: {
            KvRemoved r;
            r.tier = random_tier();
            r.group = random_group();
            for (const auto h : *rc::gen::container<std::vector<std::uint64_t>>(hashes())) {
                r.sequences.emplace_back(h);
            }
            return {EventSeq(seq), r};
        }
        default: {
            KvStored s;
            s.tier = random_tier();
            s.group = random_group();
            if (*rc::gen::arbitrary<bool>()) s.parent = SequenceHash(*hashes());
            for (const auto h : *rc::gen::container<std::vector<std::uint64_t>>(hashes())) {
                s.blocks.push_back({BlockHash(h * 7), SequenceHash(h), {}});
            }
            return {EventSeq(seq), s};
        }
    }
}

std::vector<KvEvent> random_events() {
    std::vector<KvEvent> out;
    std::uint64_t seq = 1;
    for (int n = *rc::gen::inRange(0, 30); n > 0; --n) {
        out.push_back(random_event(seq));
        seq += *rc::gen::inRange<std::uint64_t>(1, 3);
    }
    return out;
}

TEST(KvBatch, RoundTrips) {
    EXPECT_TRUE(rc::check("events come back as they were", [] {
        const auto events = random_events();
        std::string payload;
        append_kv_batch(payload, events);
        RC_ASSERT(*decode(payload) == events);
        const std::size_t stride = payload.size() < 300 ? 1 : 13;
        for (std::size_t n = 0; n < payload.size(); n += stride) {
            RC_ASSERT(!decode(payload.substr(0, n)).has_value());
        }
    }));
}

TEST(KvBatch, TokensTravelWhenAskedFor) {
    const std::vector<KvEvent> events{
        {EventSeq(1), KvStored{{},
                               {{BlockHash(1), SequenceHash(2), {7, 8}},
                                {BlockHash(3), SequenceHash(4), {9, 10}}}}}};
    std::string payload;
    append_kv_batch(payload, events, true);
    EXPECT_EQ(*decode(payload), events);
}

TEST(KvBatch, UnknownKeysAndKindsArePassedOver) {
    std::string payload;
    codec::MsgpackWriter w(payload);
    w.map(2).string("later").array(1).nil().string("events").array(3);
    w.map(2).string("op").string("touched").string("hashes").nil();
    EXPECT_FALSE(decode(payload));  // "hashes" of a wrong type stays an error
    payload.clear();
    w.map(2).string("later").array(1).nil().string("events").array(2);
    w.map(2).string("op").string("touched").string("n").number(5);
    w.map(4).string("tier").string("host").string("op").string("cleared").string("lora").map(0);
    w.string("media").array(0);
    EXPECT_EQ(*decode(payload), (std::vector<KvEvent>{{EventSeq(6), KvCleared{}}}));
}

TEST(KvBatch, UnknownMemoriesArePassedOver) {
    std::string payload;
    codec::MsgpackWriter w(payload);
    w.map(1).string("events").array(3);
    for (const std::string_view tier : {"external", "host"}) {
        w.map(4).string("op").string("stored").string("tier").string(tier);
        w.string("blocks").binary("12345678").string("hashes").binary("abcdefgh");
    }
    w.map(3).string("op").string("removed").string("tier").string("moon");
    w.string("hashes").binary("abcdefgh");
    const auto events = decode(payload);
    ASSERT_TRUE(events);
    ASSERT_EQ(events->size(), 1U);
    EXPECT_EQ(events->front().seq, EventSeq(2));
    EXPECT_EQ(std::get<KvStored>(events->front().what).tier, protocol::KvTier::kHost);
    payload.clear();
    w.map(1).string("events").array(1).map(2);
    w.string("op").string("cleared").string("tier").number(3);
    EXPECT_FALSE(decode(payload));  // what it means nobody knows
}

TEST(KvBatch, ColumnsThatDoNotFitAreRefused) {
    const auto stored = [](std::size_t blocks, std::size_t hashes, std::size_t tokens) {
        std::string payload;
        codec::MsgpackWriter w(payload);
        w.map(1).string("events").array(1).map(4).string("op").string("stored");
        w.string("blocks").binary(std::string(blocks, 'x'));
        w.string("hashes").binary(std::string(hashes, 'x'));
        w.string("tokens").binary(std::string(tokens, 'x'));
        return decode(payload).has_value();
    };
    EXPECT_TRUE(stored(16, 16, 8));
    EXPECT_FALSE(stored(16, 8, 8));
    EXPECT_FALSE(stored(15, 15, 0));
    EXPECT_FALSE(stored(16, 16, 4));
    EXPECT_FALSE(stored(0, 0, 4));
}

/// The set of blocks as the words of protocol/kv_event.h say, without a thought to speed.
struct NaiveMirror {
    std::map<SequenceHash, KvMirror::Block> blocks;
    bool sparse = false;
    void apply(const KvEvent& e) {
        if (const auto* s = std::get_if<KvStored>(&e.what)) {
            if (s->group == protocol::KvGroup::kSparse) {
                sparse = true;
                return;
            }
            auto parent = s->parent;
            for (const auto& b : s->blocks) {
                const auto tiers = static_cast<KvMirror::Tiers>(
                    (blocks.contains(b.sequence) ? blocks[b.sequence].tiers : 0) |
                    KvMirror::bit(s->tier));
                blocks[b.sequence] = {b.sequence, b.block, parent, tiers};
                parent = b.sequence;
            }
        } else if (const auto* r = std::get_if<KvRemoved>(&e.what)) {
            if (r->group == protocol::KvGroup::kSparse) return;
            for (const auto h : r->sequences) {
                const auto found = blocks.find(h);
                if (found == blocks.end()) continue;
                found->second.tiers &= static_cast<KvMirror::Tiers>(~KvMirror::bit(r->tier));
                if (found->second.tiers == 0) blocks.erase(found);
            }
        } else {
            blocks.clear();
        }
    }
    [[nodiscard]] std::vector<KvMirror::Block> sorted() const {
        std::vector<KvMirror::Block> out;
        for (const auto& [h, b] : blocks) out.push_back(b);
        return out;
    }
};

TEST(KvMirror, IsTheSetThatTheEventsAddUpTo) {
    EXPECT_TRUE(rc::check("as a map does it, and so does its own snapshot", [] {
        KvMirror mirror;
        NaiveMirror naive;
        for (const auto& e : random_events()) {
            mirror.apply(e);
            naive.apply(e);
            RC_ASSERT(mirror.size() == naive.blocks.size());
        }
        RC_ASSERT(mirror.sorted() == naive.sorted());
        std::string state;
        mirror.append_state(state);
        KvMirror again;
        for (const auto& e : *decode(state)) again.apply(e);
        RC_ASSERT(again == mirror);
    }));
}

TEST(KvMirror, GrowsAndShrinksByManyBlocks) {
    std::mt19937_64 rng(3);
    KvMirror mirror;
    NaiveMirror naive;
    std::vector<std::uint64_t> held;
    for (int i = 0; i < 20'000; ++i) {
        KvEvent e{EventSeq(1), KvCleared{}};
        if (rng() % 3 != 0 || held.empty()) {
            held.push_back(rng() % 30'000);
            e.what = KvStored{{}, {{BlockHash(i), SequenceHash(held.back()), {}}}};
        } else {
            e.what = KvRemoved{{SequenceHash(held[rng() % held.size()])}};
        }
        mirror.apply(e);
        naive.apply(e);
    }
    EXPECT_EQ(mirror.sorted(), naive.sorted());
}

LoadEvent random_load() {
    const auto number = [] { return *rc::gen::arbitrary<std::uint64_t>(); };
    const auto small = [] { return *rc::gen::arbitrary<std::uint32_t>(); };
    const auto real = [] { return static_cast<double>(*rc::gen::inRange(0, 1 << 30)) / 1024; };
    LoadEvent e;
    e.load = {small(),  small(),  small(), small(),  number(), number(),
              number(), number(), small(), number(), number()};
    e.forward = {number(), number(), number(), number(), number(), real(),   real(),
                 real(),   number(), real(),   number(), number(), number(), real()};
    return e;
}

TEST(Payloads, LoadsRoundTrip) {
    EXPECT_TRUE(rc::check("a load event comes back as it was, and cut ones are refused", [] {
        const LoadEvent event = random_load();
        const std::string payload = encode_load(event);
        RC_ASSERT(*decode_load(payload) == event);
        const auto cut = *rc::gen::inRange<std::size_t>(0, payload.size());
        RC_ASSERT(!decode_load(payload.substr(0, cut)).has_value());
    }));
}

/// Any of an event's fields may be missing, and others may stand between them.
TEST(Payloads, LoadsOfOtherVersionsAreRead) {
    EXPECT_TRUE(rc::check("missing fields are 0, unknown ones are passed over", [] {
        const LoadEvent event = random_load();
        const std::string whole = encode_load(event);
        codec::MsgpackReader r(whole);
        const auto pairs = *r.map();
        std::string fields;
        std::uint32_t kept = 0;
        for (std::size_t i = 0; i < pairs; ++i) {
            const std::size_t begin = r.position();
            (void)*r.string();
            RC_ASSERT(r.skip().has_value());
            if (*rc::gen::arbitrary<bool>()) {
                codec::MsgpackWriter(fields).string("later").map(1).string("x").array(0);
                ++kept;
            }
            if (!*rc::gen::arbitrary<bool>()) continue;
            fields += whole.substr(begin, r.position() - begin);
            ++kept;
        }
        std::string some;
        codec::MsgpackWriter(some).map(kept);
        const auto read = decode_load(some + fields);
        RC_ASSERT(read.has_value());
        // What is there is as it was, what is not there is 0: read again, nothing changes.
        const std::string again = encode_load(*read);
        RC_ASSERT(*decode_load(again) == *read);
        const auto same_or_0 = [](auto now, auto was) {
            return now == was || now == decltype(now){};
        };
        RC_ASSERT(same_or_0(read->load.running, event.load.running));
        RC_ASSERT(same_or_0(read->load.unclaimed_handoffs, event.load.unclaimed_handoffs));
        RC_ASSERT(same_or_0(read->load.unclaimed_bytes, event.load.unclaimed_bytes));
        RC_ASSERT(same_or_0(read->forward.refused_imports, event.forward.refused_imports));
        RC_ASSERT(same_or_0(read->forward.handoff_seconds, event.forward.handoff_seconds));
    }));
    std::string two_maps;
    codec::MsgpackWriter(two_maps)
        .map(2)
        .string("load")
        .map(2)
        .string("running")
        .number(3U)
        .string("kv_total_tokens")
        .number(4U)
        .string("forward_pass")
        .map(3)
        .string("steps")
        .number(5U)
        .string("model_seconds")
        .real(0.5)
        .string("load")
        .array(0);
    const auto read = decode_load(two_maps);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(read->load.running, 3U);
    EXPECT_EQ(read->load.kv_total_tokens, 4U);
    EXPECT_EQ(read->forward.steps, 5U);
    EXPECT_EQ(read->forward.model_seconds, 0.5);
    EXPECT_EQ(read->load.unclaimed_limit, 0U);
}

TEST(Payloads, RoundTripAndTolerance) {
    LoadEvent load;
    load.load = {1, 2, 3, 4, 5, 6, 7, UINT64_MAX, 8, 9, 10};
    load.forward = {1, 2, 3, 4, 5, 0.5, 0.25, 1e-9, 6, 0.125, 7, 8, 9, 0.0625};
    EXPECT_EQ(*decode_load(encode_load(load)), load);
    const LifecycleEvent life{LifecycleState::kDraining, "worker-1", "SIGTERM", 1'700'000'000};
    EXPECT_EQ(*decode_lifecycle(encode_lifecycle(life)), life);
    std::string later;
    codec::MsgpackWriter(later).map(2).string("state").string("dreaming").string("x").array(0);
    EXPECT_EQ(decode_lifecycle(later)->state, LifecycleState::kUnknown);
    std::string named;
    codec::MsgpackWriter(named)
        .map(2)
        .string("state")
        .string("stopping")
        .string("name")
        .string("w");
    EXPECT_EQ(decode_lifecycle(named)->state, LifecycleState::kStopped);
    EXPECT_EQ(decode_lifecycle(named)->worker, "w");
    std::string much;
    codec::MsgpackWriter(much).map(1).string("running").number(std::uint64_t{1} << 32);
    EXPECT_FALSE(decode_load(much));
    const std::string whole = encode_load(load);
    for (std::size_t n = 0; n < whole.size(); ++n) EXPECT_FALSE(decode_load(whole.substr(0, n)));
}

class Nothing final : public KvReceiver {
  public:
    void apply(std::uint32_t, const KvEvent&) override {}
    void reset(std::uint32_t) override {}
    void live(std::uint32_t, bool is_live, std::uint64_t) override { lives.push_back(is_live); }
    std::vector<bool> lives;
};

TEST(KvFollower, ABatchThatCanNotBeReadIsRejectedAndBacksOff) {
    Nothing receiver;
    TimePoint now{1'000'000'000};
    KvFollower f(Incarnation(1), 1, {}, receiver, now);
    std::vector<Fetch> fetches;
    std::size_t asked = 0;
    // For ten seconds, a hundred times a second, a publisher whose every batch is rubbish.
    for (std::uint64_t s = 1; s <= 1000; ++s) {
        now = now + std::chrono::milliseconds(10);
        std::string bytes;
        append_message(bytes, {"kv", Incarnation(1), 0, s, false, "rubbish"});
        f.on_message(bytes, now, fetches);
        for (const Fetch& fetch : std::exchange(fetches, {})) {
            ++asked;
            ASSERT_TRUE(fetch.snapshot);
            std::string empty;
            KvMirror().append_state(empty);
            std::string snapshot;
            append_snapshot(snapshot, {"kv", Incarnation(1), 0, s, empty});
            f.on_answer(fetch.ticket, snapshot, now, fetches);
        }
    }
    EXPECT_GT(f.stats().rejected, 2U);
    EXPECT_LT(asked, 30U) << "snapshots are dear";
    EXPECT_GT(asked, 2U);
}

TEST(KvFollower, FailedFetchesAreRetriedLaterAndLater) {
    Nothing receiver;
    TimePoint now{1'000'000'000};
    KvFollower f(Incarnation(1), 1, {}, receiver, now);
    std::vector<Fetch> fetches;
    std::string beat;
    append_message(beat, {"kv", Incarnation(1), 0, 10, true, {}});
    f.on_message(beat, now, fetches);
    std::size_t asked = 0;
    for (int i = 0; i < 3000; ++i) {
        now = now + std::chrono::milliseconds(10);
        for (const Fetch& fetch : std::exchange(fetches, {})) {
            ++asked;
            f.on_answer(fetch.ticket, error(ErrorCode::kUnavailable, "no link"), now, fetches);
        }
        f.on_time(now, fetches);
    }
    EXPECT_GT(asked, 8U);
    EXPECT_LT(asked, 16U);
    EXPECT_EQ(f.state(0), FollowState::kSyncing);
    EXPECT_EQ(receiver.lives, std::vector<bool>{false}) << "silence is told once";
}

TEST(EventLog, RangesAreWhatTheRingHolds) {
    EventLog::Options o;
    o.ring_batches = 3;
    EventLog log(Incarnation(1), 1, o);
    EventLog::Out out;
    for (std::uint64_t i = 1; i <= 5; ++i) {
        const KvEvent e{EventSeq(i), KvCleared{}};
        ASSERT_TRUE(log.append_kv(0, {&e, 1}, {}, out));
    }
    EXPECT_FALSE(log.range("kv", 0, 2, 5));
    EXPECT_FALSE(log.range("kv", 0, 3, 6));
    EXPECT_FALSE(log.range("kv", 0, 4, 3));
    EXPECT_FALSE(log.range("kv", 0, 0, 3));
    EXPECT_FALSE(log.range("kv", 1, 1, 1));
    const auto range = log.range("kv", 0, 3, 5);
    ASSERT_TRUE(range);
    EXPECT_EQ(parse_range(**range)->payloads.size(), 3U);
    const KvEvent e{EventSeq(6), KvCleared{}};
    EXPECT_FALSE(log.append_kv(1, {&e, 1}, {}, out));
    EXPECT_FALSE(log.append("kv", 0, "", {}, out));
    EXPECT_FALSE(log.append("No Topic", 0, "", {}, out));
}

TEST(EventLog, PartsOfALargeEventStayInItsMemory) {
    EventLog::Options o;
    o.batch_bytes = 64;
    EventLog log(Incarnation(1), 1, o);
    EventLog::Out out;
    KvStored stored{SequenceHash(7), {}, protocol::KvTier::kHost};
    KvRemoved removed{{}, protocol::KvTier::kHost};
    for (std::uint64_t i = 100; i < 150; ++i) {
        stored.blocks.push_back({BlockHash(i * 3), SequenceHash(i), {}});
        if (i > 100) removed.sequences.emplace_back(i);
    }
    const std::vector<KvEvent> events{{EventSeq(1), stored}, {EventSeq(2), removed}};
    ASSERT_TRUE(log.append_kv(0, events, {}, out));
    EXPECT_GT(out.size(), 10U);
    const auto snapshot = log.snapshot("kv", 0);
    ASSERT_TRUE(snapshot);
    KvMirror mirror;
    for (const auto& e : *decode(parse_snapshot(**snapshot)->state)) mirror.apply(e);
    EXPECT_EQ(mirror.sorted(),
              (std::vector<KvMirror::Block>{{SequenceHash(100), BlockHash(300), SequenceHash(7),
                                             KvMirror::bit(protocol::KvTier::kHost)}}));
}

}  // namespace
}  // namespace stator::events
