#include "stator/engine/dialects/media_words.h"
#include "stator/engine/http/http_engine_fixture.h"
#include "stator/tokens/token.h"

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

constexpr std::string_view kRender = "POST /v1/chat/completions/render";
constexpr std::string_view kChat = "POST /v1/chat/completions ";

protocol::MediaItem picture(std::uint8_t name) {
    protocol::MediaItem item;
    item.digest.fill(name);
    auto c = std::make_shared<protocol::MediaContent>();
    c->width = c->height = 2;
    c->pixels.assign(12, static_cast<char>(name));
    item.content = std::move(c);
    return item;
}

std::string uuid(std::uint8_t name) { return media_uuid(picture(name).digest); }

/// "9 8 8 8 9", of which three stand for the item that is asked for.
std::string rendered(const std::string& request) {
    const auto at = request.find("\"uuid\":\"") + 8;
    const std::string name = request.substr(at, 64);
    return R"({"token_ids":[9,8,8,8,9],"features":{"mm_hashes":{"image":[")" + name +
           R"("]},"mm_placeholders":{"image":[{"offset":1,"length":3}]},"kwargs_data":{"image":["k)" +
           name.substr(0, 2) + R"("]}}})";
}

/// An engine that renders, encodes and generates as the test says; counts what it is asked.
class HttpEngineMediaTest : public HttpEngineTest {
  protected:
    void start_with(Generate render, Generate encode = {}, HttpEngineOptions options = {}) {
        if (options.dialect.dialect == Dialect::kVllmCompletions) {
            options.dialect.dialect = Dialect::kVllmGenerate;
        }
        options.info.max_running = 8;
        options.media.kinds = {"image"};
        options.media.placeholders = {8};
        options.media.around = {7, 8};
        start(
            [this, render = std::move(render), encode = std::move(encode)](
                ScriptedConnection& c, const std::string& body) {
                if (body.starts_with(kRender)) {
                    ++renders_;
                    return render(c, body);
                }
                if (body.starts_with(kChat)) {
                    ++encodes_;
                    return encode(c, body);
                }
                {
                    const std::scoped_lock lock(mutex_);
                    bodies_.push_back(body);
                }
                if (body.find(R"("stream":false)") != std::string::npos) {
                    c.answer(R"({"meta_info":{"prompt_tokens":6}})");
                } else if (body.starts_with("POST /generate")) {
                    c.send(kStreamHead +
                           chunk(R"({"output_ids":[10],"meta_info":{"finish_reason":)"
                                 R"({"type":"length"},"prompt_tokens":6,"completion_tokens":1}})") +
                           chunk("[DONE]") + "0\r\n\r\n");
                } else {
                    c.send(kStreamHead + tokens("[10]", "\"length\"") + usage(4, 0));
                }
            },
            std::move(options));
    }
    static Generate renders() {
        return [](ScriptedConnection& c, const std::string& r) { c.answer(rendered(r)); };
    }
    static Generate answers(std::string body, std::string status = "200 OK") {
        return [=](ScriptedConnection& c, const std::string&) { c.answer(body, status); };
    }
    protocol::StepEvent encode(std::uint64_t id, std::uint8_t name) {
        GenerateRequest r;
        r.id = RequestId(id);
        r.leg = Leg::kEncode;
        r.media = {picture(name)};
        auto sent = engine_->submit(r, sink_);
        EXPECT_TRUE(sent) << sent.error().message;
        return sink_->wait_end(id).events.back();
    }
    /// "1 2 <item> 3" for each.
    static GenerateRequest with(std::uint64_t id,
                                const std::vector<std::shared_ptr<const Handoff>>& items) {
        GenerateRequest r = request(id);
        r.prompt.clear();
        for (const auto& h : items) {
            r.prompt.insert(r.prompt.end(), {1, 2});
            protocol::MediaItem item = picture(h->content[0]);
            item.position = static_cast<std::uint32_t>(r.prompt.size());
            item.tokens = h->tokens;
            item.embeddings = h;
            for (std::uint32_t i = 0; i < h->tokens; ++i) {
                r.prompt.push_back(tokens::media_token(item.digest, i));
            }
            r.media.push_back(std::move(item));
        }
        r.prompt.push_back(3);
        return r;
    }
    std::string last_body() {
        const std::scoped_lock lock(mutex_);
        return bodies_.empty() ? std::string() : bodies_.back();
    }

    std::atomic<int> renders_{0};
    std::atomic<int> encodes_{0};
    std::atomic<int> left_{0};
    std::vector<std::string> bodies_;
};

