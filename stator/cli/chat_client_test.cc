#include "stator/cli/chat_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::cli {
namespace {

using ::testing::HasSubstr;

TEST(ChatRequest, IsStreamedWithUsage) {
    ChatQuestion q;
    q.model = "m";
    q.messages = {{"system", "be \"brief\""}, {"user", "hi\n"}};
    EXPECT_EQ(chat_request_body(q),
              R"({"model":"m","messages":[{"role":"system","content":"be \"brief\""},)"
              R"({"role":"user","content":"hi\n"}],"stream":true,)"
              R"("stream_options":{"include_usage":true}})");
    q.temperature = 0.5;
    q.max_tokens = 7;
    EXPECT_THAT(chat_request_body(q), HasSubstr(R"("temperature":0.5,"max_tokens":7)"));
}

TEST(ChatRequest, BytesThatAreNoTextBecomeReplacementCharacters) {
    ChatQuestion q;
    q.messages = {{"user", "a\xff"}};
    EXPECT_THAT(chat_request_body(q), HasSubstr("\"a\xef\xbf\xbd\""));
}

TEST(ChatChunk, TextFinishAndUsage) {
    const auto text = parse_chat_chunk(
        R"({"choices":[{"index":0,"delta":{"content":"Hé"},"finish_reason":null}],"usage":null})");
    ASSERT_TRUE(text.has_value());
    EXPECT_EQ(text->text, "Hé");
    EXPECT_EQ(text->finish_reason, "");
    EXPECT_FALSE(text->usage.has_value());
    EXPECT_FALSE(text->done);

    const auto end = parse_chat_chunk(R"({"choices":[{"delta":{},"finish_reason":"stop"}]})");
    ASSERT_TRUE(end.has_value());
    EXPECT_EQ(end->finish_reason, "stop");

    const auto usage =
        parse_chat_chunk(R"({"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,)"
                         R"("prompt_tokens_details":{"cached_tokens":8}}})");
    ASSERT_TRUE(usage.has_value());
    EXPECT_EQ(usage->usage, (ChatUsage{12, 8, 3}));

    const auto done = parse_chat_chunk("[DONE]");
    ASSERT_TRUE(done.has_value());
    EXPECT_TRUE(done->done);
}

TEST(ChatChunk, ErrorsWithinTheStream) {
    const auto broken = parse_chat_chunk(R"({"error":{"message":"the engine failed"}})");
    ASSERT_FALSE(broken.has_value());
    EXPECT_THAT(broken.error().message, HasSubstr("the engine failed"));
    EXPECT_FALSE(parse_chat_chunk("{").has_value());
    EXPECT_TRUE(parse_chat_chunk("[]").has_value());
    EXPECT_TRUE(parse_chat_chunk(R"({"choices":5})").has_value());
}

TEST(ChatRefusal, SaysWhatTheServerSaid) {
    EXPECT_EQ(refusal(400, R"({"error":{"message":"n is too large"}})").message,
              "The server refused (400): n is too large");
    EXPECT_EQ(refusal(502, "<html>").message, "The server answered with status 502");
    EXPECT_THAT(refusal(401, "").message, HasSubstr("STATOR_API_KEY"));
}

TEST(ChatStatistics, OneLine) {
    ChatAnswer a;
    a.text = "x";
    a.usage = ChatUsage{52, 40, 34};
    a.first_seconds = 0.21;
    a.seconds = 0.54;
    EXPECT_EQ(answer_statistics(a),
              "[34 tokens, 100.0 tokens/s, first after 0.21 s, 40 of 52 prompt tokens cached]");
    a.finish_reason = "length";
    EXPECT_THAT(answer_statistics(a), HasSubstr("cut at the length limit"));
    ChatAnswer stopped;
    stopped.cancelled = true;
    stopped.seconds = 1.5;
    EXPECT_EQ(answer_statistics(stopped), "[stopped, no text in 1.50 s]");
}

TEST(ChatClient, NoServerIsExplained) {
    // Port 1 on loopback: nothing listens there without being root's own choice.
    const auto model = first_model({"http://127.0.0.1:1/v1/", ""});
    ASSERT_FALSE(model.has_value());
    EXPECT_THAT(model.error().message, HasSubstr("No server answers at http://127.0.0.1:1"));
    EXPECT_THAT(model.error().message, HasSubstr("stator serve"));
}

}  // namespace
}  // namespace stator::cli
