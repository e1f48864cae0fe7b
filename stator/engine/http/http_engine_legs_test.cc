#include "stator/engine/http/http_engine_fixture.h"
#include "stator/legs/request_life.h"

namespace stator::engine {
namespace {

using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::Handoff;
using protocol::Leg;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

const std::string kParams =
    R"({"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[4,5]],)"
    R"("remote_engine_id":"e","remote_request_id":"r","remote_host":"h","remote_port":5600,)"
    R"("remote_num_tokens":4,"later":{"x":1},"remote_prefill_cached_tokens":2})";

std::string prefilled(const std::string& params) {
    return R"({"choices":[{"index":0,"finish_reason":"length","token_ids":[7]}],)"
           R"("usage":{"prompt_tokens":4},"kv_transfer_params":)" +
           params + "}";
}

/// One server that is asked for both kinds of legs: who it is asked as shows in the body.
class HttpEngineLegsTest : public HttpEngineTest {
  protected:
    void start_as(KvConnector connector, Generate prefill, Generate decode,
                  HttpEngineOptions options = {}) {
        options.dialect.connector = connector;
        if (connector == KvConnector::kSglang) options.dialect.dialect = Dialect::kSglang;
        if (connector == KvConnector::kTrtllm) options.dialect.dialect = Dialect::kTrtllm;
        options.info.max_running = 8;
        options.info.kv_layout = std::string(method_of(connector)) + "/1.2.3";
        options.meeting = {.host = "10.0.0.7", .port = 8998, .engine_id = "id"};
        start(
            [this, prefill = std::move(prefill), decode = std::move(decode)](
                ScriptedConnection& c, const std::string& body) {
                const bool whole = body.find(R"("stream":true)") != std::string::npos;
                {
                    const std::scoped_lock lock(mutex_);
                    (whole ? decode_body_ : prefill_body_) = body;
                }
                whole ? decode(c, body) : prefill(c, body);
            },
            std::move(options));
    }
    std::string prefill_body() {
        const std::scoped_lock lock(mutex_);
        return prefill_body_;
    }
    std::string decode_body() {
        const std::scoped_lock lock(mutex_);
        return decode_body_;
    }
    static GenerateRequest prefill(std::uint64_t id) {
        auto r = request(id);
        r.leg = Leg::kPrefill;
        return r;
    }
    static GenerateRequest decode(std::uint64_t id, std::shared_ptr<const Handoff> handoff) {
        auto r = request(id);
        r.leg = Leg::kDecode;
        r.handoff = std::move(handoff);
        return r;
    }
    protocol::StepEvent end_of(const GenerateRequest& r) {
        auto sent = engine_->submit(r, sink_);
        EXPECT_TRUE(sent) << sent.error().message;
        return sink_->wait_end(r.id.value).events.back();
    }
    std::shared_ptr<const Handoff> handoff_of(std::uint64_t id) {
        return end_of(prefill(id)).handoff;
    }
    /// As it came, with something else about it.
    static std::shared_ptr<const Handoff> but(const std::shared_ptr<const Handoff>& handoff,
                                              const std::function<void(Handoff&)>& change) {
        auto h = std::make_shared<Handoff>(*handoff);
        change(*h);
        return h;
    }
    static Generate answer(std::string body, std::string status = "200 OK") {
        return [=](ScriptedConnection& c, const std::string&) { c.answer(body, status); };
    }
    static Generate streams() {
        return [](ScriptedConnection& c, const std::string&) {
            c.send(kStreamHead + tokens("[10]") + tokens("[11]", "\"length\"") + usage(4, 4));
        };
    }
    static Generate hangs(std::atomic<int>* left = nullptr) {
        return [left](ScriptedConnection& c, const std::string&) {
            c.await_end();
            if (left != nullptr) ++*left;
        };
    }

    std::string prefill_body_;
    std::string decode_body_;
    // Servers' threads live longer than a test's body.
    std::atomic<int> left_{0};
    std::atomic<bool> met_{false};
};