TEST_F(HttpEngineMediaTest, AnItemIsRenderedOnceAndGoesBesideTheTokens) {
    start_with(renders());
    EXPECT_THAT(engine_->info().media, ElementsAre("image"));
    EXPECT_TRUE(engine_->info().media_objects);
    const auto end = encode(1, 0xA1);
    ASSERT_EQ(end.finish, FinishReason::kHandoff);
    const Handoff& h = *end.handoff;
    EXPECT_EQ(h.kind, Handoff::Kind::kEmbeddings);
    EXPECT_EQ(h.content, picture(0xA1).digest);
    EXPECT_EQ(h.tokens, 3U);
    EXPECT_EQ(h.bytes, 0U);
    EXPECT_LT(h.object.size(), 200U) << "what the model takes stays here";
    EXPECT_EQ(encode(2, 0xA1).finish, FinishReason::kHandoff);
    EXPECT_EQ(renders_, 1);

    const auto r = with(3, {end.handoff, end.handoff});
    ASSERT_TRUE(engine_->submit(r, sink_));
    EXPECT_THAT(sink_->wait_end(3).tokens, ElementsAre(10));
    EXPECT_EQ(renders_, 1);
    const std::string body = last_body();
    EXPECT_THAT(body, HasSubstr(R"("token_ids":[1,2,8,8,8,1,2,8,8,8,3])"));
    EXPECT_THAT(body, HasSubstr(R"("kwargs_data":{"image":["ka1","ka1"]})"));
    EXPECT_THAT(body, Not(HasSubstr("ec_transfer_params")));
    EXPECT_TRUE(eventually([&] { return engine_->load().running == 0; }));
}

TEST_F(HttpEngineMediaTest, WhatAnotherEdgeHasRenderedIsRenderedAgain) {
    start_with(renders());
    const auto handoff = encode(1, 0xA1).handoff;
    engine_.reset();
    server_.reset();
    renders_ = 0;
    start_with(renders());
    auto r = with(2, {handoff, handoff});
    ASSERT_TRUE(engine_->submit(r, sink_));
    EXPECT_THAT(sink_->wait_end(2).tokens, ElementsAre(10));
    EXPECT_EQ(renders_, 1) << "one picture in two places";
    // Without its pixels it is to be encoded again.
    engine_.reset();
    server_.reset();
    start_with(renders());
    r = with(3, {handoff});
    r.media[0].content = nullptr;
    const auto refused = engine_->submit(r, sink_);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
    EXPECT_EQ(refused.error().param, "media");
}

TEST_F(HttpEngineMediaTest, AnEncoderLeavesEmbeddingsUnderTheirName) {
    HttpEngineOptions options;
    options.media.encodes = true;
    start_with(renders(),
               answers(R"({"choices":[],"ec_transfer_params":{")" + uuid(0xA1) +
                       R"(":{"peer_port":5,"metadata":{"image_grid_thw":[1,4,6]}}}})"),
               std::move(options));
    const auto end = encode(1, 0xA1);
    ASSERT_EQ(end.finish, FinishReason::kHandoff);
    EXPECT_THAT(end.handoff->object, HasSubstr(R"("peer_port":5)"));
    EXPECT_EQ(encodes_, 1);
    EXPECT_EQ(encode(2, 0xA1).finish, FinishReason::kHandoff);
    EXPECT_EQ(renders_, 1);
    EXPECT_EQ(encodes_, 2) << "its store may have dropped it";
    EXPECT_EQ(engine_->submit(request(3), sink_).error().code, ErrorCode::kUnsupported);
    // Whoever computes the prompt is told.
    engine_.reset();
    server_.reset();
    start_with(renders());
    ASSERT_TRUE(engine_->submit(with(4, {end.handoff}), sink_));
    (void)sink_->wait_end(4);
    EXPECT_THAT(last_body(), HasSubstr(R"("extra_args":{"ec_transfer_params":{")" + uuid(0xA1) +
                                       R"(":{"peer_port":5)"));
}

TEST_F(HttpEngineMediaTest, AnEncoderThatFailsIsAnErrorThatMoves) {
    HttpEngineOptions options;
    options.media.encodes = true;
    start_with(renders(), answers(R"({"error":{"message":"no memory"}})", "500 Oops"),
               std::move(options));
    const auto end = encode(1, 0xA1);
    ASSERT_EQ(end.finish, FinishReason::kError);
    EXPECT_NE(end.error->code, ErrorCode::kInvalidArgument);
    EXPECT_TRUE(eventually([&] { return engine_->load().running == 0; }));
}

