#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <array>

#include "stator/requests/handshake.h"
#include "stator/requests/leg_fields.h"
#include "stator/requests/leg_samples.h"
#include "stator/requests/link_fixture.h"
#include "stator/requests/request_body.h"
#include "stator/requests/step_codec.h"

namespace stator::requests {
namespace {

using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::Handoff;
using protocol::Leg;
using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr TimePoint kNow{5'000'000'000};

std::string written(const Handoff& h) {
    std::string out;
    append_handoff(out, h, kNow);
    return out;
}

bool same(const GenerateRequest& a, const GenerateRequest& b) {
    if (a.leg != b.leg || a.prompt != b.prompt || a.media.size() != b.media.size() ||
        !requests::same(a.handoff, b.handoff)) {
        return false;
    }
    for (std::size_t i = 0; i < a.media.size(); ++i) {
        const auto& x = a.media[i];
        const auto& y = b.media[i];
        if (x.digest != y.digest || x.position != y.position || x.tokens != y.tokens ||
            !requests::same(x.embeddings, y.embeddings)) {
            return false;
        }
        if (!sends_pixels(a, x)) continue;
        if (!y.content || *x.content != *y.content) return false;
    }
    return true;
}

TEST(HandoffMessage, ComesBackAsItWas) {
    EXPECT_TRUE(rc::check([] {
        LegSamples samples(*rc::gen::arbitrary<std::uint64_t>());
        Handoff h;
        switch (samples.number(0, 2)) {
            case 0:
                h = *samples.kv(static_cast<std::uint32_t>(samples.number(0, 5000)),
                                samples.number(0, 40));
                break;
            case 1:
                h = *samples.object(static_cast<std::uint32_t>(samples.number(0, 5000)),
                                    samples.number(1, protocol::kMaxObjectBytes));
                break;
            default:
                h = *samples.embeddings({}, static_cast<std::uint32_t>(samples.number(2, 3000)));
        }
        h.expires = Deadline::after(kNow, milliseconds(samples.number(0, 40'000)));
        const auto read = read_handoff(written(h), kNow);
        RC_ASSERT(read.has_value());
        RC_ASSERT(requests::same(*read, h));
        RC_ASSERT(read->expires == h.expires);
        // What is left of it is what travels: the other side's clock is another.
        const TimePoint other{77};
        RC_ASSERT(read_handoff(written(h), other)->expires.left(other) == h.expires.left(kNow));
    }));
}

TEST(HandoffMessage, NoCutOfItIsTaken) {
    LegSamples samples(1);
    const std::string whole = written(*samples.kv(1000, 9));
    for (std::size_t n = 0; n < whole.size(); ++n) {
        EXPECT_FALSE(read_handoff(std::string_view(whole).substr(0, n), kNow)) << n;
    }
    EXPECT_FALSE(read_handoff(whole + "x", kNow));
}

TEST(HandoffMessage, WhatContradictsItselfIsRefused) {
    LegSamples samples(2);
    const auto refused = [&](auto change) {
        Handoff h = *samples.kv(100, 4);
        change(h);
        const auto read = read_handoff(written(h), kNow);
        return read ? std::string("taken") : read.error().message;
    };
    EXPECT_EQ(refused([](auto&) {}), "taken");
    EXPECT_THAT(refused([](auto& h) { h.parts[1].first += 1; }), HasSubstr("part"));
    EXPECT_THAT(refused([](auto& h) { h.parts[1].tokens = 0; }), HasSubstr("part"));
    EXPECT_THAT(refused([](auto& h) { h.parts.back().bytes += 1; }), HasSubstr("part"));
    EXPECT_THAT(refused([](auto& h) { h.parts.back().offset = ~0ULL; }), HasSubstr("part"));
    EXPECT_THAT(refused([](auto& h) { h.tokens += 1; }), HasSubstr("101"));
    EXPECT_THAT(refused([](auto& h) { h.parts.resize(protocol::kMaxHandoffParts + 1); }),
                HasSubstr("parts"));
    EXPECT_THAT(refused([](auto& h) { h.pieces.push_back({.text = {1}, .rows = 0}); }),
                HasSubstr("pieces"));
    EXPECT_THAT(refused([](auto& h) { h.shape.resize(protocol::kMaxShapeBytes + 1); }),
                HasSubstr("bytes"));
    EXPECT_THAT(refused([](auto& h) { h.places.resize(protocol::kMaxPlaces + 1); }),
                HasSubstr("values"));
    EXPECT_THAT(refused([](auto& h) { h.places[0].address.resize(protocol::kMaxPlaceBytes + 1); }),
                HasSubstr("bytes"));
    EXPECT_THAT(refused([](auto& h) { h.kind = static_cast<Handoff::Kind>(3); }),
                HasSubstr("value"));
    const auto object_refused = [&](auto change) {
        Handoff h = *samples.object(100, 300);
        change(h);
        const auto read = read_handoff(written(h), kNow);
        return read ? std::string("taken") : read.error().message;
    };
    EXPECT_EQ(object_refused([](auto&) {}), "taken");
    EXPECT_THAT(object_refused([](auto& h) { h.bytes = 1; }), HasSubstr("object"));
    EXPECT_THAT(object_refused([](auto& h) { h.parts = {{0, 100, 0, 0}}; }), HasSubstr("object"));
    EXPECT_THAT(object_refused([](auto& h) { h.places.push_back({"tcp", "10.0.0.7:1"}); }),
                HasSubstr("object"));
    EXPECT_EQ(object_refused([](auto& h) {
                  h.kind = Handoff::Kind::kEmbeddings;
                  h.early = false;
              }),
              "taken");
    EXPECT_THAT(object_refused([](auto& h) {
                    h.kind = Handoff::Kind::kEmbeddings;
                    h.early = true;
                }),
                HasSubstr("early"));
    EXPECT_THAT(object_refused([](auto& h) {
                    h.object.clear();
                    h.early = true;
                }),
                HasSubstr("early"));
    EXPECT_THAT(object_refused([](auto& h) { h.object.resize(protocol::kMaxObjectBytes + 1); }),
                HasSubstr("bytes"));
    Handoff e = *samples.embeddings({}, 20);
    e.pieces[1].rows -= 1;
    EXPECT_FALSE(read_handoff(written(e), kNow));
}

TEST(LegsTest, LegsOfEveryKindAndSizeArriveWhole) {
    EXPECT_TRUE(rc::check([] {
        const auto seed = *rc::gen::arbitrary<std::uint64_t>();
        LegSamples samples(seed);
        MemoryNet net(seed);
        net.max_piece = *rc::gen::element<std::size_t>(100, 5000, 50'000);
        net.start();
        std::shared_ptr<GenerateRequest> q;
        const auto side = [&] { return static_cast<std::uint32_t>(samples.number(1, 90)); };
        switch (samples.number(0, 5)) {
            case 0:
                q = samples.number(0, 3) == 0
                        ? samples.encode(1, 2, 5000)
                        : samples.encode(side(), side(),
                                         static_cast<std::uint32_t>(samples.number(1, 9)));
                break;
            case 1:
                q = samples.leg(Leg::kDecode, 0, samples.number(0, 500), samples.number(1, 9000));
                break;
            case 2:
                q = samples.leg(Leg::kPrefill, samples.number(0, 3), 0, samples.number(2, 9000));
                break;
            case 3:
                q = samples.leg(Leg::kWhole, samples.number(0, protocol::kMaxMediaItems), 0);
                break;
            case 4: {
                constexpr std::array kLegs{Leg::kWhole, Leg::kPrefill, Leg::kDecode};
                q = samples.leg_with_contents(kLegs.at(samples.number(0, 2)), samples.number(1, 5));
                break;
            }
            default:
                q = samples.leg(Leg::kDecode, samples.number(0, 64), samples.number(0, 4000), 7000);
        }
        q->id = protocol::RequestId(3);
        if (q->leg != Leg::kEncode && samples.number(0, 3) == 0) {
            q->constraint = std::make_shared<const protocol::OutputConstraint>(
                protocol::OutputConstraint{protocol::OutputConstraint::Kind::kRegex,
                                           std::string(samples.number(1, 20'000), 'a'), ""});
        }
        const auto id = net.client->open(q, 0, 1, net.now);
        RC_ASSERT(id.has_value());
        net.run();
        RC_ASSERT(net.at_client.lost.empty());
        RC_ASSERT(net.at_worker.opens.contains(id->value));
        const GenerateRequest& got = net.at_worker.opens[id->value].request;
        RC_ASSERT(same(*q, got));
        RC_ASSERT((q->constraint == nullptr) == (got.constraint == nullptr));
        if (q->constraint) RC_ASSERT(*q->constraint == *got.constraint);
        if (!hands_off(q->leg)) return;
        const auto result =
            samples.number(0, 1) == 0
                ? samples.kv(30'000, samples.number(0, protocol::kMaxHandoffParts))
                : samples.object(30'000, samples.number(1, protocol::kMaxObjectBytes));
        net.hand_off(id->value, result);
        net.run();
        RC_ASSERT(net.at_client.lost.empty());
        const auto& s = net.at_client.streams[id->value];
        RC_ASSERT(s.ends == 1 && s.finish == FinishReason::kHandoff);
        RC_ASSERT(requests::same(s.handoff, result));
        RC_ASSERT(net.client->open_streams() == 0U && net.session->open_streams() == 0U);
    }));
}

TEST(LegsTest, ContentsAreAsLargeAsTheySay) {
    LegSamples samples(4);
    const auto refused = [&](auto change) {
        auto q = samples.leg_with_contents(Leg::kWhole, 2);
        auto c = std::make_shared<protocol::MediaContent>(*q->media[1].content);
        change(*c);
        q->media[1].content = c;
        std::size_t bytes = 0;
        for (const auto& item : q->media) bytes += item.content->pixels.size();
        return !check_legs(*q, q->prompt.size(), bytes);
    };
    EXPECT_FALSE(refused([](auto&) {}));
    EXPECT_TRUE(refused([](auto& c) { c.pixels += "x"; }));
    EXPECT_TRUE(refused([](auto& c) { c.width += 1; }));
    EXPECT_TRUE(refused([](auto& c) { c.frames = 0; }));
    EXPECT_TRUE(refused([](auto& c) { c.width = 0; }));
    auto bare = samples.leg(Leg::kWhole, 2, 0);
    EXPECT_FALSE(check_legs(*bare, bare->prompt.size(), 3)) << "pixels of nobody";
}

TEST(LegsTest, PixelsTravelOverABulkLaneAndAreBounded) {
    WorkerSessionOptions w;
    w.max_pixel_bytes = 3'000'000;
    MemoryNet net(3, {}, w);
    net.start();
    LegSamples samples(3);
    const auto fits = samples.encode(1000, 1000);
    const auto id = net.client->open(fits, 0, 1, net.now);
    const auto too_large = net.client->open(samples.encode(1000, 1001), 0, 2, net.now);
    ASSERT_TRUE(id && too_large);
    net.run();
    EXPECT_GE(net.wires.size(), 2U);
    ASSERT_TRUE(net.at_worker.opens.contains(id->value));
    EXPECT_TRUE(same(*fits, net.at_worker.opens[id->value].request));
    ASSERT_TRUE(net.at_client.streams[too_large->value].error);
    EXPECT_EQ(net.at_client.streams[too_large->value].error->code, ErrorCode::kTooLarge);
    EXPECT_EQ(net.at_client.streams[too_large->value].error->param, "media");
    EXPECT_TRUE(net.at_client.lost.empty());
}

TEST(LegsTest, PixelsCountAsUploads) {
    WorkerSessionOptions w;
    w.max_uploading_bytes = 4'000'000;
    MemoryNet net(4, {}, w);
    net.start();
    LegSamples samples(4);
    for (int i = 0; i < 3; ++i) {
        ASSERT_TRUE(net.client->open(samples.encode(1000, 1000), 0, 1, net.now));
    }
    // None of them sends a byte yet.
    net.session->received(LaneId(0), std::exchange(net.wires[0]->to_worker, {}), net.now);
    EXPECT_EQ(net.session->waiting_prompts(), 2U);
    net.run();
    EXPECT_EQ(net.at_worker.opens.size(), 3U);
}

TEST(LegsTest, WhatDoesNotGoTogetherIsRefusedBeforeItIsSent) {
    MemoryNet net(5);
    net.start();
    LegSamples samples(5);
    const auto refused = [&](std::shared_ptr<GenerateRequest> q, auto change) {
        change(*q);
        const auto id = net.client->open(q, 0, 1, net.now);
        return id ? std::string("taken") : id.error().param;
    };
    const auto item = [](GenerateRequest& q) -> protocol::MediaItem& { return q.media[0]; };
    EXPECT_EQ(refused(samples.encode(2, 2), [](auto&) {}), "taken");
    EXPECT_EQ(refused(samples.encode(2, 2), [](auto& q) { q.prompt = {1}; }), "prompt");
    EXPECT_EQ(refused(samples.encode(2, 2), [&](auto& q) { item(q).content.reset(); }), "media");
    EXPECT_EQ(refused(samples.encode(2, 2), [](auto& q) { q.media.clear(); }), "media");
    const auto changed = [&](auto change) {
        return refused(samples.encode(2, 2), [&](auto& q) {
            auto c = *item(q).content;
            change(c);
            item(q).content = std::make_shared<const protocol::MediaContent>(c);
        });
    };
    EXPECT_EQ(changed([](auto& c) { c.pixels += 'x'; }), "media");
    EXPECT_EQ(changed([](auto& c) { c.width = 0; }), "media");
    EXPECT_EQ(changed([](auto& c) { c.frames = 2; }), "media");
    EXPECT_EQ(changed([](auto& c) { c.frame_ms = {1}; }), "media");
    EXPECT_EQ(changed([](auto& c) { c.width = c.height = c.frames = 0xFFFF'FFFF; }), "media");
    EXPECT_EQ(refused(samples.leg(Leg::kWhole, 2, 0), [](auto&) {}), "taken");
    EXPECT_EQ(refused(samples.leg(Leg::kWhole, 2, 0), [](auto& q) { q.media[1].position = 1; }),
              "media");
    EXPECT_EQ(refused(samples.leg(Leg::kWhole, 2, 0), [](auto& q) { q.media[1].tokens += 9; }),
              "media");
    EXPECT_EQ(refused(samples.leg(Leg::kWhole, 1, 0),
                      [&](auto& q) { item(q).embeddings = samples.kv(3, 1); }),
              "media");
    EXPECT_EQ(
        refused(samples.leg(Leg::kPrefill, 0, 0), [&](auto& q) { q.handoff = samples.kv(4, 1); }),
        "handoff");
    EXPECT_EQ(refused(samples.leg(Leg::kDecode, 0, 1),
                      [&](auto& q) { q.handoff = samples.embeddings({}, 4); }),
              "handoff");
    EXPECT_EQ(refused(samples.leg(Leg::kDecode, 0, 1), [](auto& q) { q.handoff.reset(); }),
              "taken");
    net.run();
    EXPECT_TRUE(net.at_client.lost.empty());
}

TEST(LegsTest, AWorkerThatDoesNotKnowLegsIsSentNone) {
    ClientLinkOptions c;
    c.legs = false;
    MemoryNet net(6, c);
    net.start();
    LegSamples samples(6);
    for (const auto& q : {samples.encode(2, 2), samples.leg(Leg::kPrefill, 0, 0),
                          samples.leg(Leg::kDecode, 0, 2), samples.leg(Leg::kWhole, 1, 0)}) {
        EXPECT_EQ(net.client->open(q, 0, 1, net.now).error().code, ErrorCode::kUnsupported);
    }
    EXPECT_TRUE(net.client->open(samples.leg(Leg::kWhole, 0, 0), 0, 1, net.now));
    net.run();
    EXPECT_EQ(net.at_worker.opens.size(), 1U);
}

/// Whoever does not know a leg refuses it: its keys are critical.
TEST(LegsTest, TheKeysMustBeUnderstood) {
    LegSamples samples(7);
    for (const auto& q : {samples.encode(2, 2), samples.leg(Leg::kDecode, 1, 2)}) {
        OpenHead head;
        head.request = *q;
        const auto body = OutgoingBody::make(q, head, kNow);
        ASSERT_TRUE(body);
        head.request.prompt.clear();
        std::string payload;
        append_open(payload, head, kNow);
        for (const char* key : {"!leg", "!handoff", "!media", "!behind"}) {
            const auto at = payload.find(key);
            if (at == std::string::npos) continue;
            std::string other = payload;
            other[at + 1] = 'X';
            std::string_view rest;
            EXPECT_EQ(read_open(other, kNow, rest).error().code, ErrorCode::kUnsupported) << key;
        }
    }
}

TEST(LegsTest, AHostileOpenIsRefusedOrSound) {
    EXPECT_TRUE(rc::check([] {
        LegSamples samples(*rc::gen::arbitrary<std::uint64_t>());
        const std::size_t kind = samples.number(0, 3);
        const auto q = kind == 0   ? samples.encode(3, 3)
                       : kind == 1 ? samples.encode(1, 1, 3000)  // its times lie behind
                       : kind == 2 ? samples.leg(Leg::kDecode, 64, 5, 6)
                                   : samples.leg(Leg::kDecode, samples.number(0, 3), 5, 6);
        OpenHead head;
        head.request = *q;
        const auto body = OutgoingBody::make(q, head, kNow);
        RC_ASSERT(body.has_value());
        head.request.prompt.clear();
        std::string payload;
        append_open(payload, head, kNow);
        const auto spoil = [&](std::string& text, std::size_t least) {
            if (text.empty()) return;
            for (std::size_t n = samples.number(least, 4); n > 0; --n) {
                text[samples.number(0, text.size() - 1)] =
                    static_cast<char>(samples.number(0, 255));
            }
        };
        spoil(payload, body->words() > 2000 ? 0 : 1);
        std::string_view rest;
        auto read = read_open(payload, kNow, rest);
        if (!read) return;
        std::string bytes;
        body->append(bytes, 0, body->words());
        IncomingBody in(std::move(*read), kNow);
        spoil(bytes, 0);
        bytes.resize(std::min<std::size_t>(bytes.size(), in.head().prompt_tokens * 4UL));
        RC_ASSERT(in.add(bytes));
        if (!in.whole()) return;
        const auto whole = in.take();
        if (!whole) return;
        const auto& got = whole->request;
        const bool encode = got.leg == Leg::kEncode;
        RC_ASSERT(encode == got.prompt.empty());
        RC_ASSERT(
            check_legs(got, got.prompt.size(), encode ? got.media.at(0).content->pixels.size() : 0)
                .has_value());
    }));
}

/// A worker that lies about a prefill leg's stream (the second) or a whole request's (the first).
std::string client_loses(const std::function<void(MemoryNet&, std::string&)>& lie) {
    MemoryNet net(8);
    net.start();
    LegSamples samples(8);
    EXPECT_TRUE(net.client->open(samples.leg(Leg::kWhole, 0, 0), 0, 1, net.now));
    EXPECT_TRUE(net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now));
    net.run();
    std::string bytes;
    lie(net, bytes);
    net.client->received(LaneId(0), bytes, net.now);
    return net.at_client.lost.empty() ? "not lost" : net.at_client.lost[0].message;
}

void put_handoff(std::string& out, std::uint32_t stream) {
    LegSamples samples(9);
    put_frame(out, FrameType::kHandoff, stream,
              [&](std::string& to) { append_handoff(to, *samples.kv(4, 1), kNow); });
}

void put_end(std::string& out, std::uint32_t stream, FinishReason reason, std::size_t tokens = 0) {
    StepWriter w;
    protocol::StepEvent e;
    e.finish = reason;
    const std::vector<protocol::TokenOutput> outputs(tokens);
    w.add(out, stream, 0, false, e, outputs, {});
    w.finish(out);
}

TEST(LegsTest, AWorkerThatLiesAboutHandoffsLosesTheLink) {
    EXPECT_EQ(client_loses([](auto&, auto& out) {
                  put_handoff(out, 2);
                  put_end(out, 2, FinishReason::kHandoff);
              }),
              "not lost");
    EXPECT_THAT(client_loses([](auto&, auto& out) { put_end(out, 2, FinishReason::kHandoff); }),
                HasSubstr("without a handoff"));
    EXPECT_THAT(client_loses([](auto&, auto& out) { put_end(out, 1, FinishReason::kHandoff); }),
                HasSubstr("not asked to"));
    EXPECT_THAT(client_loses([](auto&, auto& out) { put_handoff(out, 1); }),
                HasSubstr("not asked for"));
    EXPECT_THAT(client_loses([](auto&, auto& out) { put_handoff(out, 3); }),
                HasSubstr("no stream"));
    EXPECT_THAT(client_loses([](auto&, auto& out) {
                    put_handoff(out, 2);
                    put_handoff(out, 2);
                }),
                HasSubstr("second"));
    for (const auto reason : {FinishReason::kStop, FinishReason::kCancelled}) {
        EXPECT_THAT(client_loses([&](auto&, auto& out) {
                        put_handoff(out, 2);
                        put_end(out, 2, reason);
                    }),
                    HasSubstr("behind its handoff"));
    }
    EXPECT_THAT(client_loses([](auto&, auto& out) { put_end(out, 2, FinishReason::kLength); }),
                HasSubstr("ends without"));
    EXPECT_THAT(client_loses([](auto&, auto& out) { put_end(out, 2, FinishReason::kStop, 1); }),
                HasSubstr("more tokens"));
    EXPECT_EQ(client_loses([](auto&, auto& out) { put_end(out, 2, FinishReason::kCancelled); }),
              "not lost");
    EXPECT_THAT(client_loses([](auto&, auto& out) {
                    append_frame(out, FrameType::kHandoff, kFlagCritical | kFlagMore, 2, "x");
                    append_frame(out, FrameType::kPing, 0, 0, {});
                }),
                HasSubstr("midst"));
    EXPECT_THAT(client_loses([](auto&, auto& out) {
                    append_frame(out, FrameType::kHandoff, kFlagCritical | kFlagMore, 2, "x");
                    const std::string much(kMaxPayloadBytes, 'x');
                    for (int i = 0; i < 9; ++i) {
                        append_frame(out, FrameType::kData, kFlagCritical | kFlagMore, 2, much);
                    }
                }),
                HasSubstr("too long"));
    EXPECT_THAT(client_loses([](auto&, auto& out) {
                    append_frame(out, FrameType::kHandoff, kFlagCritical, 2, "x");
                }),
                HasSubstr("handoff"));
    EXPECT_THAT(client_loses([](auto& net, auto& out) {
                    LegSamples samples(1);
                    EXPECT_TRUE(net.client->open(samples.encode(500, 500), 0, 1, net.now));
                    put_handoff(out, 3);
                }),
                HasSubstr("before the prompt"));
}

TEST(LegsTest, HandoffsOfStreamsThatDoNotEndAreBounded) {
    MemoryNet net(10);
    net.start();
    LegSamples samples(10);
    Handoff large = *samples.kv(4, 1);
    large.shape.assign(16 * 1024, 's');
    for (int i = 0; i < 2000; ++i) {
        ASSERT_TRUE(net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now));
    }
    net.run();
    std::string bytes;
    for (std::uint32_t i = 1; i <= 2000; ++i) {
        put_frame(bytes, FrameType::kHandoff, i,
                  [&](std::string& to) { append_handoff(to, large, kNow); });
    }
    net.client->received(LaneId(0), bytes, net.now);
    ASSERT_EQ(net.at_client.lost.size(), 1U);
    EXPECT_THAT(net.at_client.lost[0].message, HasSubstr("do not end"));
}

TEST(LegsTest, ManyHandoffsThatEndTheirStreamsAreNotTooMany) {
    MemoryNet net(11);
    net.start();
    LegSamples samples(11);
    auto large = std::make_shared<Handoff>(*samples.kv(4, 1));
    large->shape.assign(16 * 1024, 's');
    for (int i = 0; i < 1500; ++i) {
        const auto id = net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now);
        ASSERT_TRUE(id);
        net.run();
        if (i % 3 == 0) {
            net.session->send_error(*id, error(ErrorCode::kInternal, "x").value());
        } else {
            net.hand_off(id->value, large);
        }
        if (i % 3 == 1) net.client->cancel(*id, net.now);
        net.run();
    }
    EXPECT_TRUE(net.at_client.lost.empty());
}

TEST(LegsTest, AStepWithManyLargeHandoffsIsNotTooMany) {
    WorkerSessionOptions w;
    w.max_unsent_bytes = 64 * 1024 * 1024;
    MemoryNet net(14, {}, w);
    net.start();
    LegSamples samples(14);
    auto large = std::make_shared<Handoff>(*samples.kv(4, 1));
    large->shape.assign(16 * 1024, 's');
    protocol::StepBatch batch;
    for (int i = 0; i < 1200; ++i) {
        const auto id = net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now);
        ASSERT_TRUE(id);
        protocol::StepEvent e;
        e.id = protocol::RequestId(id->value);
        e.finish = FinishReason::kHandoff;
        e.handoff = large;
        batch.events.push_back(std::move(e));
    }
    net.run();
    net.session->send_step(batch, net.now);
    net.run();
    EXPECT_TRUE(net.at_client.lost.empty()) << net.at_client.lost[0].message;
    EXPECT_EQ(net.at_client.streams.size(), 1200U);
}

TEST(LegsTest, AHandoffThatIsNoEndIsNotSent) {
    MemoryNet net(15);
    net.start();
    LegSamples samples(15);
    const auto id = net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now);
    net.run();
    protocol::StepBatch batch;
    batch.events.push_back({.id = protocol::RequestId(id->value),
                            .finish = FinishReason::kCancelled,
                            .error = {},
                            .handoff = samples.kv(4, 1)});
    net.session->send_step(batch, net.now);
    net.run();
    EXPECT_TRUE(net.at_client.lost.empty());
    EXPECT_EQ(net.at_client.streams[id->value].finish, FinishReason::kCancelled);
    EXPECT_FALSE(net.at_client.streams[id->value].handoff);
}

TEST(LegsTest, AnEngineThatDoesNotKnowLegsCostsNoLink) {
    MemoryNet net(12);
    net.start();
    LegSamples samples(12);
    const auto generates = net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now);
    const auto stops = net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now);
    const auto nothing = net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now);
    const auto unsound = net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now);
    const auto whole = net.client->open(samples.leg(Leg::kWhole, 0, 0), 0, 1, net.now);
    net.run();
    net.tokens({{generates->value, 1}});
    protocol::StepBatch stop;
    stop.events.push_back(
        {.id = protocol::RequestId(stops->value), .finish = FinishReason::kStop, .error = {}});
    net.session->send_step(stop, net.now);
    net.hand_off(nothing->value, nullptr);
    auto lie = std::make_shared<Handoff>(*samples.kv(4, 1));
    lie->tokens = 9;
    net.hand_off(unsound->value, lie);
    net.hand_off(whole->value, samples.kv(4, 1));
    net.run();
    EXPECT_TRUE(net.at_client.lost.empty());
    for (const auto& id : {generates, stops, nothing, unsound, whole}) {
        ASSERT_TRUE(net.at_client.streams[id->value].error) << id->value;
        EXPECT_TRUE(net.at_client.streams[id->value].tokens.empty());
    }
    EXPECT_EQ(net.at_worker.cancelled.size(), 5U) << "the owner is told";
}

TEST(LegsTest, ACancelThatCrossesTheHandoffIsTold) {
    MemoryNet net(13);
    net.start();
    LegSamples samples(13);
    const auto id = net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now);
    net.run();
    net.hand_off(id->value, samples.kv(4, 1));
    net.client->cancel(*id, net.now);
    net.run();
    EXPECT_EQ(net.at_worker.late_cancelled, std::vector<std::uint32_t>{id->value});
    EXPECT_TRUE(net.at_worker.cancelled.empty());
    EXPECT_EQ(net.at_client.streams[id->value].ends, 0);
    EXPECT_TRUE(net.at_client.lost.empty());
}

TEST(LegsTest, AHandoffThatWasTakenInCanBeGivenUp) {
    MemoryNet net(14);
    net.start();
    LegSamples samples(14);
    const auto id = net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now);
    net.run();
    net.client->release(*id, net.now);
    net.run();
    EXPECT_TRUE(net.at_worker.late_cancelled.empty()) << "it has left none yet";
    net.hand_off(id->value, samples.object(4, 10));
    net.run();
    ASSERT_TRUE(net.at_client.streams[id->value].handoff);
    net.client->release(*id, net.now);
    net.client->release(StreamId(0), net.now);
    net.client->release(StreamId(id->value + 1), net.now);
    net.run();
    EXPECT_EQ(net.at_worker.late_cancelled, std::vector<std::uint32_t>{id->value});
    EXPECT_TRUE(net.at_worker.cancelled.empty());
    EXPECT_TRUE(net.at_client.lost.empty());
}

TEST(LegsTest, AHandoffThatIsLostLaterIsTold) {
    MemoryNet net(15);
    net.start();
    LegSamples samples(15);
    const auto early = net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 1, net.now);
    const auto open = net.client->open(samples.leg(Leg::kPrefill, 0, 0), 0, 2, net.now);
    net.run();
    net.hand_off(early->value, samples.object(4, 10));
    net.run();
    ASSERT_TRUE(net.at_client.streams[early->value].handoff);
    const Error why = error(ErrorCode::kInternal, "status 500").value();
    net.session->send_handoff_lost(*early, why);
    net.session->send_handoff_lost(*open, why);
    net.run();
    EXPECT_EQ(net.at_client.lost_handoffs, std::vector<std::uint32_t>{early->value});
    EXPECT_EQ(net.at_client.streams[early->value].ends, 1);
    EXPECT_TRUE(net.at_client.streams[open->value].error) << "that is its end";
    EXPECT_TRUE(net.at_client.lost.empty());
}

}  // namespace
}  // namespace stator::requests