TEST_F(HttpEngineLegsTest, NixlKvGoesByWhatTheOneEngineHasSaid) {
    start_as(KvConnector::kVllmNixl, answer(prefilled(kParams)), streams());
    EXPECT_EQ(engine_->info().kv_method, "vllm/nixl");
    EXPECT_EQ(engine_->info().kv_layout, "vllm/nixl/1.2.3");
    auto r = prefill(1);
    r.cache_salt = 7;
    const auto end = end_of(r);
    EXPECT_EQ(end.finish, FinishReason::kHandoff);
    EXPECT_EQ(end.prompt_tokens, 4U);
    EXPECT_EQ(end.cached_tokens, 2U);
    EXPECT_THAT(sink_->wait_end(1).tokens, IsEmpty()) << "its one token is thrown away";
    ASSERT_TRUE(end.handoff);
    EXPECT_EQ(end.handoff->object, kParams);
    EXPECT_EQ(end.handoff->layout, "vllm/nixl/1.2.3");
    EXPECT_EQ(end.handoff->tokens, 3U);
    EXPECT_EQ(end.handoff->content, protocol::kv_content(std::span(r.prompt).first(3), 7));
    EXPECT_FALSE(end.handoff->early);
    EXPECT_FALSE(end.handoff->expires.is_never());
    EXPECT_THAT(prefill_body(), HasSubstr(R"("do_remote_decode":true)"));
    EXPECT_THAT(prefill_body(), HasSubstr(R"("max_tokens":1,)"));

    ASSERT_TRUE(engine_->submit(decode(2, end.handoff), sink_));
    EXPECT_THAT(sink_->wait_end(2).tokens, ElementsAre(10, 11));
    EXPECT_THAT(decode_body(), HasSubstr("\"kv_transfer_params\":" + kParams));
    EXPECT_THAT(decode_body(), HasSubstr(R"("max_tokens":3,)"));
    EXPECT_TRUE(eventually([&] { return engine_->load().running == 0; }));
    // The prompt counts where it was computed.
    EXPECT_EQ(engine_->forward_pass_metrics().prefill_tokens, 2U);
}

TEST_F(HttpEngineLegsTest, ASharedStoreNeedsNoWords) {
    start_as(KvConnector::kVllmShared, answer(prefilled("null")), streams());
    const auto handoff = handoff_of(1);
    ASSERT_TRUE(handoff);
    EXPECT_EQ(handoff->object, "{}");
    EXPECT_EQ(end_of(decode(2, handoff)).finish, FinishReason::kLength);
    EXPECT_THAT(prefill_body() + decode_body(), Not(HasSubstr("kv_transfer_params")));
}

TEST_F(HttpEngineLegsTest, TensorRtLlmsFirstTokenIsPassedOn) {
    start_as(
        KvConnector::kTrtllm,
        answer(
            R"({"choices":[{"finish_reason":"length","disaggregated_params":{"request_type":"context_only",)"
            R"("first_gen_tokens":[10],"ctx_request_id":1,"encoded_opaque_state":"AA=="}}]})"),
        streams());
    const auto handoff = handoff_of(1);
    ASSERT_TRUE(handoff);
    EXPECT_THAT(prefill_body(), HasSubstr(R"({"request_type":"context_only"})"));
    ASSERT_TRUE(engine_->submit(decode(2, handoff), sink_));
    EXPECT_THAT(sink_->wait_end(2).tokens, ElementsAre(10, 11));
    EXPECT_THAT(decode_body(), HasSubstr(R"("first_gen_tokens":[10])"));
    EXPECT_THAT(decode_body(), HasSubstr(R"("request_type":"generation_only")"));
}

/// The two of SGLang, which meet: neither answers before both are there.
TEST_F(HttpEngineLegsTest, SglangsLegsAreUnderWayAtOnce) {
    start_as(
        KvConnector::kSglang,
        [&](ScriptedConnection& c, const std::string&) {
            while (!met_) std::this_thread::sleep_for(1ms);
            c.answer(
                R"({"output_ids":[10],"meta_info":{"finish_reason":{"type":"length"},"cached_tokens":1}})");
        },
        [&](ScriptedConnection& c, const std::string&) {
            met_ = true;
            c.send(
                kStreamHead +
                chunk(
                    R"({"output_ids":[10,11],"meta_info":{"completion_tokens":2,"prompt_tokens":4,)"
                    R"("finish_reason":{"type":"length"}}})") +
                chunk("[DONE]") + "0\r\n\r\n");
        });
    const auto handoff = handoff_of(1);
    ASSERT_TRUE(handoff);
    EXPECT_TRUE(handoff->early);
    EXPECT_FALSE(met_);
    EXPECT_EQ(engine_->load().running, 1U) << "the engine is still at it";
    ASSERT_TRUE(engine_->submit(decode(2, handoff), sink_));
    EXPECT_THAT(sink_->wait_end(2).tokens, ElementsAre(10, 11));
    EXPECT_TRUE(eventually([&] { return engine_->load().running == 0; }));
    const auto room_of = [](const std::string& body) {
        const auto from = body.find("\"bootstrap_host\"");
        return body.substr(from, body.find(",\"stream\"") - from);
    };
    EXPECT_THAT(room_of(decode_body()),
                HasSubstr(R"("bootstrap_host":"10.0.0.7","bootstrap_port":8998)"));
    EXPECT_EQ(room_of(prefill_body()), room_of(decode_body()));
    EXPECT_EQ(engine_->forward_pass_metrics().cached_tokens, 1U);
    // Another one meets elsewhere.
    const std::string before = prefill_body();
    ASSERT_TRUE(handoff_of(3));
    EXPECT_TRUE(eventually([&] { return room_of(prefill_body()) != room_of(before); }));
}

