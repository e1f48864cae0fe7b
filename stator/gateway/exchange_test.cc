#include "stator/gateway/exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace stator::gateway {
namespace {

using From = FromProxy::Kind;
using Kind = ToProxy::Kind;
using Body = ToProxy::Body;

struct Account {
    int open = 0;
    int first_tokens = 0;
    std::vector<std::uint32_t> cached;
    std::vector<std::string> served;
};

class CountedBooking final : public Booking {
  public:
    explicit CountedBooking(Account& account) : account_(account) { ++account_.open; }
    ~CountedBooking() override { --account_.open; }
    void served_by(std::string_view endpoint) override { account_.served.emplace_back(endpoint); }
    void first_token() override { ++account_.first_tokens; }
    void cached_told(std::uint32_t tokens) override { account_.cached.push_back(tokens); }

  private:
    Account& account_;
};

class ScriptedPicker final : public Picker {
  public:
    Result<Pick> pick(const PickRequest& request) override {
        bodies.emplace_back(request.body);
        subset = request.subset != nullptr ? std::optional(*request.subset) : std::nullopt;
        if (refusal) return tl::unexpected(*refusal);
        Pick out;
        out.endpoints = endpoints;
        out.set = set;
        out.body = new_body;
        out.asked_model = asked;
        out.served_model = served;
        out.booking = std::make_unique<CountedBooking>(account);
        return out;
    }
    [[nodiscard]] bool ready() const override { return true; }

    std::vector<std::string> endpoints{"10.0.0.1:8000", "10.0.0.2:8000"};
    std::vector<Header> set;
    std::optional<std::string> new_body;
    std::string asked;
    std::string served;
    std::optional<Error> refusal;
    Account account;
    std::vector<std::string> bodies;
    std::optional<std::vector<std::string>> subset;
};

class ExchangeTest : public testing::Test {
  protected:
    std::vector<ToProxy> take(FromProxy message) {
        std::vector<ToProxy> out;
        if (!exchange_) exchange_ = std::make_unique<Exchange>(options_, picker_, budget_);
        const auto taken = exchange_->take(std::move(message), out);
        broken_ = taken ? "" : taken.error().message;
        return out;
    }
    std::vector<ToProxy> headers(bool end = false, std::vector<Header> more = {}) {
        FromProxy m{.kind = From::kRequestHeaders, .headers = std::move(more), .body = {}};
        m.headers.push_back({":path", "/v1/completions"});
        m.end_of_stream = end;
        m.modes = modes_;
        return take(std::move(m));
    }
    std::vector<ToProxy> body(std::string text, bool end) {
        return take({.kind = From::kRequestBody,
                     .headers = {},
                     .body = std::move(text),
                     .end_of_stream = end});
    }
    std::vector<ToProxy> answer_headers(std::string type = "text/event-stream",
                                        std::string served = {}) {
        FromProxy m{.kind = From::kResponseHeaders,
                    .headers = {{":status", "200"}, {"content-type", std::move(type)}},
                    .body = {}};
        m.served = std::move(served);
        return take(std::move(m));
    }
    std::vector<ToProxy> answer(std::string text, bool end) {
        return take({.kind = From::kResponseBody,
                     .headers = {},
                     .body = std::move(text),
                     .end_of_stream = end});
    }
    std::vector<ToProxy> of_kind(From kind) {
        return take({.kind = kind, .headers = {}, .body = {}});
    }
    void whole_request() {
        headers();
        body("{}", true);
    }

