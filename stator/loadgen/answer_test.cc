#include "stator/loadgen/answer.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>

#include <numeric>
#include <string>
#include <vector>

namespace stator::loadgen {
namespace {

using report::Outcome;
using testing::HasSubstr;

std::string event(const std::string& json) { return "data: " + json + "\n\n"; }

std::string chat(const std::string& text) {
    return event(R"({"choices":[{"index":0,"delta":{"content":")" + text +
                 R"("},"finish_reason":null}]})");
}

const std::string kFinish =
    event(R"({"choices":[{"index":0,"delta":{},"finish_reason":"length"}]})");
const std::string kUsage = event(
    R"({"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":3}}})");
const std::string kDone = event("[DONE]");

class AnswerTest : public testing::Test {
  protected:
    StreamedAnswer& read(const std::vector<std::string>& pieces, bool end = true) {
        answer_.emplace(json_, true);
        std::int64_t at = 0;
        for (const std::string& piece : pieces) answer_->feed(piece, {at += 10});
        if (end) answer_->end();
        return *answer_;
    }
    std::vector<std::int64_t> times() {
        std::vector<std::int64_t> out;
        for (const TimePoint t : answer_->pieces()) out.push_back(t.ns);
        return out;
    }
    codec::JsonDocument json_;
    std::optional<StreamedAnswer> answer_;
};

TEST_F(AnswerTest, ReadsAChat) {
    const std::string role =
        event(R"({"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]})");
    auto& a = read({role, chat("one "), chat("two") + chat("!"), kFinish, kUsage + kDone});
    EXPECT_FALSE(a.fault());
    EXPECT_EQ(a.text(), "one two!");
    EXPECT_EQ(times(), (std::vector<std::int64_t>{20, 30, 30}));
    ASSERT_TRUE(a.usage());
    EXPECT_EQ(a.usage()->prompt_tokens, 9u);
    EXPECT_EQ(a.usage()->cached_tokens, 3u);
    EXPECT_EQ(a.output_tokens(), 4u);
}

TEST_F(AnswerTest, ReadsACompletion) {
    auto& a = read({event(R"({"choices":[{"text":"a","finish_reason":null}]})"),
                    event(R"({"choices":[{"text":"b","finish_reason":"stop"}]})"), kDone});
    EXPECT_FALSE(a.fault());
    EXPECT_EQ(a.text(), "ab");
    EXPECT_EQ(a.output_tokens(), 2u) << "without usage, each piece is a token";
}

TEST_F(AnswerTest, ThinkingIsTokensToo) {
    read({event(R"({"choices":[{"delta":{"reasoning_content":"hm"}}]})"), chat("so"), kFinish});
    EXPECT_EQ(times(), (std::vector<std::int64_t>{10, 20}));
}

TEST_F(AnswerTest, TokensWithoutTextAreSeenAtTheFinish) {
    auto& a = read({kFinish, kUsage, kDone});
    EXPECT_FALSE(a.fault());
    EXPECT_EQ(times(), (std::vector<std::int64_t>{10}));
    EXPECT_EQ(a.output_tokens(), 4u);
}

TEST_F(AnswerTest, WhatIsNoAnswer) {
    const auto fault = [&](const std::vector<std::string>& pieces) {
        const auto& a = read(pieces);
        EXPECT_TRUE(a.fault().has_value());
        return a.fault().value_or(Fault{});
    };
    EXPECT_EQ(fault({chat("one")}).outcome, Outcome::kReset);
    EXPECT_EQ(fault({"{\"choices\":[]}"}).reason, "no events");
    EXPECT_EQ(fault({event("{nonsense")}).reason, "not JSON");
    const Fault error = fault({chat("x"), event(R"({"error":{"message":"out of memory"}})")});
    EXPECT_EQ(error.outcome, Outcome::kServerError);
    EXPECT_EQ(error.message, "out of memory");
    EXPECT_EQ(fault({"data: " + std::string(5'000'000, 'x')}).reason, "event too long");
}

TEST(ErrorMessage, FindsWhatServersSay) {
    codec::JsonDocument json;
    EXPECT_EQ(error_message(json, R"({"error":{"message":"no\nroom","type":"x"}})"), "no room");
    EXPECT_EQ(error_message(json, R"({"error":"no"})"), "no");
    EXPECT_EQ(error_message(json, R"({"detail":"Not Found"})"), "Not Found");
    EXPECT_EQ(error_message(json, "<html>"), "<html>");
    EXPECT_THAT(error_message(json, ""), HasSubstr("does not say"));
}

TEST(TokenGaps, APieceOfSeveralTokensSharesItsGap) {
    const std::vector<TimePoint> pieces{{0}, {1'000'000'000}, {4'000'000'000}};
    EXPECT_EQ(token_gaps(pieces, 3), (std::vector<float>{1, 3}));
    EXPECT_EQ(token_gaps(pieces, 5), (std::vector<float>{0.5, 0.5, 1.5, 1.5}));
    // Fewer tokens than pieces: a character in two pieces; the gaps are what was seen.
    EXPECT_EQ(token_gaps(pieces, 1), (std::vector<float>{1, 3}));
    EXPECT_TRUE(token_gaps({pieces.data(), 1}, 7).empty());
    EXPECT_TRUE(token_gaps({}, 7).empty());
}

TEST(TokenGaps, AddUpToTheWholeTime) {
    EXPECT_TRUE(rc::check([] {
        std::vector<TimePoint> pieces{{0}};
        const auto n = *rc::gen::inRange(1, 30);
        for (int i = 0; i < n; ++i) {
            pieces.push_back({pieces.back().ns + *rc::gen::inRange(0, 1'000'000'000)});
        }
        const auto tokens = *rc::gen::inRange<std::uint32_t>(0, 100);
        const auto gaps = token_gaps(pieces, tokens);
        RC_ASSERT(gaps.size() == std::max<std::size_t>(tokens, pieces.size()) - 1);
        const double sum = std::accumulate(gaps.begin(), gaps.end(), 0.0);
        const double whole = to_seconds(pieces.back() - pieces.front());
        RC_ASSERT(std::abs(sum - whole) <= 1e-5 * (1 + whole));
        for (const float gap : gaps) RC_ASSERT(gap >= 0);
    }));
}

}  // namespace
}  // namespace stator::loadgen