TEST_F(HttpEngineLegsTest, MooncakesTransferIsNamedBeforehand) {
    start_as(KvConnector::kVllmMooncake, answer(prefilled("null")), streams());
    const auto handoff = handoff_of(1);
    ASSERT_TRUE(handoff);
    EXPECT_TRUE(handoff->early);
    EXPECT_EQ(end_of(decode(2, handoff)).finish, FinishReason::kLength);
    EXPECT_THAT(decode_body(), HasSubstr(R"("remote_bootstrap_addr":"http://10.0.0.7:8998")"));
    EXPECT_THAT(decode_body(), HasSubstr(R"("remote_engine_id":"id")"));
    EXPECT_TRUE(eventually([&] { return !prefill_body().empty(); }));
    const auto at = decode_body().find("xfer-");
    EXPECT_THAT(prefill_body(), HasSubstr(decode_body().substr(at, 21)));
}

TEST_F(HttpEngineLegsTest, WhatAPrefillLegFailsOf) {
    struct Case {
        std::string body;
        std::string status;
        ErrorCode code;
    };
    std::string no_host = kParams;
    no_host.replace(no_host.find("remote_host"), 11, "some_host__");
    for (const Case& c :
         {Case{prefilled("null"), "200 OK", ErrorCode::kDataLoss},
          Case{prefilled(no_host), "200 OK", ErrorCode::kDataLoss},
          Case{prefilled(R"({"do_remote_prefill":true})"), "200 OK", ErrorCode::kDataLoss},
          Case{"what?", "200 OK", ErrorCode::kDataLoss},
          Case{std::string(1'000'000, ' '), "200 OK", ErrorCode::kDataLoss},
          Case{"", "500 Internal Server Error", ErrorCode::kInternal},
          Case{"", "503 Service Unavailable", ErrorCode::kUnavailable},
          Case{"", "429 Too Many Requests", ErrorCode::kOverloaded},
          Case{"", "400 Bad Request", ErrorCode::kInvalidArgument}}) {
        start_as(KvConnector::kVllmNixl, answer(c.body, c.status), streams());
        const auto end = end_of(prefill(1));
        EXPECT_EQ(end.finish, FinishReason::kError);
        EXPECT_FALSE(end.handoff);
        ASSERT_TRUE(end.error);
        EXPECT_EQ(end.error->code, c.code) << end.error->message;
        EXPECT_TRUE(eventually([&] { return engine_->load().running == 0; }));
        TearDown();
        sink_ = std::make_shared<Collector>();
    }
    start_as(
        KvConnector::kVllmNixl, [](ScriptedConnection& c, const std::string&) { c.reset(); },
        streams());
    EXPECT_EQ(end_of(prefill(1)).error->code, ErrorCode::kUnavailable) << "asked of another one";
}

TEST_F(HttpEngineLegsTest, KvThatMayBeGoneIsNotAskedForTwice) {
    struct Case {
        Generate decode;
        ErrorCode code;
    };
    const std::string in_stream = chunk(R"({"error":{"message":"KV load failed","code":500}})") +
                                  chunk("[DONE]") + "0\r\n\r\n";
    for (const Case& c :
         {// Before the engine has looked at it: another one may have it.
          Case{answer("", "503 Service Unavailable"), ErrorCode::kUnavailable},
          Case{answer("", "429 Too Many Requests"), ErrorCode::kOverloaded},
          // It may have been fetched by now.
          Case{answer("", "500 Internal Server Error"), ErrorCode::kInternal},
          Case{answer("", "502 Bad Gateway"), ErrorCode::kInternal},
          Case{[](ScriptedConnection& s, const std::string&) { s.reset(); }, ErrorCode::kInternal},
          Case{[](ScriptedConnection& s, const std::string&) {
                   s.send(kStreamHead);
                   s.reset();
               },
               ErrorCode::kInternal},
          Case{[&](ScriptedConnection& s, const std::string&) { s.send(kStreamHead + in_stream); },
               ErrorCode::kInternal},
          Case{[](ScriptedConnection& s, const std::string&) {
                   s.send(kStreamHead + tokens("[]", "\"abort\"") + usage(4, 0));
               },
               ErrorCode::kInternal},
          // The first token shows that all is well.
          Case{[&](ScriptedConnection& s, const std::string&) {
                   s.send(kStreamHead + tokens("[10]"));
                   EXPECT_TRUE(sink_->wait_tokens(2, 1));
                   s.reset();
               },
               ErrorCode::kInternal}}) {
        start_as(KvConnector::kVllmNixl, answer(prefilled(kParams)), c.decode);
        const auto handoff = handoff_of(1);
        ASSERT_TRUE(handoff);
        const auto end = end_of(decode(2, handoff));
        EXPECT_EQ(end.finish, FinishReason::kError);
        ASSERT_TRUE(end.error);
        EXPECT_EQ(end.error->code, c.code) << end.error->message;
        TearDown();
        sink_ = std::make_shared<Collector>();
    }
}

TEST_F(HttpEngineLegsTest, AHandoffOfNoUseIsComputedAgain) {
    start_as(KvConnector::kVllmNixl, answer(prefilled(kParams)), streams());
    const auto handoff = handoff_of(1);
    ASSERT_TRUE(handoff);
    std::uint64_t id = 10;
    for (const auto& useless :
         {std::shared_ptr<const Handoff>{}, but(handoff, [](Handoff& h) { h.object.clear(); }),
          but(handoff, [](Handoff& h) { h.object = R"({"do_remote_prefill":true})"; }),
          but(handoff, [](Handoff& h) { h.object = "{}}"; }),
          but(handoff, [](Handoff& h) { h.layout = "vllm/nixl/1.2.4"; }),
          but(handoff, [](Handoff& h) { h.expires = Deadline::at(Clock::real().now()); })}) {
        EXPECT_EQ(end_of(decode(++id, useless)).finish, FinishReason::kLength);
        EXPECT_THAT(decode_body(), Not(HasSubstr("transfer")));
    }
    EXPECT_EQ(end_of(decode(++id, handoff)).finish, FinishReason::kLength);
    EXPECT_THAT(decode_body(), HasSubstr("remote_engine_id"));
}

TEST_F(HttpEngineLegsTest, CancellingAPrefillLegLeavesTheEngine) {
    start_as(KvConnector::kVllmNixl, hangs(&left_), streams());
    ASSERT_TRUE(engine_->submit(prefill(1), sink_));
    ASSERT_TRUE(eventually([&] { return !prefill_body().empty(); }));
    engine_->cancel(RequestId(1));
    EXPECT_EQ(sink_->wait_end(1).events.back().finish, FinishReason::kCancelled);
    EXPECT_TRUE(eventually([&] { return left_ == 1; }));
    auto r = prefill(2);
    r.deadline = Deadline::after(Clock::real().now(), 30ms);
    EXPECT_EQ(end_of(r).finish, FinishReason::kCancelled);
}

TEST_F(HttpEngineLegsTest, AnEarlyHandoffThatNobodyTakesIsGivenUp) {
    start_as(KvConnector::kSglang, hangs(&left_), hangs());
    const auto first = handoff_of(1);
    const auto second = handoff_of(2);
    ASSERT_TRUE(first && second);
    EXPECT_NE(first->id, second->id);
    engine_->cancel(RequestId(1));  // has ended
    engine_->release(first);
    EXPECT_TRUE(eventually([&] { return left_ == 1; }));
    EXPECT_TRUE(eventually([&] { return engine_->load().running == 1; }));
    engine_->release(first);
    engine_->release(but(first, [](Handoff& h) { h.id.fill(9); }));
    // What is left ends with the engine.
    engine_->stop(Deadline::after(Clock::real().now(), 20ms));
    EXPECT_TRUE(eventually([&] { return left_ == 2; }));
}

TEST_F(HttpEngineLegsTest, KvThatIsNotComingIsNotWaitedFor) {
    HttpEngineOptions options;
    options.early_wait = 50ms;
    start_as(KvConnector::kSglang, hangs(), hangs(&left_), std::move(options));
    const auto handoff = handoff_of(1);
    ASSERT_TRUE(handoff);
    const auto end = end_of(decode(2, handoff));
    EXPECT_EQ(end.finish, FinishReason::kError);
    EXPECT_EQ(end.error->code, ErrorCode::kInternal) << "computed again, and by one alone";
    EXPECT_THAT(end.error->message, HasSubstr("50 ms"));
    EXPECT_TRUE(eventually([&] { return left_ == 1; }));
    EXPECT_TRUE(eventually([&] { return engine_->load().running == 0; }))
        << "nor does the other one wait for ever";
}

TEST_F(HttpEngineLegsTest, APromptThatFailsLaterIsTold) {
    start_as(KvConnector::kSglang, answer("", "500 Internal Server Error"), hangs());
    ASSERT_TRUE(handoff_of(1)) << "it does not wait for the engine";
    const auto lost = sink_->wait_lost(1);
    ASSERT_TRUE(lost);
    EXPECT_EQ(lost->code, ErrorCode::kInternal);
    EXPECT_TRUE(eventually([&] { return engine_->load().running == 0; }));
}

TEST_F(HttpEngineLegsTest, OneThatComputesNoPromptsSaysSo) {
    HttpEngineOptions options;
    options.decodes_only = true;
    start_as(KvConnector::kVllmNixl, answer(prefilled(kParams)), streams(), std::move(options));
    const auto handoff = handoff_of(1);
    ASSERT_TRUE(handoff);
    EXPECT_EQ(end_of(decode(2, handoff)).finish, FinishReason::kLength);
    EXPECT_EQ(engine_->submit(decode(3, nullptr), sink_).error().code, ErrorCode::kUnavailable);
    const auto whole = engine_->submit(request(4), sink_);
    ASSERT_FALSE(whole);
    EXPECT_TRUE(whole.error().retryable);
}

TEST_F(HttpEngineLegsTest, LegsThatItCantDoAreRefused) {
    start_as(KvConnector::kNone, streams(), streams());
    EXPECT_EQ(engine_->submit(prefill(1), sink_).error().code, ErrorCode::kUnsupported);
    auto r = request(2);
    r.leg = Leg::kEncode;
    EXPECT_EQ(engine_->submit(r, sink_).error().code, ErrorCode::kUnsupported);
    r = request(3);
    r.media.emplace_back();
    EXPECT_EQ(engine_->submit(r, sink_).error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(engine_->info().kv_method, "");
    // Nobody has said where it is to be met.
    HttpEngineOptions options;
    options.url = net::parse_http_url(server_->url()).value();
    options.dialect = {.dialect = Dialect::kSglang, .model = "m"};
    options.dialect.connector = KvConnector::kSglang;
    options.info.max_running = 1;
    const auto lost = make_http_engine(std::move(options)).value();
    EXPECT_EQ(lost->info().kv_layout, "sglang/bootstrap");
    EXPECT_FALSE(lost->submit(prefill(4), sink_));
    EXPECT_EQ(lost->load().running, 0U);
}

// ---- what legs make of it

/// Takes a request through its legs as a pool would, every one of them on this engine.
class LifeOverHttp : public HttpEngineLegsTest {
  protected:
    struct Lived {
        std::vector<Leg> legs;
        std::vector<protocol::TokenId> tokens;
        protocol::StepEvent end;
        std::size_t released = 0;
    };
    Lived live(std::uint32_t moves = 3) {
        Lived out;
        legs::RequestLife life(request(100), moves);
        std::uint64_t id = 100;
        while (true) {
            Leg leg = Leg::kDecode;
            if (life.next_step(Clock::real().now()) == legs::RequestLife::Step::kPrompt) {
                leg = life.may_split() && !out.legs.empty() && out.legs.back() == Leg::kDecode
                          ? Leg::kWhole
                      : life.may_split() ? Leg::kPrefill
                                         : Leg::kWhole;
            }
            out.legs.push_back(leg);
            auto r = *life.next_request(leg);
            r.id = RequestId(++id);
            if (auto sent = engine_->submit(r, sink_); !sent) {
                ADD_FAILURE() << sent.error().message;
                return out;
            }
            const auto seen = sink_->wait_end(id);
            std::vector<protocol::TokenOutput> all;
            for (const auto token : seen.tokens) all.push_back({.token = token});
            auto event = seen.events.back();
            const auto taken = life.take(event, all);
            for (auto& handoff : life.take_releases()) {
                engine_->release(std::move(handoff));
                ++out.released;
            }
            if (taken == legs::RequestLife::Taken::kPassOn) {
                out.tokens = seen.tokens;
                out.end = std::move(event);
                return out;
            }
            if (taken != legs::RequestLife::Taken::kLost) continue;
            if (auto over = life.lost(*event.error)) {
                out.end = std::move(*over);
                return out;
            }
            for (auto& handoff : life.take_releases()) {
                engine_->release(std::move(handoff));
                ++out.released;
            }
        }
    }
};

TEST_F(LifeOverHttp, TwoLegs) {
    start_as(KvConnector::kVllmNixl, answer(prefilled(kParams)), streams());
    const auto lived = live();
    EXPECT_THAT(lived.legs, ElementsAre(Leg::kPrefill, Leg::kDecode));
    EXPECT_THAT(lived.tokens, ElementsAre(10, 11));
    EXPECT_EQ(lived.end.finish, FinishReason::kLength);
    EXPECT_EQ(lived.end.cached_tokens, 2U) << "of who computed the prompt";
    EXPECT_EQ(lived.released, 0U);
}

TEST_F(LifeOverHttp, AFailedPromptIsComputedByWhoGenerates) {
    start_as(KvConnector::kVllmNixl, answer("", "500 Internal Server Error"), streams());
    const auto lived = live();
    EXPECT_THAT(lived.legs, ElementsAre(Leg::kPrefill, Leg::kWhole));
    EXPECT_THAT(lived.tokens, ElementsAre(10, 11));
}

TEST_F(LifeOverHttp, AnObjectWithoutItsKeysNeverReachesAnEngine) {
    start_as(KvConnector::kVllmNixl, answer(prefilled(R"({"do_remote_prefill":true})")), streams());
    const auto lived = live();
    EXPECT_THAT(lived.legs, ElementsAre(Leg::kPrefill, Leg::kWhole));
    EXPECT_THAT(lived.tokens, ElementsAre(10, 11));
    EXPECT_THAT(decode_body(), Not(HasSubstr("transfer")));
}

TEST_F(LifeOverHttp, ADecodeEngineThatCantLoadTheKvComputesIt) {
    start_as(KvConnector::kVllmNixl, answer(prefilled(kParams)),
             [](ScriptedConnection& c, const std::string& body) {
                 if (body.find("remote_engine_id") != std::string::npos) {
                     c.answer("", "500 Internal Server Error");
                     return;
                 }
                 streams()(c, body);
             });
    const auto lived = live();
    EXPECT_THAT(lived.legs, ElementsAre(Leg::kPrefill, Leg::kDecode, Leg::kWhole));
    EXPECT_THAT(lived.tokens, ElementsAre(10, 11));
    EXPECT_EQ(lived.released, 1U);
}

TEST_F(LifeOverHttp, AnEarlyPromptThatFailsIsComputedAgainAndNobodyHangs) {
    HttpEngineOptions options;
    options.early_wait = 100ms;
    start_as(
        KvConnector::kSglang, answer("", "500 Internal Server Error"),
        [](ScriptedConnection& c, const std::string& body) {
            if (body.find("bootstrap_room") != std::string::npos) return c.await_end();
            c.send(
                kStreamHead +
                chunk(
                    R"({"output_ids":[10,11],"meta_info":{"completion_tokens":2,"prompt_tokens":4,)"
                    R"("finish_reason":{"type":"length"}}})") +
                chunk("[DONE]") + "0\r\n\r\n");
        },
        std::move(options));
    const auto lived = live();
    EXPECT_THAT(lived.legs, ElementsAre(Leg::kPrefill, Leg::kDecode, Leg::kWhole));
    EXPECT_THAT(lived.tokens, ElementsAre(10, 11));
    EXPECT_EQ(lived.released, 1U);
    EXPECT_TRUE(eventually([&] { return engine_->load().running == 0; }));
}

}  // namespace
}  // namespace stator::engine