    ExchangeOptions options_{.max_body_bytes = 1000, .piece_bytes = 100, .modes = {}};
    std::optional<FromProxy::Modes> modes_;
    ScriptedPicker picker_;
    BodyBudget budget_{1500};
    std::unique_ptr<Exchange> exchange_;
    std::string broken_;
};

std::string joined(const std::vector<ToProxy>& messages) {
    std::string out;
    for (const ToProxy& m : messages) {
        if (m.how == Body::kPiece) out += m.body;
    }
    return out;
}

TEST_F(ExchangeTest, HeadersAreAnsweredOnceTheBodyIsThereAndTheBodyFollowsInPieces) {
    EXPECT_TRUE(headers().empty());
    EXPECT_TRUE(body(std::string(150, 'a'), false).empty());
    const auto out = body(std::string(60, 'b'), true);
    ASSERT_EQ(out.size(), 4U);
    EXPECT_EQ(out[0].kind, Kind::kRequestHeaders);
    EXPECT_EQ(out[0].destination, "10.0.0.1:8000,10.0.0.2:8000");
    EXPECT_THAT(out[0].set,
                testing::Contains(Header{std::string(kDestination), out[0].destination}));
    EXPECT_TRUE(out[0].choose_route_again);
    EXPECT_EQ(joined(out), std::string(150, 'a') + std::string(60, 'b'));
    EXPECT_EQ(out[1].body.size(), 100U);
    EXPECT_FALSE(out[2].end_of_stream);
    EXPECT_TRUE(out[3].end_of_stream);
    EXPECT_EQ(picker_.bodies.at(0).size(), 210U);
    EXPECT_EQ(budget_.used(), 0U);
}

TEST_F(ExchangeTest, WithTrailersTheBodyDoesNotEndBeforeThem) {
    headers();
    EXPECT_TRUE(body("abc", false).empty());
    const auto out = of_kind(From::kRequestTrailers);
    ASSERT_EQ(out.size(), 3U);
    EXPECT_EQ(out[0].kind, Kind::kRequestHeaders);
    EXPECT_EQ(out[1].body, "abc");
    EXPECT_FALSE(out[1].end_of_stream);
    EXPECT_EQ(out[2].kind, Kind::kRequestTrailers);
}

TEST_F(ExchangeTest, ARequestWithoutABodyGetsItsPickAtOnce) {
    const auto out = headers(true);
    ASSERT_EQ(out.size(), 1U);
    EXPECT_EQ(out[0].kind, Kind::kRequestHeaders);
    EXPECT_FALSE(out[0].destination.empty());
    EXPECT_EQ(picker_.bodies.at(0), "");
}

TEST_F(ExchangeTest, AnEmptyBodyThatEndsIsSaidToEnd) {
    headers();
    const auto out = body("", true);
    ASSERT_EQ(out.size(), 2U);
    EXPECT_EQ(out[1].kind, Kind::kRequestBody);
    EXPECT_TRUE(out[1].end_of_stream);
}

TEST_F(ExchangeTest, ABufferedBodyIsPickedForInItsAnswer) {
    modes_ = FromProxy::Modes{BodyMode::kBuffered, BodyMode::kStreamed};
    picker_.new_body = "{1}";
    const auto first = headers();
    ASSERT_EQ(first.size(), 1U);
    EXPECT_TRUE(first[0].destination.empty());
    const auto second = body("{}", true);
    ASSERT_EQ(second.size(), 1U);
    EXPECT_EQ(second[0].kind, Kind::kRequestBody);
    EXPECT_FALSE(second[0].destination.empty());
    EXPECT_EQ(second[0].how, Body::kReplaced);
    EXPECT_EQ(second[0].body, "{1}");
    answer_headers();
    EXPECT_EQ(answer("x", true).at(0).how, Body::kUnchanged);
}

TEST_F(ExchangeTest, WhereHeadersLeaveBeforeTheBodyThePickIsWithoutIt) {
    modes_ = FromProxy::Modes{BodyMode::kStreamed, BodyMode::kNone};
    EXPECT_FALSE(headers().at(0).destination.empty());
    EXPECT_EQ(body("{}", true).at(0).how, Body::kUnchanged);
    EXPECT_EQ(picker_.bodies, std::vector<std::string>{""});
}

TEST_F(ExchangeTest, TheSubsetReachesThePicker) {
    FromProxy m{.kind = From::kRequestHeaders, .headers = {}, .body = {}, .end_of_stream = true};
    m.subset = std::vector<std::string>{};
    take(std::move(m));
    ASSERT_TRUE(picker_.subset);
    EXPECT_TRUE(picker_.subset->empty());
}

TEST_F(ExchangeTest, HeadersOfTheSystemThatAClientSentGoNoFurther) {
    picker_.set = {{"x-data-parallel-rank", "3"}};
    const auto out = headers(true, {{"x-prefiller-host-port", "evil:1"},
                                    {"x-data-parallel-rank", "9"},
                                    {std::string(kDestination), "evil:1"},
                                    {std::string(kSubset), "evil:1"},
                                    {"x-mine", "1"}});
    EXPECT_THAT(out.at(0).remove,
                testing::UnorderedElementsAre("x-prefiller-host-port", std::string(kSubset)));
    EXPECT_THAT(out[0].set, testing::Contains(Header{"x-data-parallel-rank", "3"}));
}

TEST_F(ExchangeTest, RefusalsAreAnswersThatSayWhy) {
    const std::vector<std::tuple<ErrorCode, int, std::string>> cases{
        {ErrorCode::kUnavailable, 503, "rejected-no-endpoints"},
        {ErrorCode::kOverloaded, 429, "rejected-saturated"},
        {ErrorCode::kNotFound, 404, ""},
    };
    for (const auto& [code, status, reason] : cases) {
        exchange_.reset();
        picker_.refusal = error(code, "no").value();
        headers();
        const auto out = body("{}", true);
        ASSERT_EQ(out.size(), 1U);
        EXPECT_EQ(out[0].kind, Kind::kImmediate);
        EXPECT_EQ(out[0].status, status);
        EXPECT_THAT(out[0].body, testing::HasSubstr(R"("message":"no")"));
        const auto said = header_of(out[0].set, "x-llm-d-request-dropped-reason");
        EXPECT_EQ(said, reason);
        EXPECT_TRUE(exchange_->answered());
        EXPECT_EQ(budget_.used(), 0U);
        EXPECT_TRUE(body("more", true).empty());  // on its way already
    }
}

TEST_F(ExchangeTest, BodiesBeyondTheLimitAreRefusedWhileTheyCome) {
    headers();
    EXPECT_TRUE(body(std::string(1000, 'a'), false).empty());
    EXPECT_EQ(budget_.used(), 1000U);
    const auto out = body("b", false);
    ASSERT_EQ(out.size(), 1U);
    EXPECT_EQ(out[0].status, 413);
    EXPECT_EQ(budget_.used(), 0U);
    EXPECT_TRUE(picker_.bodies.empty());
}

TEST_F(ExchangeTest, WhatAllKeepTogetherIsBounded) {
    headers();
    body(std::string(1000, 'a'), false);
    Exchange other(options_, picker_, budget_);
    std::vector<ToProxy> out;
    ASSERT_TRUE(other.take({.kind = From::kRequestHeaders, .headers = {}, .body = {}}, out));
    ASSERT_TRUE(other.take(
        {.kind = From::kRequestBody, .headers = {}, .body = std::string(600, 'b')}, out));
    EXPECT_EQ(out.at(0).status, 429);
    EXPECT_EQ(budget_.used(), 1000U);
    exchange_.reset();
    EXPECT_EQ(budget_.used(), 0U);
}

TEST_F(ExchangeTest, TheBookingLastsUntilTheAnswersEnd) {
    whole_request();
    EXPECT_EQ(picker_.account.open, 1);
    answer_headers();
    answer("data: {}\n\n", false);
    EXPECT_EQ(picker_.account.first_tokens, 1);
    answer(R"(data: {"usage":{"prompt_tokens_details":{"cached_tokens":48}}})", true);
    EXPECT_EQ(picker_.account.open, 0);
    EXPECT_EQ(picker_.account.first_tokens, 1);
    EXPECT_THAT(picker_.account.cached, testing::ElementsAre(48U));
}

TEST_F(ExchangeTest, AnAnswerAtOnceSaysNothingOfItsFirstToken) {
    whole_request();
    answer_headers("application/json");
    answer("{}", true);
    EXPECT_EQ(picker_.account.first_tokens, 0);
    EXPECT_EQ(picker_.account.open, 0);
}

TEST_F(ExchangeTest, WhoLeavesHasNoBookingAtAnyPhase) {
    for (int phase = 0; phase < 5; ++phase) {
        headers();
        if (phase > 0) body("{", false);
        if (phase > 1) body("}", true);
        if (phase > 2) answer_headers();
        if (phase > 3) answer("x", false);
        EXPECT_EQ(picker_.account.open, phase > 1 ? 1 : 0);
        exchange_.reset();
        EXPECT_EQ(picker_.account.open, 0);
        EXPECT_EQ(budget_.used(), 0U);
    }
}

TEST_F(ExchangeTest, TheServedEndpointIsTold) {
    whole_request();
    answer_headers("application/json", "10.0.0.2:8000");
    EXPECT_THAT(picker_.account.served, testing::ElementsAre("10.0.0.2:8000"));
}

TEST_F(ExchangeTest, AnswersGoOnInPiecesAsTheyCome) {
    whole_request();
    EXPECT_EQ(answer_headers().at(0).kind, Kind::kResponseHeaders);
    const auto piece = answer("data: 1\n\n", false);
    ASSERT_EQ(piece.size(), 1U);
    EXPECT_EQ(piece[0].how, Body::kPiece);
    EXPECT_EQ(piece[0].body, "data: 1\n\n");
    EXPECT_FALSE(piece[0].end_of_stream);
    EXPECT_TRUE(answer("", true).at(0).end_of_stream);
}

TEST_F(ExchangeTest, AModelThatWasReplacedIsCalledAsAskedInTheAnswer) {
    picker_.new_body = R"({"model":"real"})";
    picker_.asked = "alias";
    picker_.served = "real";
    headers();
    EXPECT_EQ(joined(body(R"({"model":"alias"})", true)), R"({"model":"real"})");
    const auto first = answer_headers();
    EXPECT_THAT(first.at(0).remove, testing::ElementsAre("content-length"));
    std::string got = joined(answer(R"(data: {"id":1,"mod)", false));
    got += joined(answer(R"(el":"real","x":"model"})", false));
    got += joined(of_kind(From::kResponseTrailers));
    EXPECT_EQ(got, R"(data: {"id":1,"model":"alias","x":"model"})");
}

TEST_F(ExchangeTest, BrokenStreamsAreEnded) {
    body("{}", true);
    EXPECT_THAT(broken_, testing::HasSubstr("request body"));
    exchange_.reset();
    headers();
    headers();
    EXPECT_THAT(broken_, testing::HasSubstr("request headers"));
    exchange_.reset();
    whole_request();
    body("more", false);
    EXPECT_NE(broken_, "");
    exchange_.reset();
    whole_request();
    answer("x", true);
    EXPECT_THAT(broken_, testing::HasSubstr("response body"));
    exchange_.reset();
    of_kind(From::kUnknown);
    EXPECT_NE(broken_, "");
}

TEST_F(ExchangeTest, WhatIsOnlyObservedGetsNoAnswers) {
    FromProxy m{.kind = From::kRequestHeaders, .headers = {}, .body = {}};
    m.only_observed = true;
    EXPECT_TRUE(take(std::move(m)).empty());
    EXPECT_TRUE(body("{}", true).empty());
    EXPECT_TRUE(answer_headers().empty());
    EXPECT_TRUE(answer("x", true).empty());
    EXPECT_TRUE(picker_.bodies.empty());
}

/// Whatever comes, in whatever order: nothing is left booked or kept, headers are answered at most
/// once, and a body that was answered is what came.
TEST(ExchangeProperty, AnyMessagesInAnyOrder) {
    EXPECT_TRUE(rc::check([] {
        const ExchangeOptions options{.max_body_bytes = 200, .piece_bytes = 7, .modes = {}};
        ScriptedPicker picker;
        BodyBudget budget(300);
        {
            Exchange exchange(options, picker, budget);
            int headers = 0;
            std::string sent;
            std::string got;
            const auto count = *rc::gen::inRange(1, 12);
            for (int i = 0; i < count; ++i) {
                FromProxy m;
                // Mostly in order, so that most streams get somewhere.
                const int in_order = i == 0 ? 1 : 2 + i / 4;
                m.kind = static_cast<From>(*rc::gen::weightedOneOf<int>(
                    {{4, rc::gen::just(std::min(in_order, 6))}, {1, rc::gen::inRange(0, 7)}}));
                m.body = *rc::gen::container<std::string>(rc::gen::inRange('a', 'e'));
                m.end_of_stream = *rc::gen::inRange(0, 4) == 0;
                if (m.kind == From::kRequestBody) sent += m.body;
                std::vector<ToProxy> out;
                if (!exchange.take(std::move(m), out)) break;
                for (const ToProxy& o : out) {
                    headers += o.kind == Kind::kRequestHeaders ? 1 : 0;
                    if (o.kind == Kind::kRequestBody) got += o.body;
                }
                RC_ASSERT(headers <= 1);
                RC_ASSERT(got.empty() || got == sent);
            }
        }
        RC_ASSERT(budget.used() == 0U);
        RC_ASSERT(picker.account.open == 0);
    }));
}

}  // namespace
}  // namespace stator::gateway
