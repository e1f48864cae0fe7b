#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "stator/codec/sse.h"
#include "stator/engine/dialects/answer_reader.h"
#include "stator/engine/dialects/engine_error.h"
#include "stator/engine/dialects/request_body.h"

namespace stator::engine {
namespace {

using codec::JsonView;
using protocol::FinishReason;
using protocol::GenerateRequest;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string recorded(const std::string& name) {
    const char* folder = std::getenv("STATOR_DATA");
    if (folder == nullptr || *folder == 0) return {};
    std::ifstream in(std::filesystem::path(folder) / "fixtures" / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

struct Answer {
    int status = 0;
    std::string body;
};

/// The recorded bytes of an answer, its chunks joined.
Answer recorded_answer(const std::string& name) {
    const std::string text = recorded(name + ".response.http");
    Answer out;
    const std::size_t head = text.find("\r\n\r\n");
    if (head == std::string::npos) return out;
    out.status = std::stoi(text.substr(9, 3));
    std::string_view body = std::string_view(text).substr(head + 4);
    if (text.substr(0, head).find("transfer-encoding: chunked") == std::string::npos) {
        out.body = body;
        return out;
    }
    while (true) {
        const std::size_t line = body.find("\r\n");
        const std::size_t n = std::stoul(std::string(body.substr(0, line)), nullptr, 16);
        if (n == 0) return out;
        out.body += body.substr(line + 2, n);
        body.remove_prefix(line + 2 + n + 2);
    }
}

struct Whole {
    std::vector<protocol::TokenId> tokens;
    std::vector<float> logprobs;
    std::vector<protocol::TokenLogprob> top;
    std::optional<FinishReason> finish;
    std::optional<Error> error;
    std::uint32_t prompt_tokens = 0;
    std::uint32_t cached_tokens = 0;
    std::size_t pieces = 0;  ///< with tokens
};

/// Reads a stream to its end, `step` bytes at a time.
Whole read_stream(Dialect dialect, const std::string& body, bool logprobs,
                  std::size_t step = 4096) {
    Whole out;
    AnswerReader reader(dialect, logprobs);
    codec::SseReader events;
    AnswerReader::Piece piece;
    const auto add = [&] {
        if (!piece.tokens.empty()) ++out.pieces;
        for (const auto& t : piece.tokens) {
            out.tokens.push_back(t.token);
            out.logprobs.push_back(t.logprob);
            for (std::uint32_t i = 0; i < t.top_count; ++i)
                out.top.push_back(piece.top.at(t.top_first + i));
        }
        if (piece.prompt_tokens != 0) out.prompt_tokens = piece.prompt_tokens;
        if (piece.cached_tokens != 0) out.cached_tokens = piece.cached_tokens;
        if (piece.finish) {
            EXPECT_FALSE(out.finish) << "one end";
            out.finish = piece.finish;
            out.error = piece.error;
        }
    };
    for (std::size_t at = 0; at < body.size(); at += step) {
        EXPECT_TRUE(events.feed(std::string_view(body).substr(at, step)));
        while (const auto event = events.next()) {
            const auto ok = reader.take(event->data, piece);
            EXPECT_TRUE(ok) << ok.error().message;
            add();
        }
    }
    if (auto ok = reader.end(piece); ok) {
        add();
    } else {
        EXPECT_FALSE(out.finish);
        out.error = ok.error();
    }
    return out;
}

TEST(Dialects, RecordedVllmStreams) {
    const auto whole = recorded_answer("vllm032_http/completions_ids");
    if (whole.body.empty()) GTEST_SKIP() << "STATOR_DATA has no recordings of engines";
    const auto expected = ElementsAre(285, 455, 28, 302, 160, 491, 160, 452);
    struct Case {
        const char* name;
        Dialect dialect;
        bool logprobs;
    };
    for (const Case c :
         {Case{"vllm032_http/generate_stream", Dialect::kVllmGenerate, true},
          Case{"vllm032_http/completions_ids_stream", Dialect::kVllmCompletions, false},
          Case{"vllm014_http/completions_ids_stream", Dialect::kVllmCompletions, false}}) {
        const auto answer = recorded_answer(c.name);
        ASSERT_EQ(answer.status, 200) << c.name;
        for (const std::size_t step : {std::size_t{1}, std::size_t{17}, std::size_t{100'000}}) {
            const auto got = read_stream(c.dialect, answer.body, c.logprobs, step);
            EXPECT_THAT(got.tokens, expected) << c.name;
            EXPECT_EQ(got.pieces, 8U) << c.name;
            EXPECT_EQ(got.finish, FinishReason::kLength) << c.name;
            EXPECT_EQ(got.prompt_tokens, 100U) << c.name;
            EXPECT_FALSE(got.error);
            if (!c.logprobs) continue;
            EXPECT_LT(got.logprobs.front(), 0.0F) << c.name;
            ASSERT_GE(got.top.size(), 8U) << c.name;
            EXPECT_EQ(got.top.back().token, 452U) << c.name;
            EXPECT_EQ(got.top.back().logprob, got.logprobs.back()) << c.name;
        }
    }
}

std::string data(const std::string& json) { return "data: " + json + "\n\n"; }

TEST(Dialects, VllmsCompletionsNameTokensOfLogprobsByIdWhenAsked) {
    const auto stream =
        data(
            R"({"choices":[{"token_ids":[5],"finish_reason":null,"logprobs":{"tokens":["token_id:5"],"token_logprobs":[-0.5],"top_logprobs":[{"token_id:5":-0.5,"token_id:9":-1.5}]}}]})") +
        data(
            R"({"choices":[{"token_ids":[6],"finish_reason":"stop","logprobs":{"tokens":["token_id:6"],"token_logprobs":[-0.25],"top_logprobs":[{"token_id:6":-0.25}]}}]})") +
        data(
            R"({"choices":[],"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":8}}})") +
        data("[DONE]");
    const auto got = read_stream(Dialect::kVllmCompletions, stream, true);
    EXPECT_THAT(got.tokens, ElementsAre(5, 6));
    EXPECT_THAT(got.logprobs, ElementsAre(-0.5F, -0.25F));
    ASSERT_EQ(got.top.size(), 3U);
    EXPECT_EQ(got.top[1].token, 9U);
    EXPECT_EQ(got.finish, FinishReason::kStop);
    EXPECT_EQ(got.cached_tokens, 8U);
    // By text they could be anybody's.
    AnswerReader reader(Dialect::kVllmCompletions, true);
    AnswerReader::Piece piece;
    const auto bad = reader.take(
        R"({"choices":[{"token_ids":[5],"logprobs":{"token_logprobs":[0],"top_logprobs":[{" a":0}]}}]})",
        piece);
    ASSERT_FALSE(bad);
    EXPECT_EQ(bad.error().code, ErrorCode::kDataLoss);
}

TEST(Dialects, SglangsIdsAreAllOrTheNewOnes) {
    const auto item = [](const char* ids, int so_far, const char* finish, const char* more = "") {
        return data(fmt::format(
            R"({{"output_ids":{},"meta_info":{{"prompt_tokens":7,"cached_tokens":4,"completion_tokens":{},"finish_reason":{}{}}}}})",
            ids, so_far, finish, more));
    };
    const auto cumulative = item("[1]", 1, "null") + item("[1,2,3]", 3, "null") +
                            item("[1,2,3,4]", 4, R"({"type":"length","length":4})") +
                            data("[DONE]");
    const auto fresh = item("[1]", 1, "null") + item("[2,3]", 3, "null") +
                       item("[4]", 4, R"({"type":"stop","matched":2})") + data("[DONE]");
    for (const auto& stream : {cumulative, fresh}) {
        const auto got = read_stream(Dialect::kSglang, stream, false);
        EXPECT_THAT(got.tokens, ElementsAre(1, 2, 3, 4));
        EXPECT_EQ(got.pieces, 3U);
        EXPECT_TRUE(got.finish == FinishReason::kLength || got.finish == FinishReason::kStop);
        EXPECT_EQ(got.prompt_tokens, 7U);
        EXPECT_EQ(got.cached_tokens, 4U);
    }
    const auto with_logprobs =
        item(
            "[1]", 1, "null",
            R"(,"output_token_logprobs":[[-0.5,1,null]],"output_top_logprobs":[[[-0.5,1,null],[-1,8,null]]])") +
        item(
            "[1,2]", 2, R"({"type":"stop"})",
            R"(,"output_token_logprobs":[[-0.5,1,null],[-0.25,2,null]],"output_top_logprobs":[[[-0.5,1,null],[-1,8,null]],[[-0.25,2,null]]])");
    const auto got = read_stream(Dialect::kSglang, with_logprobs, true);
    EXPECT_THAT(got.logprobs, ElementsAre(-0.5F, -0.25F));
    ASSERT_EQ(got.top.size(), 3U);
    EXPECT_EQ(got.top[2].token, 2U);
    // An abort of the engine's own is an error with its status.
    const auto aborted = read_stream(
        Dialect::kSglang,
        item("[]", 0, R"({"type":"abort","message":"the queue is full","status_code":503})"),
        false);
    EXPECT_EQ(aborted.finish, FinishReason::kError);
    EXPECT_EQ(aborted.error->code, ErrorCode::kUnavailable);
    EXPECT_EQ(aborted.error->message, "the queue is full");
}

TEST(Dialects, TensorRtLlmsStream) {
    const auto stream =
        data(R"({"choices":[{"index":0,"text":"a","token_ids":[5],"finish_reason":null}]})") +
        data(R"({"choices":[{"index":0,"text":"b","token_ids":[6,7],"finish_reason":"length"}]})") +
        data(R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":3}})") +
        data("[DONE]");
    const auto got = read_stream(Dialect::kTrtllm, stream, false);
    EXPECT_THAT(got.tokens, ElementsAre(5, 6, 7));
    EXPECT_EQ(got.finish, FinishReason::kLength);
    EXPECT_EQ(got.prompt_tokens, 3U);
}

TEST(Dialects, AnErrorInMidStreamEndsIt) {
    const auto stream =
        data(R"({"choices":[{"token_ids":[5]}]})") +
        data(R"({"error":{"message":"EngineCore died","type":"InternalServerError","code":500}})") +
        data(R"({"choices":[{"token_ids":[6]}]})");
    const auto got = read_stream(Dialect::kVllmCompletions, stream, false);
    EXPECT_THAT(got.tokens, ElementsAre(5));
    EXPECT_EQ(got.finish, FinishReason::kError);
    EXPECT_EQ(got.error->message, "EngineCore died");
    EXPECT_EQ(got.error->code, ErrorCode::kInternal);
}

TEST(Dialects, AStreamThatBreaksOffIsALossAndOneWithoutDoneAnEnd) {
    const auto cut =
        read_stream(Dialect::kVllmCompletions, data(R"({"choices":[{"token_ids":[5]}]})"), false);
    EXPECT_FALSE(cut.finish);
    EXPECT_EQ(cut.error->code, ErrorCode::kUnavailable);
    EXPECT_THAT(cut.error->message, HasSubstr("1 tokens"));
    const auto ended =
        read_stream(Dialect::kVllmCompletions,
                    data(R"({"choices":[{"token_ids":[5],"finish_reason":"length"}]})"), false);
    EXPECT_EQ(ended.finish, FinishReason::kLength);
    EXPECT_THAT(ended.tokens, ElementsAre(5));
}

TEST(Dialects, WhatNoEngineSaysIsNoAnswer) {
    for (const char* text :
         {"{", "[]", "7", R"({"choices":7})", R"({"choices":[{},{}]})",
          R"({"choices":[{"token_ids":[-1]}]})", R"({"choices":[{"token_ids":[4294967295]}]})",
          R"({"choices":[{"token_ids":"x"}]})", R"({"choices":[{"finish_reason":"tired"}]})"}) {
        AnswerReader reader(Dialect::kVllmGenerate, false);
        AnswerReader::Piece piece;
        const auto bad = reader.take(text, piece);
        ASSERT_FALSE(bad) << text;
        EXPECT_EQ(bad.error().code, ErrorCode::kDataLoss);
        EXPECT_THAT(piece.tokens, IsEmpty());
    }
    for (const char* text :
         {R"({"output_ids":[1]})", R"({"output_ids":[1,2],"meta_info":{"completion_tokens":1}})"}) {
        AnswerReader reader(Dialect::kSglang, false);
        AnswerReader::Piece piece;
        EXPECT_FALSE(reader.take(text, piece)) << text;
    }
    AnswerReader reader(Dialect::kVllmGenerate, false);
    AnswerReader::Piece piece;
    EXPECT_FALSE(reader.take("[DONE]", piece));
}

// ---- requests

GenerateRequest full_request() {
    GenerateRequest r;
    r.prompt = {1, 2, 3};
    r.max_tokens = 9;
    r.min_tokens = 2;
    r.ignore_eos = true;
    r.stop_token_ids = {50, 51};
    r.top_logprobs = 2;
    r.cache_salt = 77;
    r.priority = 3;
    r.sampling = {.temperature = 0.7F,
                  .top_p = 0.9F,
                  .top_k = 40,
                  .min_p = 0.05F,
                  .frequency_penalty = 0.1F,
                  .presence_penalty = -0.2F,
                  .repetition_penalty = 1.1F,
                  .seed = UINT64_MAX,
                  .logit_bias = {{7, -1.5F}}};
    return r;
}

class Body {
  public:
    Body(Dialect dialect, const GenerateRequest& r, bool guided = false) {
        result = append_request_body(
            text, r,
            {.dialect = dialect, .model = "m", .guided_fields = guided, .priorities = true},
            "req-1");
        if (!result) return;
        const auto parsed = document_.parse(text);
        EXPECT_TRUE(parsed) << text;
        root = *parsed;
    }
    std::string text;
    Result<void> result;
    JsonView root;

  private:
    codec::JsonDocument document_;
};

std::string json(JsonView v) {
    std::string out;
    if (v.present()) v.write_to(out);
    return out;
}

TEST(Dialects, VllmGenerateBody) {
    const Body b(Dialect::kVllmGenerate, full_request());
    EXPECT_EQ(
        b.text,
        R"({"model":"m","token_ids":[1,2,3],"sampling_params":{"temperature":0.7,"top_p":0.9,"top_k":40,"min_p":0.05,"frequency_penalty":0.1,"presence_penalty":-0.2,"repetition_penalty":1.1,"seed":9223372036854775807,"max_tokens":9,"min_tokens":2,"ignore_eos":true,"stop_token_ids":[50,51],"logit_bias":{"7":-1.5},"logprobs":2},"cache_salt":"77","priority":-3,"request_id":"req-1","stream":true,"stream_options":{"include_usage":true}})");
}

TEST(Dialects, AdaptersAreNamedInEachEnginesWords) {
    auto request = full_request();
    request.adapter = "fr";
    EXPECT_EQ(Body(Dialect::kVllmGenerate, request).root.find("model").as_string(), "fr");
    EXPECT_EQ(Body(Dialect::kVllmCompletions, request).root.find("model").as_string(), "fr");
    EXPECT_EQ(Body(Dialect::kSglang, request).root.find("lora_path").as_string(), "fr");
    request.cache_salt = 0;
    request.top_logprobs = -1;
    EXPECT_EQ(Body(Dialect::kTrtllm, request).result.error().code, ErrorCode::kUnsupported);
}

TEST(Dialects, AnEngineIsAskedToNameWhatItHasAgain) {
    for (const auto& [dialect, connector, expected] :
         {std::tuple(Dialect::kVllmGenerate, KvConnector::kNone,
                     R"("extra_args":{"kv_cache_report_mode":"full"})"),
          std::tuple(Dialect::kVllmGenerate, KvConnector::kVllmNixl,
                     R"("extra_args":{"kv_cache_report_mode":"full","kv_transfer_params":{)"),
          std::tuple(Dialect::kVllmCompletions, KvConnector::kNone,
                     R"("vllm_xargs":{"kv_cache_report_mode":"full"})")}) {
        auto request = full_request();
        if (connector != KvConnector::kNone) request.leg = protocol::Leg::kPrefill;
        DialectOptions options{.dialect = dialect, .model = "m"};
        options.report_full = true;
        options.connector = connector;
        std::string out;
        ASSERT_TRUE(append_request_body(out, request, options, "n"));
        EXPECT_THAT(out, testing::HasSubstr(expected));
        codec::JsonDocument document;
        EXPECT_TRUE(document.parse(out)) << out;
    }
}

TEST(Dialects, VllmsFieldsAreThoseItHas) {
    for (const char* version : {"vllm032", "vllm014"}) {
        const auto text = recorded(std::string(version) + "_request_fields.json");
        if (text.empty()) GTEST_SKIP() << "STATOR_DATA has no recordings of engines";
        codec::JsonDocument document;
        const auto known = document.parse(text);
        ASSERT_TRUE(known);
        for (const auto& [dialect, type] :
             {std::pair(Dialect::kVllmGenerate, "GenerateRequest"),
              std::pair(Dialect::kVllmCompletions, "CompletionRequest")}) {
            auto request = full_request();
            request.constraint = std::make_shared<protocol::OutputConstraint>();
            const Body b(dialect, request);
            const JsonView fields = known->find(type);
            b.root.each_member([&](std::string_view name, JsonView) {
                bool found = false;
                fields.each_element([&](std::size_t, JsonView f) {
                    found = found || f.as_string() == name;
                    return true;
                });
                fields.each_member([&](std::string_view f, JsonView) {
                    found = found || f == name;
                    return true;
                });
                EXPECT_TRUE(found) << version << " " << type << " has no " << name;
                return true;
            });
        }
    }
}

TEST(Dialects, CompletionsAskForIds) {
    const Body b(Dialect::kVllmCompletions, full_request());
    EXPECT_EQ(json(b.root.find("prompt")), "[1,2,3]");
    EXPECT_EQ(json(b.root.find("return_token_ids")), "true");
    EXPECT_EQ(json(b.root.find("return_tokens_as_token_ids")), "true");
    EXPECT_EQ(json(b.root.find("logprobs")), "2");
    const Body plain(Dialect::kVllmCompletions, [] {
        GenerateRequest r;
        r.prompt = {4};
        return r;
    }());
    EXPECT_EQ(
        plain.text,
        R"({"model":"m","prompt":[4],"temperature":1,"max_tokens":16,"return_token_ids":true,"request_id":"req-1","stream":true,"stream_options":{"include_usage":true}})");
}

TEST(Dialects, SglangBody) {
    auto r = full_request();
    r.constraint = std::make_shared<protocol::OutputConstraint>(
        protocol::OutputConstraint{.kind = protocol::OutputConstraint::Kind::kJsonSchema,
                                   .text = R"({"type":"integer"})",
                                   .after = {}});
    const Body b(Dialect::kSglang, r);
    EXPECT_EQ(
        b.text,
        R"({"input_ids":[1,2,3],"sampling_params":{"temperature":0.7,"top_p":0.9,"top_k":40,"min_p":0.05,"frequency_penalty":0.1,"presence_penalty":-0.2,"repetition_penalty":1.1,"sampling_seed":9223372036854775807,"max_new_tokens":9,"min_new_tokens":2,"ignore_eos":true,"stop_token_ids":[50,51],"logit_bias":{"7":-1.5},"json_schema":"{\"type\":\"integer\"}"},"return_logprob":true,"top_logprobs_num":2,"cache_salt":"77","priority":3,"rid":"req-1","stream":true})");
}

TEST(Dialects, ConstraintsInEachEnginesWords) {
    using Kind = protocol::OutputConstraint::Kind;
    const auto with = [](Kind kind, std::string text, std::string after = {}) {
        GenerateRequest r;
        r.prompt = {1};
        r.constraint = std::make_shared<protocol::OutputConstraint>(protocol::OutputConstraint{
            .kind = kind, .text = std::move(text), .after = std::move(after)});
        return r;
    };
    const auto vllm = [&](Kind kind, const char* text, bool guided) {
        const Body b(Dialect::kVllmCompletions, with(kind, text), guided);
        EXPECT_TRUE(b.result);
        return guided ? json(b.root.find("guided_json")) + json(b.root.find("guided_regex")) +
                            json(b.root.find("guided_choice")) + json(b.root.find("guided_grammar"))
                      : json(b.root.find("structured_outputs"));
    };
    EXPECT_EQ(vllm(Kind::kJsonObject, "", false), R"({"json_object":true})");
    EXPECT_EQ(vllm(Kind::kJsonSchema, R"({"a":1})", false), R"({"json":{"a":1}})");
    EXPECT_EQ(vllm(Kind::kRegex, "a\"b", false), R"({"regex":"a\"b"})");
    EXPECT_EQ(vllm(Kind::kChoice, R"(["x","y"])", false), R"({"choice":["x","y"]})");
    EXPECT_EQ(vllm(Kind::kLark, "start: \"a\"", false), R"({"grammar":"start: \"a\""})");
    EXPECT_EQ(vllm(Kind::kJsonObject, "", true), R"({"type":"object"})");
    EXPECT_EQ(vllm(Kind::kChoice, R"(["x"])", true), R"(["x"])");
    for (const auto dialect : {Dialect::kVllmGenerate, Dialect::kSglang, Dialect::kTrtllm}) {
        std::string out = "kept";
        const auto no = append_request_body(out, with(Kind::kJsonObject, "", "</think>"),
                                            {.dialect = dialect, .model = "m"}, "r");
        ASSERT_FALSE(no);
        EXPECT_EQ(no.error().code, ErrorCode::kUnsupported);
        EXPECT_EQ(out, "kept");
    }
    EXPECT_FALSE(Body(Dialect::kSglang, with(Kind::kLark, "start: \"a\"")).result);
    EXPECT_FALSE(Body(Dialect::kTrtllm, with(Kind::kChoice, "[]")).result);
    EXPECT_EQ(
        json(Body(Dialect::kTrtllm, with(Kind::kJsonSchema, "{}")).root.find("response_format")),
        R"({"type":"json","schema":{}})");
}

TEST(Dialects, TensorRtLlmGetsNoFieldTooMuch) {
    auto r = full_request();
    EXPECT_FALSE(Body(Dialect::kTrtllm, r).result) << "log probabilities";
    r.top_logprobs = -1;
    EXPECT_FALSE(Body(Dialect::kTrtllm, r).result) << "a salt";
    r.cache_salt = 0;
    const Body b(Dialect::kTrtllm, r);
    EXPECT_EQ(
        b.text,
        R"({"model":"m","prompt":[1,2,3],"temperature":0.7,"top_p":0.9,"top_k":40,"min_p":0.05,"frequency_penalty":0.1,"presence_penalty":-0.2,"repetition_penalty":1.1,"seed":9223372036854775807,"max_tokens":9,"min_tokens":2,"ignore_eos":true,"stop_token_ids":[50,51],"logit_bias":{"7":-1.5},"stream":true,"stream_options":{"include_usage":true}})");
}

// ---- errors

TEST(Dialects, RecordedErrors) {
    const auto too_long = recorded_answer("vllm032_http/err_too_long");
    if (too_long.body.empty()) GTEST_SKIP() << "STATOR_DATA has no recordings of engines";
    const auto e = engine_error(too_long.status, too_long.body);
    EXPECT_EQ(e.code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(e.message, HasSubstr("maximum context length is 1024 tokens"));
    EXPECT_EQ(e.param, "input_tokens");
    EXPECT_FALSE(e.retryable);
    const auto model = recorded_answer("vllm032_http/err_unknown_model");
    EXPECT_EQ(engine_error(model.status, model.body).code, ErrorCode::kNotFound);
    const auto route = recorded_answer("vllm032_http/err_404");
    EXPECT_EQ(engine_error(route.status, route.body).message, "Not Found");
    const auto old = recorded_answer("vllm014_http/err_bad_token");
    EXPECT_THAT(engine_error(old.status, old.body).message, HasSubstr("99999"));
}

TEST(Dialects, ErrorsOfAllShapes) {
    EXPECT_EQ(engine_error(400, R"({"object":"error","message":"too long","code":400})").message,
              "too long");
    EXPECT_EQ(engine_error(422, R"({"detail":[{"loc":["body"],"msg":"x"}]})").message,
              R"([{"loc":["body"],"msg":"x"}])");
    EXPECT_EQ(engine_error(500, R"({"error":"plain"})").message, "plain");
    EXPECT_EQ(engine_error(500, "oops").message, "the engine answered with status 500: oops");
    EXPECT_EQ(engine_error(502, "\xff").message, "the engine answered with status 502");
    const auto full = engine_error(429, "{}", 7);
    EXPECT_EQ(full.code, ErrorCode::kOverloaded);
    EXPECT_TRUE(full.retryable);
    EXPECT_EQ(full.retry_after_ms, 7000U);
    const auto long_one =
        engine_error(400, R"({"error":{"message":")" + std::string(5000, 'x') + "\"}}");
    EXPECT_EQ(long_one.message.size(), 2048U);
}

RC_GTEST_PROP(Dialects, AnyTextIsAnAnswerOrAnError,
              (const std::vector<std::string>& events, bool logprobs)) {
    for (const auto dialect : {Dialect::kVllmGenerate, Dialect::kSglang}) {
        AnswerReader reader(dialect, logprobs);
        AnswerReader::Piece piece;
        for (const auto& e : events) {
            if (!reader.take(e, piece)) break;
        }
    }
}

}  // namespace
}  // namespace stator::engine
