#include "stator/frontend/answer_render.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "stator/codec/json.h"
#include "stator/codec/utf8.h"
#include "stator/frontend/logprobs_json.h"
#include "stator/text/byte_tokenizer.h"

namespace stator::frontend {
namespace {

const AnswerHead kHead{"id-1", 1700, "mo\"del"};

TEST(AnswerRender, ChatChunks) {
    const ChunkRenderer r(Api::kChat, kHead, false);
    std::string out;
    r.role(out, 0, {});
    EXPECT_EQ(
        out,
        R"(data: {"id":"id-1","object":"chat.completion.chunk","created":1700,"model":"mo\"del",)"
        R"("choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},)"
        R"("logprobs":null,)"
        "\"finish_reason\":null}]}\n\n");
    out.clear();
    ChunkPiece plain;
    plain.index = 12;
    plain.text = "a\"b\n";
    r.piece(out, plain);
    EXPECT_EQ(
        out,
        R"(data: {"id":"id-1","object":"chat.completion.chunk","created":1700,"model":"mo\"del",)"
        R"("choices":[{"index":12,"delta":{"content":"a\"b\n"},"logprobs":null,)"
        "\"finish_reason\":null}]}\n\n");
    out.clear();
    r.finish(out, 0, "stop");
    EXPECT_EQ(
        out,
        R"(data: {"id":"id-1","object":"chat.completion.chunk","created":1700,"model":"mo\"del",)"
        R"("choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]})"
        "\n\n");
}

TEST(AnswerRender, CompletionChunksWithEverything) {
    const ChunkRenderer r(Api::kCompletion, kHead, true);
    std::string out;
    r.role(out, 0, "[1]");
    EXPECT_EQ(out, "");
    ChunkPiece full;
    full.text = "x";
    full.logprobs_json = "{}";
    full.token_ids_json = "[7]";
    full.prompt_ids_json = "[1,2]";
    r.piece(out, full);
    EXPECT_EQ(out,
              R"(data: {"id":"id-1","object":"text_completion","created":1700,"model":"mo\"del",)"
              R"("choices":[{"index":0,"text":"x","logprobs":{},"finish_reason":null,)"
              R"("prompt_token_ids":[1,2],"token_ids":[7]}],"usage":null})"
              "\n\n");
    out.clear();
    r.usage(out, {10, 5, 4, std::nullopt});
    EXPECT_EQ(out,
              R"(data: {"id":"id-1","object":"text_completion","created":1700,"model":"mo\"del",)"
              R"("choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,)"
              R"("prompt_tokens_details":{"cached_tokens":4}}})"
              "\n\n");
}

TEST(AnswerRender, DeltasOfThinkingAndCalls) {
    const ChunkRenderer r(Api::kChat, {"i", 7, "m"}, false);
    const auto delta = [&](ChunkPiece piece) {
        std::string out;
        r.piece(out, piece);
        const std::string head =
            R"(data: {"id":"i","object":"chat.completion.chunk","created":7,"model":"m","choices":[{"index":2,"delta":)";
        const std::string tail = R"(,"logprobs":null,"finish_reason":null}]})"
                                 "\n\n";
        EXPECT_TRUE(out.starts_with(head) && out.ends_with(tail)) << out;
        return out.substr(head.size(), out.size() - head.size() - tail.size());
    };
    ChunkPiece piece;
    piece.index = 2;
    piece.kind = PieceKind::kReasoning;
    piece.text = "a \"b\"";
    EXPECT_EQ(delta(piece), R"({"reasoning_content":"a \"b\""})");
    piece.kind = PieceKind::kToolBegin;
    piece.text = "look";
    piece.tool = 3;
    piece.call_id = "call_x";
    EXPECT_EQ(
        delta(piece),
        R"({"tool_calls":[{"index":3,"id":"call_x","type":"function","function":{"name":"look","arguments":""}}]})");
    piece.kind = PieceKind::kToolArguments;
    piece.text = R"({"at":)";
    EXPECT_EQ(delta(piece), R"({"tool_calls":[{"index":3,"function":{"arguments":"{\"at\":"}}]})");
    std::string out;
    r.role(out, 0, {}, true);
    EXPECT_NE(out.find(R"("delta":{"role":"assistant","content":null,"refusal":null})"),
              std::string::npos);
}

