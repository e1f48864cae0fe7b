#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "stator/requests/handshake.h"
#include "stator/requests/link_fixture.h"
#include "stator/requests/step_codec.h"
#include "stator/requests/wire.h"

namespace stator::requests {
namespace {

using protocol::FinishReason;
using std::chrono::milliseconds;
using testing::HasSubstr;

TEST(LinkTest, HandshakeRequestTokensEnd) {
    MemoryNet net(1);
    net.start();
    ASSERT_TRUE(net.client->ready());
    ASSERT_EQ(net.at_client.infos.size(), 1U);
    EXPECT_EQ(net.at_client.infos[0], test_info());
    EXPECT_EQ(net.at_worker.client->name, "frontend");
    const auto id = net.open(3, 4, 42, 1);
    ASSERT_TRUE(id);
    net.run();
    ASSERT_EQ(net.at_worker.opens.size(), 1U);
    const auto& open = net.at_worker.opens[id->value];
    EXPECT_EQ(open.rank, 1U);
    EXPECT_EQ(open.booking, 42U);
    EXPECT_EQ(open.request.prompt, (std::vector<protocol::TokenId>{0, 7, 14}));
    EXPECT_EQ(open.request.max_tokens, 4U);
    net.tokens({{id->value, 10}});
    net.tokens({{id->value, 11}}, true);
    net.session->send_load({.rank = 1, .load = {.running = 3}, .booking = 0, .steps = 2});
    net.run();
    const auto& s = net.at_client.streams[id->value];
    EXPECT_EQ(s.tokens, (std::vector<protocol::TokenId>{10, 11}));
    EXPECT_EQ(s.ends, 1);
    EXPECT_EQ(s.finish, FinishReason::kLength);
    EXPECT_EQ(net.client->open_streams(), 0U);
    EXPECT_EQ(net.session->open_streams(), 0U);
    ASSERT_EQ(net.at_client.loads.size(), 1U);
    EXPECT_EQ(net.at_client.loads[0].booking, 42U);
}

TEST(LinkTest, PromptsOfEveryLengthArriveWhole) {
    MemoryNet net(2);
    net.start();
    for (const std::size_t n : {1U, 8000U, 8150U, 8200U, 16'384U, 16'385U, 300'000U}) {
        const auto id = net.open(n, 1);
        ASSERT_TRUE(id);
        net.run();
        ASSERT_TRUE(net.at_worker.opens.contains(id->value)) << n;
        const auto& prompt = net.at_worker.opens[id->value].request.prompt;
        ASSERT_EQ(prompt.size(), n);
        EXPECT_EQ(prompt.back(), (n - 1) * 7);
        if (n < 100'000) continue;
        EXPECT_EQ(prompt.capacity(), n) << "growing on the way copies megabytes at once";
    }
    EXPECT_TRUE(net.at_client.lost.empty());
    EXPECT_GE(net.wires.size(), 2U) << "the long ones went over bulk lanes";
}

TEST(LinkTest, ConstraintsOfEveryLengthArriveWhole) {
    using protocol::OutputConstraint;
    MemoryNet net(21);
    net.start();
    std::string text;
    for (int i = 0; text.size() < protocol::kMaxConstraintBytes; ++i) {
        text += "property " + std::to_string(i);
    }
    for (const std::size_t bytes : {0U, 1U, 8191U, 8192U, 8193U, 8194U, 8195U, 8196U, 40'000U,
                                    static_cast<unsigned>(protocol::kMaxConstraintBytes)}) {
        for (const std::size_t prompt : {1U, 8000U, 20'000U}) {
            auto q = std::make_shared<protocol::GenerateRequest>();
            q->id = protocol::RequestId(5);
            q->prompt.assign(prompt, 7);
            q->prompt.back() = 9;
            q->resumed_tokens = static_cast<std::uint32_t>(prompt - 1);
            q->max_tokens = 3;
            q->constraint = std::make_shared<const OutputConstraint>(OutputConstraint{
                OutputConstraint::Kind::kJsonSchema, text.substr(0, bytes), "</think>"});
            const auto id = net.client->open(q, 0, 0, net.now);
            ASSERT_TRUE(id);
            net.run();
            ASSERT_TRUE(net.at_worker.opens.contains(id->value)) << bytes;
            const auto& got = net.at_worker.opens[id->value].request;
            ASSERT_TRUE(got.constraint);
            EXPECT_EQ(*got.constraint, *q->constraint) << bytes;
            EXPECT_EQ(got.prompt, q->prompt) << bytes;
            EXPECT_EQ(got.resumed_tokens, q->resumed_tokens);
        }
    }
    EXPECT_TRUE(net.at_client.lost.empty());
}

TEST(LinkTest, AConstraintThatSaysTooMuchIsRefused) {
    OpenHead head;
    head.request.max_tokens = 1;
    head.prompt_tokens = 3;
    const auto read = [&](protocol::OutputConstraint constraint, std::uint32_t behind) {
        head.request.constraint =
            std::make_shared<const protocol::OutputConstraint>(std::move(constraint));
        head.behind.constraint = behind;
        std::string payload;
        append_open(payload, head, {});
        std::string_view rest;
        return read_open(payload, {}, rest);
    };
    using Kind = protocol::OutputConstraint::Kind;
    EXPECT_TRUE(read({Kind::kLark, "", ""}, 8));
    EXPECT_EQ(read({Kind::kLark, "", ""}, 9).error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(read({Kind::kLark, "x", ""}, 4).error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(read({static_cast<Kind>(6), "x", ""}, 0).error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(read({Kind::kLark, "x", std::string(257, 'a')}, 0).error().code,
              ErrorCode::kTooLarge);
    EXPECT_EQ(read({Kind::kLark, std::string(300'000, 'a'), ""}, 0).error().code,
              ErrorCode::kTooLarge);
    EXPECT_EQ(read({Kind::kLark, "", ""}, 0xffffffffU).error().code, ErrorCode::kTooLarge);
    head.request.resumed_tokens = 1;
    EXPECT_EQ(read({Kind::kLark, "", ""}, 8).error().code, ErrorCode::kInvalidArgument);
}

TEST(LinkTest, AHugePromptDoesNotDelayTokensOfOthers) {
    MemoryNet net(3);
    net.start();
    const auto fast = net.open(4, 1000);
    const auto big = net.open(2'500'000, 1);
    ASSERT_TRUE(fast && big);
    std::uint32_t token = 0;
    while (!net.at_worker.opens.contains(big->value)) {
        ASSERT_TRUE(net.step());
        if (net.at_worker.opens.contains(fast->value) && token < 1000) {
            net.tokens({{fast->value, token++}});
        }
        // Nothing of the prompt stands before what the control lane has to say.
        ASSERT_LT(net.wires[0]->to_worker.size(), 64U * 1024);
        for (const auto& w : net.wires) ASSERT_LT(w->to_worker.size(), 600U * 1024);
    }
    net.run();
    EXPECT_EQ(net.at_client.streams[fast->value].tokens.size(), token);
    EXPECT_GT(token, 20U);
}

TEST(LinkTest, FetchesComeOverBulkLanes) {
    MemoryNet net(4);
    net.start();
    const auto big =
        net.client->fetch({.kind = Fetch::Kind::kSnapshot, .sha256 = {}, .topic = "kv"}, net.now);
    const auto none = net.client->fetch(
        {.kind = Fetch::Kind::kArtifact, .sha256 = std::string(64, 'a'), .topic = {}}, net.now);
    ASSERT_TRUE(big && none);
    net.run();
    ASSERT_EQ(net.at_worker.fetches.size(), 2U);
    EXPECT_EQ(net.at_worker.fetches[*big].topic, "kv");
    const auto body = std::make_shared<const std::string>(5'000'000, 'x');
    net.session->fetched(*big, body);
    net.session->fetched(*none, error(ErrorCode::kNotFound, "no such artifact"));
    for (const auto& w : net.wires) EXPECT_LT(w->to_client.size(), 600U * 1024);
    net.run();
    ASSERT_TRUE(net.at_client.fetched.at(*big));
    EXPECT_EQ(*net.at_client.fetched.at(*big), *body);
    EXPECT_EQ(net.at_client.fetched.at(*none).error().code, ErrorCode::kNotFound);
    net.session->fetched(*big, body);  // too late: nothing happens
    net.advance(milliseconds(40'000));
    EXPECT_TRUE(net.at_client.lost.empty());
}

TEST(LinkTest, CancelStopsTheStreamAtOnce) {
    MemoryNet net(5);
    net.start();
    const auto id = net.open(3, 100);
    net.run();
    net.tokens({{id->value, 1}});
    net.client->cancel(*id, net.now);
    net.run();
    EXPECT_TRUE(net.at_client.streams[id->value].tokens.empty());
    EXPECT_EQ(net.at_worker.cancelled, std::vector<std::uint32_t>{id->value});
    net.tokens({{id->value, 2}});
    net.run();
    EXPECT_TRUE(net.at_client.lost.empty());
}

TEST(LinkTest, CreditsBoundWhatASlowClientPilesUp) {
    ClientLinkOptions c;
    c.credit_tokens = 10;
    WorkerSessionOptions w;
    w.max_backlog_tokens = 20;
    MemoryNet net(6, c, w);
    net.start();
    const auto id = net.open(3, 1000);
    const auto slow = net.open(3, 1000);
    net.run();
    for (std::uint32_t i = 0; i < 500; ++i) {
        net.tokens({{id->value, i}});
        if (i % 5 == 0) net.run();
    }
    net.run();
    EXPECT_EQ(net.at_client.streams[id->value].tokens.size(), 500U);
    for (std::uint32_t i = 0; i < 31; ++i) net.tokens({{slow->value, i}});
    EXPECT_EQ(net.at_worker.cancelled, std::vector<std::uint32_t>{slow->value});
    net.run();
    EXPECT_EQ(net.at_client.streams[slow->value].tokens.size(), 10U);
    EXPECT_EQ(net.at_client.streams[slow->value].error->code, ErrorCode::kOverloaded);
    EXPECT_TRUE(net.at_client.lost.empty());
}

TEST(LinkTest, RefusalsComeAsErrorsOfTheStream) {
    WorkerSessionOptions w;
    w.max_streams = 2;
    w.max_prompt_tokens = 100'000;
    MemoryNet net(7, {}, w);
    net.start();
    const auto wrong_rank = net.open(3, 1, 1, 9);
    const auto too_long = net.open(100'001, 1);
    net.run();
    EXPECT_EQ(net.at_client.streams[wrong_rank->value].error->code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(net.at_client.streams[too_long->value].error->code, ErrorCode::kTooLarge);
    static_cast<void>(net.open(3, 1));
    static_cast<void>(net.open(3, 1));
    const auto third = net.open(3, 1);
    net.run();
    EXPECT_EQ(net.at_client.streams[third->value].error->code, ErrorCode::kOverloaded);
    net.session->send_go_away({.reason = "restart", .grace_ms = 5000});
    net.run();
    EXPECT_EQ(net.at_client.go_away->reason, "restart");
    EXPECT_EQ(net.open(3, 1).error().code, ErrorCode::kUnavailable);
}

TEST(LinkTest, SilenceIsToldAndALostPeerEndsTheLink) {
    MemoryNet net(8);
    net.start();
    for (int i = 0; i < 100; ++i) net.advance(milliseconds(250));
    EXPECT_TRUE(net.at_client.silent.empty()) << "pings keep an idle link";
    EXPECT_TRUE(net.at_client.lost.empty() && net.at_worker.lost.empty());
    net.wires[0]->cut = true;
    for (int i = 0; i < 14; ++i) net.advance(milliseconds(250));
    EXPECT_EQ(net.at_client.silent, std::vector<bool>{true});
    for (int i = 0; i < 40; ++i) net.advance(milliseconds(250));
    ASSERT_EQ(net.at_client.lost.size(), 1U);
    ASSERT_EQ(net.at_worker.lost.size(), 1U);
    EXPECT_THAT(net.at_client.lost[0].message, HasSubstr("no byte"));
}

TEST(LinkTest, AStoppedClientDoesNotTakeItsSleepForTheWorkers) {
    MemoryNet net(9);
    net.start();
    net.advance(milliseconds(60'000));
    net.advance(milliseconds(10));
    EXPECT_TRUE(net.at_client.lost.empty());
}

TEST(LinkTest, SecretsMustAgree) {
    const auto attempt = [](std::string client, std::string worker) {
        ClientLinkOptions c;
        c.secret = std::move(client);
        WorkerSessionOptions w;
        w.secret = std::move(worker);
        MemoryNet net(10, c, w);
        net.connect(LaneId(0));
        net.run();
        if (!net.session)
            return net.at_client.lost.empty() ? std::string("?")
                   : to_string(net.at_client.lost[0].code) == "unauthenticated"
                       ? std::string("refused")
                       : net.at_client.lost[0].message;
        net.session->send_info(test_info());
        net.run();
        return std::string(net.client->ready() ? "ready" : "refused");
    };
    EXPECT_EQ(attempt("s3cret", "s3cret"), "ready");
    EXPECT_EQ(attempt("", ""), "ready");
    EXPECT_EQ(attempt("s3cret", "other"), "refused");
    EXPECT_EQ(attempt("s3cret", ""), "refused");
    EXPECT_EQ(attempt("", "s3cret"), "refused");
}

TEST(LinkTest, AReplayedOrReflectedProofIsOfNoUse) {
    Hello hello;
    hello.nonce.fill(1);
    Nonce worker{};
    worker.fill(2);
    const Nonce proof = prove("s", Prover::kClient, hello, worker);
    EXPECT_FALSE(same_proof(proof, prove("s", Prover::kWorker, hello, worker)));
    Hello other = hello;
    other.lane = LaneKind::kBulk;
    EXPECT_FALSE(same_proof(proof, prove("s", Prover::kClient, other, worker)));
    other = hello;
    other.link.low = 1;
    EXPECT_FALSE(same_proof(proof, prove("s", Prover::kClient, other, worker)));
    // Recorded bytes of a good client, sent again to a worker with a fresh nonce:
    ClientLinkOptions c;
    c.secret = "s";
    WorkerSessionOptions w;
    w.secret = "s";
    MemoryNet net(11, c, w);
    net.connect(LaneId(0));
    std::string said = net.wires[0]->to_worker;
    std::string answer;
    ASSERT_TRUE(net.wires[0]->greeter->received(said, net.now, answer));
    net.wires[0]->to_worker.clear();
    net.client->received(LaneId(0), answer, net.now);
    said += net.wires[0]->to_worker;
    LaneGreeter fresh("s", 12'345, net.now, milliseconds(1000));
    std::string out;
    const auto got = fresh.received(said, net.now, out);
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code, ErrorCode::kUnauthenticated);
}

TEST(LinkTest, AnotherVersionAndAnotherProtocolAreRefused) {
    LaneGreeter greeter("", 1, {}, milliseconds(1000));
    std::string out;
    std::string said(kPreface);
    Hello hello;
    hello.version = 2;
    put_frame(said, FrameType::kHello, 0, [&](std::string& to) { append_hello(to, hello); });
    auto got = greeter.received(said, {}, out);
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code, ErrorCode::kUnsupported);
    EXPECT_FALSE(out.empty()) << "the peer is told";
    LaneGreeter http("", 1, {}, milliseconds(1000));
    got = http.received("GET / HTTP/1.1\r\n\r\n", {}, out);
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code, ErrorCode::kDataLoss);
}

/// A worker that lies: frames put straight into the client.
std::string client_loses(const std::function<void(std::string&, std::uint32_t stream)>& lie) {
    MemoryNet net(12);
    net.start();
    const auto id = net.open(3, 4);
    net.run();
    std::string bytes;
    lie(bytes, id->value);
    net.client->received(LaneId(0), bytes, net.now);
    return net.at_client.lost.empty() ? "not lost" : net.at_client.lost[0].message;
}

void lie_tokens(std::string& out, std::uint32_t stream, std::uint32_t position, std::size_t n) {
    StepWriter w;
    const std::vector<protocol::TokenOutput> tokens(n);
    w.add(out, stream, position, false, {}, tokens, {});
    w.finish(out);
}

TEST(LinkTest, TokensOfStreamsThatAreOverAreNoLie) {
    MemoryNet net(14);
    net.start();
    const auto finished = net.open(3, 4);
    const auto cancelled = net.open(3, 4);
    net.run();
    net.tokens({{finished->value, 1}}, true);
    net.run();
    net.client->cancel(*cancelled, net.now);
    std::string bytes;
    lie_tokens(bytes, finished->value, 1, 1);
    lie_tokens(bytes, cancelled->value, 0, 3);
    net.client->received(LaneId(0), bytes, net.now);
    EXPECT_TRUE(net.at_client.lost.empty());
    EXPECT_EQ(net.at_client.streams[finished->value].tokens.size(), 1U);
    EXPECT_TRUE(net.at_client.streams[cancelled->value].tokens.empty());
}

TEST(LinkTest, ADeadlineEndsARequestWhosePromptIsStillOnTheWay) {
    MemoryNet net(15);
    net.start();
    auto q = std::make_shared<protocol::GenerateRequest>();
    q->prompt.assign(100'000, 7);
    q->deadline = Deadline::after(net.now, milliseconds(500));
    const auto id = net.client->open(q, 0, 1, net.now);
    ASSERT_TRUE(id);
    net.session->received(LaneId(0), std::exchange(net.wires[0]->to_worker, {}), net.now);
    EXPECT_LE(net.session->next_timer(), q->deadline);
    net.session->tick(net.now + milliseconds(499));
    EXPECT_EQ(net.session->open_streams(), 1U);
    net.now = net.now + milliseconds(500);
    net.session->tick(net.now);
    EXPECT_EQ(net.session->open_streams(), 0U);
    net.run();
    ASSERT_TRUE(net.at_client.streams[id->value].error);
    EXPECT_EQ(net.at_client.streams[id->value].error->code, ErrorCode::kDeadlineExceeded);
    EXPECT_TRUE(net.at_worker.opens.empty());
    EXPECT_TRUE(net.at_worker.cancelled.empty()) << "the owner never knew of it";
    EXPECT_TRUE(net.at_client.lost.empty() && net.at_worker.lost.empty());
}

TEST(LinkTest, AWorkerThatLiesLosesTheLink) {
    EXPECT_THAT(client_loses([](auto& out, auto s) { lie_tokens(out, s + 1, 0, 1); }),
                HasSubstr("never opened"));
    EXPECT_THAT(client_loses([](auto& out, auto s) { lie_tokens(out, s, 1, 1); }),
                HasSubstr("gap"));
    EXPECT_THAT(client_loses([](auto& out, auto s) { lie_tokens(out, s, 0, 5); }),
                HasSubstr("more tokens than were asked for"));
    EXPECT_THAT(client_loses([](auto& out, auto) {
                    put_frame(out, FrameType::kLoad, 0,
                              [](std::string& to) { append_load(to, {.rank = 2, .load = {}}); });
                }),
                HasSubstr("rank"));
    EXPECT_THAT(client_loses([](auto& out, auto) {
                    auto info = test_info();
                    info.ranks[1].rank = 5;
                    put_frame(out, FrameType::kInfo, 0,
                              [&](std::string& to) { append_info(to, info); });
                }),
                HasSubstr("rank 5"));
    EXPECT_THAT(client_loses([](auto& out, auto) {
                    append_frame(out, static_cast<FrameType>(99), kFlagCritical, 0, {});
                }),
                HasSubstr("99"));
    EXPECT_EQ(client_loses(
                  [](auto& out, auto) { append_frame(out, static_cast<FrameType>(99), 0, 0, {}); }),
              "not lost");
    EXPECT_EQ(client_loses([](auto& out, auto s) {
                  append_frame(out, static_cast<FrameType>(99), kFlagCritical, s, {});
              }),
              "not lost");
    EXPECT_THAT(client_loses([](auto& out, auto) { out = std::string(100, '\xff'); }),
                HasSubstr("payload"));
}

TEST(LinkTest, AMillionOpensFromAClientThatDoesNotReadEndItsLinkInBoundedMemory) {
    WorkerSessionOptions w;
    w.max_streams = 16;
    w.max_unsent_bytes = 1024 * 1024;
    WorkerRecord record;
    std::string out;
    WorkerSession session(w, {}, record, {});
    ASSERT_TRUE(session.add_lane(LaneId(0), &out, {}));
    OpenHead head;
    head.request.max_tokens = 1;
    head.prompt_tokens = 1;
    std::string payload;
    append_open(payload, head, {});
    payload += std::string(4, '\0');
    for (std::uint32_t i = 1; i <= 1'000'000 && record.lost.empty(); ++i) {
        std::string bytes;
        append_frame(bytes, FrameType::kOpen, kFlagCritical, i, payload);
        session.received(LaneId(0), bytes, {});
    }
    ASSERT_EQ(record.lost.size(), 1U);
    EXPECT_LT(out.size(), 1100U * 1024);
    EXPECT_EQ(record.opens.size(), 16U);
}

TEST(LinkTest, CancelledPromptsDoNotStayInTheQueueForMemory) {
    WorkerSessionOptions w;
    w.max_uploading_bytes = 4 * 100'000;
    WorkerRecord record;
    std::string out;
    WorkerSession session(w, {}, record, {});
    ASSERT_TRUE(session.add_lane(LaneId(0), &out, {}));
    OpenHead head;
    head.request.max_tokens = 1;
    head.prompt_tokens = 100'000;
    std::string payload;
    append_open(payload, head, {});
    const auto send = [&](FrameType type, std::uint8_t flags, std::uint32_t stream,
                          std::string_view body) {
        std::string bytes;
        append_frame(bytes, type, flags, stream, body);
        session.received(LaneId(0), bytes, {});
        out.clear();
    };
    // The first has all the memory and never sends; the second waits for it.
    send(FrameType::kOpen, kFlagCritical | kFlagMore, 1, payload);
    send(FrameType::kOpen, kFlagCritical | kFlagMore, 2, payload);
    ASSERT_EQ(session.waiting_prompts(), 1U);
    for (std::uint32_t i = 3; i < 1000; ++i) {
        send(FrameType::kOpen, kFlagCritical | kFlagMore, i, payload);
        send(FrameType::kCancel, kFlagCritical, i, {});
    }
    EXPECT_EQ(session.waiting_prompts(), 1U);
    EXPECT_EQ(session.open_streams(), 2U);
    send(FrameType::kCancel, kFlagCritical, 1, {});
    EXPECT_EQ(session.waiting_prompts(), 0U) << "the second's turn has come";
    EXPECT_TRUE(record.lost.empty());
}

TEST(LinkTest, EveryRequestEndsOnceWithItsTokensInOrder) {
    EXPECT_TRUE(rc::check([] {
        const auto seed = *rc::gen::arbitrary<std::uint64_t>();
        ClientLinkOptions c;
        c.credit_tokens = *rc::gen::inRange<std::uint32_t>(1, 40);
        WorkerSessionOptions w;
        MemoryNet net(seed, c, w);
        net.max_piece = *rc::gen::element<std::size_t>(1, 7, 100, 50'000);
        net.kernel_bytes = *rc::gen::element<std::size_t>(50, 1000, 65'536);
        net.start();
        std::map<std::uint32_t, std::uint32_t> sent;  // by the worker's engine
        std::map<std::uint32_t, std::uint32_t> wanted;
        std::vector<std::uint32_t> cancelled;
        const bool drop = *rc::gen::arbitrary<bool>();
        const int rounds = *rc::gen::inRange(1, 60);
        for (int i = 0; i < rounds; ++i) {
            if (net.random() % 3 == 0) {
                const auto max = static_cast<std::uint32_t>(1 + net.random() % 60);
                const auto id = net.open(1 + net.random() % 50, max);
                RC_ASSERT(id.has_value());
                wanted[id->value] = max;
            }
            if (net.random() % 20 == 0 && !wanted.empty()) {
                const auto victim = wanted.begin()->first;
                net.client->cancel(StreamId(victim), net.now);
                cancelled.push_back(victim);
                wanted.erase(victim);
            }
            for (auto n = net.random() % 5; n > 0; --n) net.step();
            for (const auto& [stream, open] : net.at_worker.opens) {
                auto& n = sent[stream];
                if (n >= open.request.max_tokens || net.random() % 2 == 0) continue;
                net.tokens({{stream, n}}, n + 1 == open.request.max_tokens);
                n += 1;
            }
        }
        if (drop) {
            net.cut_all();
            RC_ASSERT(net.at_client.lost.size() == 1U);
            RC_ASSERT(net.at_worker.lost.size() == 1U);
        } else {
            for (int i = 0; i < 200; ++i) {
                net.run();
                for (const auto& [stream, open] : net.at_worker.opens) {
                    auto& n = sent[stream];
                    if (n >= open.request.max_tokens) continue;
                    net.tokens({{stream, n}}, n + 1 == open.request.max_tokens);
                    n += 1;
                }
            }
            net.run();
            RC_ASSERT(net.at_client.lost.empty());
            RC_ASSERT(net.client->open_streams() == 0U);
            RC_ASSERT(net.session->open_streams() == 0U);
        }
        for (const auto& [stream, s] : net.at_client.streams) {
            for (std::uint32_t i = 0; i < s.tokens.size(); ++i) RC_ASSERT(s.tokens[i] == i);
            RC_ASSERT(s.ends <= 1);
        }
        if (drop) return;
        for (const auto& [stream, max] : wanted) {
            RC_ASSERT(net.at_client.streams[stream].tokens.size() == max);
            RC_ASSERT(net.at_client.streams[stream].ends == 1);
        }
    }));
}

TEST(LinkTest, GarbageAtEveryPointLosesTheLinkAndNothingElse) {
    EXPECT_TRUE(rc::check([] {
        MemoryNet net(*rc::gen::arbitrary<std::uint64_t>());
        net.start();
        static_cast<void>(net.open(3, 9));
        net.run();
        std::string frame;
        StepWriter w;
        const std::vector<protocol::TokenOutput> tokens(2);
        w.add(frame, 1, 0, false, {}, tokens, {});
        w.finish(frame);
        const auto at = *rc::gen::inRange<std::size_t>(0, frame.size());
        frame[at] = static_cast<char>(frame[at] ^ *rc::gen::inRange(1, 256));
        const bool to_client = *rc::gen::arbitrary<bool>();
        frame += std::string(40'000, 'z');  // completes whatever length the header says now
        if (to_client) {
            net.client->received(LaneId(0), frame, net.now);
            RC_ASSERT(net.at_client.lost.size() == 1U);
        } else {
            net.session->received(LaneId(0), frame, net.now);
            RC_ASSERT(net.at_worker.lost.size() == 1U);
        }
    }));
}

}  // namespace
}  // namespace stator::requests
