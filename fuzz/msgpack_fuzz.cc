// Any bytes through every decoder of MessagePack that the event plane has. The first byte chooses
// one. What is accepted must say the same when it is written and read again.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/check.h"
#include "stator/base/log.h"
#include "stator/codec/json.h"
#include "stator/codec/msgpack.h"
#include "stator/events/demand_payload.h"
#include "stator/events/kv_batch.h"
#include "stator/events/kv_follower.h"
#include "stator/events/kv_mirror.h"
#include "stator/events/message.h"
#include "stator/events/payloads.h"
#include "stator/replicas/journal.h"
#include "stator/replicas/peer_table.h"
#include "stator/replicas/wire.h"

namespace {

using namespace stator;

void check_error(const Error& e) {
    STATOR_CHECK(e.code == ErrorCode::kInvalidArgument && !e.message.empty(),
                 "a refusal blames the bytes and says why");
}

void any_value(std::string_view bytes) {
    codec::MsgpackReader r(bytes);
    const auto skipped = r.skip();
    if (!skipped) check_error(skipped.error());
    std::string json;
    const auto printed = codec::append_msgpack_as_json(bytes, json);
    STATOR_CHECK(printed.has_value() == (skipped.has_value() && r.done()),
                 "skip() and the printer disagree");
    if (!printed) return check_error(printed.error());
    STATOR_CHECK(json.size() <= 64 * bytes.size() + 64, "the text is out of all proportion");
    codec::JsonDocument doc;
    // JSON's own nesting and number limits are wider than what the printer writes.
    STATOR_CHECK(doc.parse(json).has_value(), "the printer wrote no JSON");
}

void kv_batch(std::string_view bytes) {
    events::KvScratch scratch;
    events::KvBatchReader batch(bytes, scratch);
    std::vector<protocol::KvEvent> out;
    for (;;) {
        const auto e = batch.next();
        if (!e) return check_error(e.error());
        if (*e == nullptr) break;
        out.push_back(**e);
    }
    std::string again;
    bool tokens = false;
    events::KvMirror mirror;
    for (const auto& e : out) {
        mirror.apply(e);
        const auto* s = std::get_if<protocol::KvStored>(&e.what);
        tokens = tokens || (s != nullptr && !s->blocks.empty() && !s->blocks[0].tokens.empty());
    }
    events::append_kv_batch(again, out, tokens);
    events::KvBatchReader reread(again, scratch);
    for (const auto& wanted : out) {
        const auto e = reread.next();
        STATOR_CHECK(e && *e != nullptr && **e == wanted, "a batch changed when written again");
    }
    std::string state;
    mirror.append_state(state);
    events::KvMirror copy;
    events::KvBatchReader snapshot(state, scratch);
    for (auto e = snapshot.next(); e && *e != nullptr; e = snapshot.next()) copy.apply(**e);
    STATOR_CHECK(copy == mirror, "a snapshot differs from the state");
}

class Nothing final : public events::KvReceiver {
    void apply(std::uint32_t, const protocol::KvEvent&) override {}
    void reset(std::uint32_t) override {}
    void live(std::uint32_t, bool, std::uint64_t) override {}
};

/// Pieces of the bytes as messages and as answers to what the follower asks.
void follower(std::string_view bytes) {
    Nothing receiver;
    TimePoint now{1'000'000'000};
    events::KvFollower f(protocol::Incarnation(1), 2, {}, receiver, now);
    std::vector<events::Fetch> fetches;
    while (!bytes.empty()) {
        const std::size_t n = static_cast<unsigned char>(bytes[0]);
        const std::string_view piece = bytes.substr(1, n);
        bytes.remove_prefix(1 + piece.size());
        now = now + std::chrono::milliseconds(100);
        std::vector<events::Fetch> asked;
        asked.swap(fetches);
        for (const auto& fetch : asked) f.on_answer(fetch.ticket, std::string(piece), now, fetches);
        if (asked.empty()) f.on_message(piece, now, fetches);
        f.on_time(now, fetches);
        STATOR_CHECK(fetches.size() <= 4, "a rank asks for more than one thing at a time");
    }
}

/// What other frontends tell of their bookings, in one router; asks are answered.
void replica(std::string_view bytes) {
    router::Router router;
    router::RankDescription d;
    d.name = "w/0";
    (void)router.add_rank(d);
    replicas::PeerTable peers(router);
    replicas::Journal journal;
    std::chrono::nanoseconds now = std::chrono::hours(2);
    while (!bytes.empty()) {
        const std::size_t n = 2 * std::size_t{static_cast<unsigned char>(bytes[0])};
        const std::string_view piece = bytes.substr(1, n);
        bytes.remove_prefix(1 + piece.size());
        const auto read = replicas::decode(piece, now);
        if (!read) {
            STATOR_CHECK(read.error().code == ErrorCode::kNotFound ||
                             read.error().code == ErrorCode::kInvalidArgument,
                         "a refusal blames the bytes");
            continue;
        }
        std::string written;
        replicas::encode(read->pool, read->message, now, written);
        const auto reread = replicas::decode(written, now);
        STATOR_CHECK(reread && reread->message.index() == read->message.index(),
                     "a message can't be read when written again");
        std::string rewritten;
        replicas::encode(reread->pool, reread->message, now, rewritten);
        STATOR_CHECK(written == rewritten, "a message changed when written again");
        peers.take(replicas::ReplicaId(1), read->message, now);
        std::vector<replicas::Message> answers;
        if (const auto* ask = std::get_if<replicas::Ask>(&read->message)) {
            journal.answer(*ask, answers);
        }
        std::vector<replicas::Ask> asks;
        peers.asks(now, asks);
        now += std::chrono::milliseconds(100);
        router::RouteRequest r;
        r.prompt_tokens = 100;
        (void)router.book(r, now);
    }
    peers.drop(replicas::ReplicaId(1), now);
    STATOR_CHECK(router.peers_bookings() == 0, "bookings are left of a peer that has gone");
}

template <typename T>
void accept(const Result<T>& result) {
    if (!result) check_error(result.error());
}

}  // namespace

// The follower tells of each thing that it repairs: a hundred thousand lines a second.
extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
    set_log(LogLevel::kOff, LogFormat::kText);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
    switch (data[0] % 8) {
        case 0:
            any_value(bytes);
            break;
        case 1:
            kv_batch(bytes);
            break;
        case 2:
            follower(bytes);
            break;
        case 3:
            accept(events::parse_message(bytes));
            break;
        case 4:
            accept(events::parse_snapshot(bytes));
            accept(events::parse_range(bytes));
            break;
        case 5:
            accept(events::decode_load(bytes));
            break;
        case 6:
            accept(events::decode_lifecycle(bytes));
            accept(events::decode_demand(bytes));
            break;
        case 7:
            replica(bytes);
            break;
    }
    return 0;
}
