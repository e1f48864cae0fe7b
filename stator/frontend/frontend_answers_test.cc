// What requests are answered with, over loopback HTTP: both APIs, streamed and whole.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "stator/frontend/loopback_door.h"

namespace stator::frontend {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

TEST(FrontendAnswers, ChatWhole) {
    Door door({.cached_tokens = 2});
    const auto response = door.chat("Hello ", R"("max_tokens":9)");
    EXPECT_EQ(response.status, 200);
    const Json json(response.body);
    EXPECT_THAT(json.str("id"), testing::StartsWith("chatcmpl-"));
    EXPECT_EQ(json.str("object"), "chat.completion");
    EXPECT_GT(json.num("created"), 1'700'000'000);
    EXPECT_EQ(json.str("model"), "echo");
    EXPECT_EQ(json.at("choices").size(), 1U);
    EXPECT_EQ(json.str("choices", 0, "message", "role"), "assistant");
    EXPECT_EQ(json.str("choices", 0, "message", "content"), "Hello Hel");
    EXPECT_EQ(json.str("choices", 0, "finish_reason"), "length");
    EXPECT_TRUE(json.at("choices", 0, "logprobs").is_null());
    EXPECT_EQ(json.num("usage", "prompt_tokens"), 6);
    EXPECT_EQ(json.num("usage", "completion_tokens"), 9);
    EXPECT_EQ(json.num("usage", "total_tokens"), 15);
    EXPECT_EQ(json.num("usage", "prompt_tokens_details", "cached_tokens"), 2);
    EXPECT_FALSE(json.at("prompt_token_ids").present());
}

TEST(FrontendAnswers, ChatStreamed) {
    Door door;
    const auto events = events_of(door.chat(
        "Grüße", R"("max_tokens":14,"stream":true,"stream_options":{"include_usage":true})"));
    ASSERT_GE(events.size(), 5U);
    EXPECT_EQ(events.back(), "[DONE]");
    std::string text;
    std::string finish;
    for (std::size_t i = 0; i + 2 < events.size(); ++i) {
        const Json json(events[i]);
        EXPECT_EQ(json.str("object"), "chat.completion.chunk");
        EXPECT_TRUE(json.at("usage").present());
        EXPECT_TRUE(json.at("usage").is_null());
        if (i == 0) {
            EXPECT_EQ(json.str("choices", 0, "delta", "role"), "assistant");
        }
        if (const auto s = json.at("choices", 0, "delta", "content").as_string()) text += *s;
        if (const auto f = json.at("choices", 0, "finish_reason").as_string()) finish = *f;
    }
    EXPECT_EQ(text, "GrüßeGrüße");
    EXPECT_EQ(finish, "length");
    const Json usage(events[events.size() - 2]);
    EXPECT_EQ(usage.at("choices").size(), 0U);
    EXPECT_EQ(usage.num("usage", "prompt_tokens"), 7);
    EXPECT_EQ(usage.num("usage", "completion_tokens"), 14);
}

TEST(FrontendAnswers, StreamWithoutUsage) {
    Door door;
    const auto events = events_of(door.chat("ab", R"("max_tokens":2,"stream":true)"));
    for (std::size_t i = 0; i + 1 < events.size(); ++i) {
        EXPECT_FALSE(Json(events[i]).at("usage").present());
    }
    EXPECT_EQ(events.back(), "[DONE]");
}

TEST(FrontendAnswers, CompletionForms) {
    Door door;
    const Json text(door.complete(R"("abc")", R"("max_tokens":4)").body);
    EXPECT_EQ(text.str("object"), "text_completion");
    EXPECT_THAT(text.str("id"), testing::StartsWith("cmpl-"));
    EXPECT_EQ(text.str("choices", 0, "text"), "abca");
    const Json ids(door.complete("[120,121]", R"("max_tokens":3)").body);
    EXPECT_EQ(ids.str("choices", 0, "text"), "xyx");
    EXPECT_EQ(Json(door.complete(R"("abc")").body).num("usage", "completion_tokens"), 16);
    const Json batch(door.complete(R"(["ab",[120]])", R"("max_tokens":2,"n":2)").body);
    ASSERT_EQ(batch.at("choices").size(), 4U);
    const char* expected[] = {"ab", "ab", "xx", "xx"};
    for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(batch.num("choices", i, "index"), i);
        EXPECT_EQ(batch.str("choices", i, "text"), expected[i]);
    }
    EXPECT_EQ(batch.num("usage", "prompt_tokens"), 3);
    EXPECT_EQ(batch.num("usage", "completion_tokens"), 8);
}

TEST(FrontendAnswers, StreamedChoicesAreComplete) {
    Door door({.tokens_per_step = 3});
    const auto events =
        events_of(door.complete(R"(["abc","xyz"])", R"("max_tokens":20,"n":2,"stream":true)"));
    std::vector<std::string> texts(4);
    std::vector<int> ends(4);
    for (std::size_t i = 0; i + 1 < events.size(); ++i) {
        const Json json(events[i]);
        const auto index = static_cast<std::size_t>(json.num("choices", 0, "index"));
        ASSERT_LT(index, 4U);
        EXPECT_EQ(ends[index], 0);
        texts[index] += json.str("choices", 0, "text");
        if (!json.at("choices", 0, "finish_reason").is_null()) ++ends[index];
    }
    EXPECT_EQ(texts[0], "abcabcabcabcabcabcab");
    EXPECT_EQ(texts[1], texts[0]);
    EXPECT_EQ(texts[3], "xyzxyzxyzxyzxyzxyzxy");
    EXPECT_EQ(ends, (std::vector<int>{1, 1, 1, 1}));
}

TEST(FrontendAnswers, StopStringsAcrossTokens) {
    for (const std::uint32_t per_step : {1U, 2U, 5U}) {
        Door door({.tokens_per_step = per_step});
        const Json whole(
            door.chat("one two three", R"("max_tokens":100,"stop":["two","zz"])").body);
        EXPECT_EQ(whole.str("choices", 0, "message", "content"), "one ");
        EXPECT_EQ(whole.str("choices", 0, "finish_reason"), "stop");
        EXPECT_EQ(whole.num("usage", "completion_tokens"), 7);
        const auto events =
            events_of(door.chat("one two", R"("max_tokens":100,"stop":"eo","stream":true)"));
        std::string text;
        for (std::size_t i = 0; i + 1 < events.size(); ++i) {
            const Json json(events[i]);
            if (const auto s = json.at("choices", 0, "delta", "content").as_string()) text += *s;
        }
        EXPECT_EQ(text,
                  "one twoone twoone twoone twoone twoone twoone twoone twoone twoone twoone "
                  "twoone twoone twoone twoon");
        EXPECT_TRUE(door.idle());
    }
}

TEST(FrontendAnswers, StopTokensAreNoText) {
    Door door;
    const Json json(
        door.complete("[97,98,257,99]",
                      R"("max_tokens":50,"stop_token_ids":[257],"return_token_ids":true)")
            .body);
    EXPECT_EQ(json.str("choices", 0, "text"), "ab");
    EXPECT_EQ(json.str("choices", 0, "finish_reason"), "stop");
    EXPECT_EQ(json.num("usage", "completion_tokens"), 3);
    EXPECT_EQ(json.at("choices", 0, "token_ids").size(), 3U);
    EXPECT_EQ(json.at("choices", 0, "prompt_token_ids").size(), 4U);
}

TEST(FrontendAnswers, HeldBackTextComesAtTheEnd) {
    Door door;
    // "ab" may always be the beginning of the stop string, and the last one is not.
    const Json json(door.chat("ab", R"("max_tokens":4,"stop":"abc")").body);
    EXPECT_EQ(json.str("choices", 0, "message", "content"), "abab");
    // A character cut off by max_tokens becomes U+FFFD.
    const Json cut(door.chat("ä", R"("max_tokens":3)").body);
    EXPECT_EQ(cut.str("choices", 0, "message", "content"), "ä\uFFFD");
}

TEST(FrontendAnswers, ReturnTokenIdsOfAChat) {
    Door door;
    const Json whole(door.chat("ab", R"("max_tokens":3,"return_token_ids":true)").body);
    EXPECT_EQ(whole.at("prompt_token_ids").size(), 2U);
    EXPECT_EQ(whole.num("choices", 0, "token_ids", 2), 'a');
    const auto events =
        events_of(door.chat("ä", R"("max_tokens":2,"return_token_ids":true,"stream":true)"));
    EXPECT_EQ(Json(events[0]).at("prompt_token_ids").size(), 2U);
    std::size_t ids = 0;
    for (std::size_t i = 0; i + 1 < events.size(); ++i) {
        ids += Json(events[i]).at("choices", 0, "token_ids").size();
    }
    EXPECT_EQ(ids, 2U);
}

TEST(FrontendAnswers, Logprobs) {
    Door door;
    const Json chat(door.chat("ab", R"("max_tokens":3,"logprobs":true,"top_logprobs":2)").body);
    EXPECT_EQ(chat.at("choices", 0, "logprobs", "content").size(), 3U);
    EXPECT_EQ(chat.str("choices", 0, "logprobs", "content", 1, "token"), "b");
    EXPECT_EQ(chat.num("choices", 0, "logprobs", "content", 1, "bytes", 0), 'b');
    EXPECT_EQ(chat.at("choices", 0, "logprobs", "content", 1, "top_logprobs").size(), 2U);
    EXPECT_EQ(chat.str("choices", 0, "logprobs", "content", 1, "top_logprobs", 1, "token"), "c");
    const Json text(door.complete(R"("ab")", R"("max_tokens":3,"logprobs":2)").body);
    EXPECT_EQ(text.at("choices", 0, "logprobs", "tokens").size(), 3U);
    EXPECT_EQ(text.num("choices", 0, "logprobs", "text_offset", 2), 2);
    EXPECT_EQ(text.at("choices", 0, "logprobs", "top_logprobs", 0).size(), 2U);
    const auto events =
        events_of(door.chat("ä", R"("max_tokens":4,"logprobs":true,"stream":true)"));
    std::size_t tokens = 0;
    for (std::size_t i = 0; i + 1 < events.size(); ++i) {
        tokens += Json(events[i]).at("choices", 0, "logprobs", "content").size();
    }
    EXPECT_EQ(tokens, 4U);
}

TEST(FrontendAnswers, EngineErrors) {
    Door door({.fail_after_tokens = 3});
    expect_error(door.chat("abc", R"("max_tokens":10)"), 500, "", "internal_error");
    const auto events = events_of(door.chat("abc", R"("max_tokens":10,"stream":true)"));
    ASSERT_FALSE(events.empty());
    EXPECT_NE(events.back(), "[DONE]");
    EXPECT_THAT(Json(events.back()).str("error", "message"), HasSubstr("echo engine"));
}

TEST(FrontendAnswers, LongPromptsGoThroughThePool) {
    Door door;
    const std::string content(100'000, 'y');
    const Json json(door.chat(content, R"("max_tokens":3)").body);
    EXPECT_EQ(json.num("usage", "prompt_tokens"), 100'000);
    EXPECT_EQ(json.str("choices", 0, "message", "content"), "yyy");
    expect_error(door.chat(std::string(5'000'000, 'y')), 400, "messages",
                 "context_length_exceeded");
    expect_error(door.post(kChat, std::string(100'000, '[')), 400, "", "");
    RawClient leaver(door.port());
    leaver.post(kChat, chat_body(std::string(10'000'000, 'y'), R"("max_tokens":3)"));
    leaver.leave();
    EXPECT_EQ(door.chat("ab", R"("max_tokens":1)").status, 200);
    EXPECT_TRUE(door.idle());
}

TEST(FrontendAnswers, ManyAtOnceStayApart) {
    Door door({.max_running = 16, .tokens_per_step = 2});
    std::vector<std::jthread> clients;
    for (int t = 0; t < 8; ++t) {
        clients.emplace_back([&door, t] {
            for (int i = 0; i < 20; ++i) {
                const std::string word = "w" + std::to_string(t) + "-" + std::to_string(i) + ".";
                std::string expected;
                while (expected.size() < 40) expected += word;
                expected.resize(40);
                const bool streamed = i % 2 == 0;
                const auto response = door.chat(word, std::string(R"("max_tokens":40)") +
                                                          (streamed ? R"(,"stream":true)" : ""));
                std::string text;
                if (streamed) {
                    const auto events = events_of(response);
                    for (std::size_t e = 0; e + 1 < events.size(); ++e) {
                        const Json json(events[e]);
                        if (const auto s = json.at("choices", 0, "delta", "content").as_string())
                            text += *s;
                    }
                } else {
                    text = Json(response.body).str("choices", 0, "message", "content");
                }
                EXPECT_EQ(text, expected);
            }
        });
    }
    clients.clear();
    EXPECT_TRUE(door.idle());
}

}  // namespace
}  // namespace stator::frontend