TEST(AnswerRender, UsageInEveryEvent) {
    ChunkRenderer r(Api::kCompletion, kHead, true);
    const Usage usage{1, 2, 0, std::nullopt};
    std::string json;
    append_usage_json(json, usage);
    r.set_usage(usage);
    for (const bool last : {false, true}) {
        std::string out;
        if (last) {
            r.finish(out, 0, "stop");
        } else {
            ChunkPiece piece;
            piece.text = "x";
            r.piece(out, piece);
        }
        EXPECT_TRUE(out.ends_with("}],\"usage\":" + json + "}\n\n")) << out;
    }
}

TEST(AnswerRender, AMessageWithCalls) {
    std::string calls;
    append_tool_call(calls, "call_1", "f", R"({"a":1})");
    append_tool_call(calls, "call_2", "g", "{}");
    calls = "[" + calls + "]";
    WholeChoice choice;
    choice.reasoning = "hm";
    choice.tool_calls_json = calls;
    choice.finish_reason = "tool_calls";
    const auto message = [&] {
        std::string out;
        append_answer_json(out, Api::kChat, kHead, std::span(&choice, 1), {}, {});
        const std::size_t from = out.find(R"("message":)") + 10;
        return out.substr(from, out.find(R"(,"logprobs")") - from);
    };
    EXPECT_EQ(message(),
              R"({"role":"assistant","content":null,"reasoning_content":"hm",)"
              R"("tool_calls":[{"id":"call_1","type":"function","function":)"
              R"({"name":"f","arguments":"{\"a\":1}"}},{"id":"call_2","type":"function",)"
              R"("function":{"name":"g","arguments":"{}"}}],"refusal":null})");
    choice.text = "Wait.";
    EXPECT_TRUE(message().starts_with(R"({"role":"assistant","content":"Wait.",)"));
}

TEST(AnswerRender, PromptIdsOfAChatStandBesideTheChoices) {
    const ChunkRenderer r(Api::kChat, kHead, true);
    std::string out;
    r.role(out, 0, "[1,2]");
    codec::JsonDocument document;
    const auto json = document.parse(std::string_view(out).substr(6));
    ASSERT_TRUE(json) << out;
    EXPECT_EQ(json->find("prompt_token_ids").size(), 2U);
    EXPECT_TRUE(json->find("usage").present());
    EXPECT_TRUE(json->find("usage").is_null());
}

TEST(AnswerRender, WholeAnswers) {
    const WholeChoice choices[] = {{.index = 0,
                                    .text = "hi",
                                    .reasoning = {},
                                    .tool_calls_json = {},
                                    .finish_reason = "stop",
                                    .logprobs_json = {},
                                    .token_ids_json = "[1]",
                                    .prompt_ids_json = {}},
                                   {.index = 1,
                                    .text = "",
                                    .reasoning = {},
                                    .tool_calls_json = {},
                                    .finish_reason = "length",
                                    .logprobs_json = {},
                                    .token_ids_json = {},
                                    .prompt_ids_json = {}}};
    std::string out;
    append_answer_json(out, Api::kChat, kHead, choices, {3, 2, 0, 1}, "[9]");
    EXPECT_EQ(
        out,
        R"({"id":"id-1","object":"chat.completion","created":1700,"model":"mo\"del","choices":[)"
        R"({"index":0,"message":{"role":"assistant","content":"hi","refusal":null},"logprobs":null,)"
        R"("finish_reason":"stop","token_ids":[1]},)"
        R"({"index":1,"message":{"role":"assistant","content":"","refusal":null},"logprobs":null,)"
        R"("finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":2,)"
        R"("total_tokens":5,"prompt_tokens_details":{"cached_tokens":0},)"
        R"("completion_tokens_details":{"reasoning_tokens":1}},"prompt_token_ids":[9]})");
    out.clear();
    append_answer_json(out, Api::kCompletion, kHead, std::span(choices).subspan(1), {}, {});
    EXPECT_EQ(
        out,
        R"({"id":"id-1","object":"text_completion","created":1700,"model":"mo\"del","choices":[)"
        R"({"index":1,"text":"","logprobs":null,"finish_reason":"length"}],"usage":{)"
        R"("prompt_tokens":0,"completion_tokens":0,"total_tokens":0,)"
        R"("prompt_tokens_details":{"cached_tokens":0}}})");
}

