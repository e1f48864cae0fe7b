#include "stator/replicas/wire.h"

#include <gtest/gtest.h>

#include "stator/codec/msgpack.h"

namespace stator::replicas {
namespace {

using namespace std::chrono_literals;
using codec::MsgpackWriter;

std::shared_ptr<SharedBooking> booking(std::uint64_t number, const std::string& rank) {
    auto b = std::make_shared<SharedBooking>();
    b->number = number;
    b->rank = rank;
    b->prompt_tokens = 100;
    b->cached_tokens = 16;
    b->kv_tokens = 356;
    b->level = 2;
    b->extra_s = 0.5F;
    b->lasts_s = 12;
    b->session = 9;
    b->places = {1, 2, ~std::uint64_t{0}};
    return b;
}

template <typename Body>
Body round_trip(const Body& body, Nanos sent = 10s, Nanos read_at = 100s) {
    std::string bytes;
    encode("p", body, sent, bytes);
    auto read = decode(bytes, read_at);
    EXPECT_TRUE(read.has_value()) << (read ? "" : read.error().message);
    if (!read) return {};
    EXPECT_EQ(read->pool, "p");
    return std::get<Body>(read->message);
}

std::string failure(std::string_view bytes) {
    auto read = decode(bytes, 0s);
    return read ? "" : read.error().message;
}

TEST(ReplicasWire, DeltasComeBackWithAges) {
    Delta d;
    d.sequence = 7;
    auto pair = booking(3, "a/0");
    pair->decode_rank = "b/0";
    pair->prefills = false;
    d.events = {{BookingEvent::Kind::kBooked, 2, 9s, booking(2, "b/0"), 0},
                {BookingEvent::Kind::kBooked, 3, 10s, pair, 0},
                {BookingEvent::Kind::kFirstToken, 2, 9500ms, nullptr, 48},
                {BookingEvent::Kind::kEnded, 2, 11s, nullptr, 0}};
    const Delta back = round_trip(d);
    EXPECT_EQ(back.sequence, 7U);
    EXPECT_FALSE(back.again);
    ASSERT_EQ(back.events.size(), 4U);
    EXPECT_EQ(*back.events[0].booking, *d.events[0].booking);
    EXPECT_EQ(*back.events[1].booking, *pair);
    EXPECT_EQ(back.events[0].at, 99s);
    EXPECT_EQ(back.events[2].at, 99'500ms);
    EXPECT_EQ(back.events[2].cached_tokens, 48U);
    EXPECT_EQ(back.events[3].kind, BookingEvent::Kind::kEnded);
    EXPECT_EQ(back.events[3].at, 100s);  // nothing comes from the future
}

TEST(ReplicasWire, TheOtherKindsComeBack) {
    Digest digest{5, 2, {{{0, 10}, 3, 77}, {{11, ~std::uint64_t{0}}, 0, 0}}};
    const Digest d = round_trip(digest);
    EXPECT_EQ(d.sequence, 5U);
    EXPECT_EQ(d.oldest, 2U);
    ASSERT_EQ(d.ranges.size(), 2U);
    EXPECT_EQ(d.ranges[0].hash, 77U);
    EXPECT_EQ(d.ranges[1].range.low, 11U);

    Part part{5, {2, 9}, {{booking(2, "x"), true, 8s}, {booking(9, "x"), false, 9s}}};
    const Part p = round_trip(part);
    EXPECT_EQ(p.range, part.range);
    ASSERT_EQ(p.bookings.size(), 2U);
    EXPECT_TRUE(p.bookings[0].prefilled);
    EXPECT_EQ(p.bookings[1].booking->number, 9U);
    EXPECT_EQ(p.bookings[0].at, 98s);

    Ask ask{ReplicaId(4), {1, 2}, {{3, 4}}};
    const Ask a = round_trip(ask);
    EXPECT_EQ(a.of.value, 4U);
    EXPECT_EQ(a.deltas, ask.deltas);
    EXPECT_EQ(a.ranges, ask.ranges);
}

TEST(ReplicasWire, EveryCutIsAnErrorAndNoByteIsBelieved) {
    Delta d;
    d.sequence = 1;
    d.events = {{BookingEvent::Kind::kBooked, 2, 9s, booking(2, "b/0"), 0}};
    std::string bytes;
    encode("p", d, 10s, bytes);
    for (std::size_t n = 0; n < bytes.size(); ++n) {
        EXPECT_FALSE(decode(std::string_view(bytes).substr(0, n), 0s)) << n;
    }
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        std::string other = bytes;
        other[i] = static_cast<char>(other[i] ^ 0x41);
        (void)decode(other, 0s);  // the sanitizers look on
    }
}

TEST(ReplicasWire, NonsenseIsRefused) {
    std::string s;
    MsgpackWriter(s).map(2).string("kind").string("delta").string("seq").number(0);
    EXPECT_EQ(failure(s), "a delta without a sequence");
    s.clear();
    MsgpackWriter(s).map(1).string("kind").string("greeting");
    EXPECT_EQ(decode(s, 0s).error().code, ErrorCode::kNotFound);
    s.clear();
    std::string digest;
    encode("p", Digest{1, 1, {{{0, 10}, 0, 0}}}, 0s, digest);
    EXPECT_EQ(failure(digest), "the ranges of a digest don't cover all");
    digest.clear();
    encode("p", Digest{1, 1, {{{0, ~std::uint64_t{0}}, 0, 0}, {{0, ~std::uint64_t{0}}, 0, 0}}}, 0s,
           digest);
    EXPECT_EQ(failure(digest), "the ranges of a digest don't follow each other");
    auto b = booking(2, "x");
    b->lasts_s = -1;
    std::string part;
    encode("p", Part{1, {0, 9}, {{b, false, 0s}}}, 0s, part);
    EXPECT_EQ(failure(part), "-1 are no seconds");
    b->lasts_s = 1;
    b->rank = "";
    part.clear();
    encode("p", Part{1, {0, 9}, {{b, false, 0s}}}, 0s, part);
    EXPECT_EQ(failure(part), "a booking names no rank");
    b->rank = "x";
    b->places.resize(SharedBooking::kMostPlaces + 1);
    part.clear();
    encode("p", Part{1, {0, 9}, {{b, false, 0s}}}, 0s, part);
    EXPECT_EQ(failure(part), "513 numbers where 512 are allowed");
    b->places.clear();
    part.clear();
    encode("p", Part{1, {3, 9}, {{b, false, 0s}}}, 0s, part);
    EXPECT_EQ(failure(part), "the bookings of a part are out of order");
}

}  // namespace
}  // namespace stator::replicas