TEST_F(HttpEngineMediaTest, WhatTheEngineRefusesIsTheClients) {
    start_with(answers(R"({"error":{"message":"an odd picture","code":400}})", "400 Bad"));
    const auto end = encode(1, 0xA1);
    ASSERT_EQ(end.finish, FinishReason::kError);
    EXPECT_EQ(end.error->code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(end.error->message, HasSubstr("an odd picture"));
}

TEST_F(HttpEngineMediaTest, AnswersThatAreNoneAreNotUsed) {
    for (const char* bad : {"", "{}", R"({"token_ids":[1],"features":null})",
                            R"({"token_ids":[8],"features":{"mm_hashes":{"image":["other"]},)"
                            R"("mm_placeholders":{"image":[{"offset":0,"length":1}]}}})"}) {
        start_with(answers(bad));
        const auto end = encode(1, 0xA1);
        ASSERT_EQ(end.finish, FinishReason::kError) << bad;
        EXPECT_EQ(end.error->code, ErrorCode::kDataLoss) << bad;
        engine_.reset();
        server_.reset();
        sink_ = std::make_shared<Collector>();
    }
}

TEST_F(HttpEngineMediaTest, AnEncoderThatStallsIsGivenUp) {
    HttpEngineOptions options;
    options.media.within = 50ms;
    start_with(
        [this](ScriptedConnection& c, const std::string&) {
            c.await_end();
            ++left_;
        },
        {}, std::move(options));
    const auto end = encode(1, 0xA1);
    ASSERT_EQ(end.finish, FinishReason::kError);
    EXPECT_EQ(end.error->code, ErrorCode::kUnavailable);
    EXPECT_TRUE(eventually([&] { return left_ == 1; }));
}

TEST_F(HttpEngineMediaTest, CancellingEndsAllQuestions) {
    const auto hangs = [this](ScriptedConnection& c, const std::string&) {
        c.await_end();
        ++left_;
    };
    HttpEngineOptions options;
    options.media.encodes = true;
    start_with(hangs, hangs, std::move(options));
    GenerateRequest r;
    r.id = RequestId(1);
    r.leg = Leg::kEncode;
    r.media = {picture(0xA1)};
    ASSERT_TRUE(engine_->submit(r, sink_));
    ASSERT_TRUE(eventually([&] { return renders_ == 1 && encodes_ == 1; }));
    engine_->cancel(RequestId(1));
    EXPECT_EQ(sink_->wait_end(1).events.back().finish, FinishReason::kCancelled);
    EXPECT_TRUE(eventually([&] { return left_ == 2; }));
    EXPECT_TRUE(eventually([&] { return engine_->load().running == 0; }));
    // Stopping does the same.
    r.id = RequestId(2);
    ASSERT_TRUE(engine_->submit(r, sink_));
    ASSERT_TRUE(eventually([&] { return renders_ == 2; }));
    engine_->stop(Deadline::at({}));
    EXPECT_EQ(sink_->wait_end(2).events.back().finish, FinishReason::kCancelled);
}

TEST_F(HttpEngineMediaTest, ADecodeLegWithKvNeedsNoPixels) {
    HttpEngineOptions options;
    options.dialect.connector = KvConnector::kVllmNixl;
    options.info.kv_layout = "vllm/nixl/1.2.3";
    start_with(renders(), {}, std::move(options));
    const auto item = encode(1, 0xA1).handoff;
    auto r = with(2, {item});
    r.media[0].content = nullptr;
    r.leg = Leg::kDecode;
    auto kv = std::make_shared<Handoff>();
    kv->layout = "vllm/nixl/1.2.3";
    kv->object = R"({"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[4,5]],)"
                 R"("remote_engine_id":"e","remote_request_id":"r","remote_host":"h",)"
                 R"("remote_port":5600})";
    r.handoff = kv;
    ASSERT_TRUE(engine_->submit(r, sink_));
    EXPECT_THAT(sink_->wait_end(2).tokens, ElementsAre(10));
    EXPECT_THAT(last_body(), HasSubstr(R"("mm_hashes":{"image":[")" + uuid(0xA1)));
    EXPECT_THAT(last_body(), Not(HasSubstr("kwargs")));
}

TEST_F(HttpEngineMediaTest, SglangIsGivenThePicture) {
    HttpEngineOptions options;
    options.dialect.dialect = Dialect::kSglang;
    start_with({}, {}, std::move(options));
    const auto end = encode(1, 0xA1);
    ASSERT_EQ(end.finish, FinishReason::kHandoff);
    EXPECT_EQ(end.handoff->tokens, 5U) << "6 less the one around it";
    EXPECT_THAT(last_body(), HasSubstr(R"("input_ids":[7,8])"));
    EXPECT_EQ(encode(2, 0xB2).handoff->tokens, 5U) << "of one size";
    EXPECT_EQ(bodies_.size(), 1U);
    ASSERT_TRUE(engine_->submit(with(3, {end.handoff}), sink_));
    EXPECT_THAT(sink_->wait_end(3).tokens, ElementsAre(10));
    EXPECT_THAT(last_body(), HasSubstr(R"("input_ids":[1,2,8,3],"image_data":["data:image/png)"));
}

TEST_F(HttpEngineMediaTest, EnginesWithoutMediaRefuseThem) {
    start([](ScriptedConnection& c, const std::string&) { c.answer("{}"); });
    EXPECT_THAT(engine_->info().media, IsEmpty());
    GenerateRequest r;
    r.id = RequestId(1);
    r.leg = Leg::kEncode;
    r.media = {picture(1)};
    EXPECT_EQ(engine_->submit(r, sink_).error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace stator::engine