TEST(AnswerRender, AnyTextComesBackFromItsChunk) {
    const ChunkRenderer chat(Api::kChat, kHead, false);
    const ChunkRenderer text(Api::kCompletion, kHead, true);
    codec::JsonDocument document;
    EXPECT_TRUE(rc::check([&](const std::string& raw, std::uint32_t index) {
        std::string piece;
        codec::utf8_append_lossy(piece, raw);
        for (const ChunkRenderer* r : {&chat, &text}) {
            std::string out;
            ChunkPiece p;
            p.index = index;
            p.text = piece;
            r->piece(out, p);
            RC_ASSERT(out.starts_with("data: ") && out.ends_with("\n\n"));
            RC_ASSERT(out.find('\n') == out.size() - 2);
            const auto json = document.parse(std::string_view(out).substr(6));
            RC_ASSERT(json.has_value());
            json->find("choices").each_element([&](std::size_t, codec::JsonView c) {
                RC_ASSERT(c.find("index").as_uint() == index);
                const auto back = r == &chat ? c.find("delta").find("content") : c.find("text");
                RC_ASSERT(back.as_string() == piece);
                return true;
            });
        }
    }));
}

protocol::TokenOutput token(tokens::TokenId id, float logprob) { return {id, logprob, 0, 0}; }

TEST(LogprobsJson, Chat) {
    const text::ByteTokenizer tokenizer;
    LogprobsJson l(Api::kChat, tokenizer, 2);
    EXPECT_TRUE(l.empty());
    const protocol::TokenLogprob top[] = {{'A', -0.5F}, {0xC3, -1.5F}};
    l.add(token('A', -0.5F), top);
    std::string out;
    l.append_to(out);
    EXPECT_EQ(out, R"({"content":[{"token":"A","logprob":-0.5,"bytes":[65],"top_logprobs":[)"
                   R"({"token":"A","logprob":-0.5,"bytes":[65]},)"
                   "{\"token\":\"\uFFFD\",\"logprob\":-1.5,\"bytes\":[195]}]}],\"refusal\":null}");
    l.clear();
    EXPECT_TRUE(l.empty());
}

TEST(LogprobsJson, CompletionOffsetsCountCharacters) {
    const text::ByteTokenizer tokenizer;
    LogprobsJson l(Api::kCompletion, tokenizer, 1);
    const protocol::TokenLogprob top[] = {{'x', -0.25F}};
    l.add(token(0xC3, -1.0F), top);
    l.add(token(0xA4, -1.0F), top);
    l.clear();
    l.add(token('B', -std::numeric_limits<float>::infinity()), top);
    std::string out;
    l.append_to(out);
    EXPECT_EQ(
        out,
        R"({"tokens":["B"],"token_logprobs":[-9999],"top_logprobs":[{"x":-0.25,"B":-9999}],"text_offset":[1]})");
    out.clear();
    LogprobsJson bytes(Api::kCompletion, tokenizer, 0);
    bytes.add(token(0xC3, -1.0F), {});
    bytes.append_to(out);
    EXPECT_EQ(
        out,
        R"({"tokens":["bytes:\\xc3"],"token_logprobs":[-1],"top_logprobs":null,"text_offset":[0]})");
}

}  // namespace
}  // namespace stator::frontend
