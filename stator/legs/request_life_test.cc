#include "stator/legs/request_life.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>

namespace stator::legs {
namespace {

using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::StepEvent;
using protocol::TokenId;
using protocol::TokenOutput;
using Taken = RequestLife::Taken;

constexpr std::uint32_t kVocabulary = 40;

std::uint64_t mix(std::uint64_t h, std::uint64_t v) {
    h = (h ^ v) * 0x9E3779B97F4A7C15ULL;
    return h ^ (h >> 29);
}

/// What an engine generates next: a function of the whole sequence, of how much of it is output
/// (random numbers are drawn by position, penalties count output alone) and of whether an end is
/// masked.
TokenId next_token(const std::vector<TokenId>& sequence, std::uint32_t generated, bool masked,
                   const std::vector<TokenId>& stops) {
    std::uint64_t h = generated;
    for (const TokenId t : sequence) h = mix(h, t);
    auto token = static_cast<TokenId>(h % kVocabulary);
    while (masked && std::ranges::find(stops, token) != stops.end()) ++token;
    return token;
}

/// One engine's run of a request, token by token.
class ToyEngine {
  public:
    explicit ToyEngine(const GenerateRequest& request)
        : request_(request), sequence_(request.prompt) {}

    std::optional<FinishReason> step(TokenId& token) {
        const bool masked = produced_ < request_.min_tokens;
        token = next_token(sequence_, request_.resumed_tokens + produced_, masked,
                           request_.stop_token_ids);
        sequence_.push_back(token);
        ++produced_;
        if (!masked &&
            std::ranges::find(request_.stop_token_ids, token) != request_.stop_token_ids.end()) {
            return FinishReason::kStop;
        }
        if (produced_ == request_.max_tokens) return FinishReason::kLength;
        return std::nullopt;
    }

  private:
    GenerateRequest request_;
    std::vector<TokenId> sequence_;
    std::uint32_t produced_ = 0;
};

struct Outcome {
    std::vector<TokenId> tokens;
    std::optional<FinishReason> finish;
    std::uint32_t prompt_tokens = 0;
    std::uint32_t cached_tokens = 0;
    bool operator==(const Outcome&) const = default;
};

Outcome undisturbed(const GenerateRequest& request, std::uint32_t cached) {
    Outcome out;
    ToyEngine engine(request);
    while (!out.finish) out.finish = engine.step(out.tokens.emplace_back());
    out.prompt_tokens = static_cast<std::uint32_t>(request.prompt.size());
    out.cached_tokens = cached;
    return out;
}

GenerateRequest arbitrary_request() {
    GenerateRequest r;
    r.id = protocol::RequestId(7);
    const auto token = rc::gen::inRange<TokenId>(0, kVocabulary);
    r.prompt = *rc::gen::nonEmpty(rc::gen::container<std::vector<TokenId>>(token));
    r.max_tokens = *rc::gen::inRange(1U, 30U);
    r.min_tokens = *rc::gen::inRange(0U, 12U);
    r.stop_token_ids = *rc::gen::container<std::vector<TokenId>>(token);
    if (r.stop_token_ids.size() > 4) r.stop_token_ids.resize(4);
    return r;
}

Error gone() { return error(ErrorCode::kUnavailable, "connection reset").value(); }

/// What happens on one leg, decided by draws: refusal, loss before, between or right after steps
/// (with the end's event on the wire or lost), or the end. Returns true when the request ended.
bool run_leg(RequestLife& life, Outcome& seen, std::uint32_t cached, bool quiet) {
    const auto request = life.next_request();
    RC_ASSERT(request->max_tokens >= 1U);
    RC_ASSERT(request->max_tokens + life.delivered_tokens() == life.original().max_tokens);
    RC_ASSERT(request->resumed_tokens < request->prompt.size());
    ToyEngine engine(*request);
    const int loss_after = quiet ? 1000 : *rc::gen::inRange(0, 20);
    if (loss_after == 0) {
        StepEvent refusal;
        refusal.finish = FinishReason::kError;
        refusal.error = error(ErrorCode::kOverloaded, "full").value();
        RC_ASSERT(life.take(refusal, {}) == Taken::kRefused);
        RC_ASSERT(life.refused());
        return false;
    }
    bool first = true;
    for (int step = 1;; ++step) {
        StepEvent event;
        event.id = protocol::RequestId(7);
        std::vector<TokenOutput> tokens;
        const int wanted = *rc::gen::inRange(1, 4);
        while (std::cmp_less(tokens.size(), wanted) && !event.finish) {
            event.finish = engine.step(tokens.emplace_back().token);
        }
        event.count = static_cast<std::uint32_t>(tokens.size());
        if (std::exchange(first, false) || event.finish) {
            event.prompt_tokens = static_cast<std::uint32_t>(request->prompt.size());
            event.cached_tokens = request->resumed_tokens == 0 ? cached : cached + 1;
        }
        const bool lost = step >= loss_after;
        // The tokens came through and the word of the end did not.
        if (lost && event.finish && *rc::gen::arbitrary<bool>()) event.finish.reset();
        const bool nothing_came = lost && *rc::gen::arbitrary<bool>();
        if (!nothing_came) {
            RC_ASSERT(life.take(event, tokens) == Taken::kPassOn);
            for (const TokenOutput& t : tokens) seen.tokens.push_back(t.token);
        } else {
            event.finish.reset();
        }
        if (!event.finish && lost) {
            auto end = life.lost(gone());
            if (!end) return false;
            event = *end;
        }
        if (event.finish) {
            seen.finish = event.finish;
            seen.prompt_tokens = event.prompt_tokens;
            seen.cached_tokens = event.cached_tokens;
            return true;
        }
    }
}

TEST(RequestLife, LossesAnywhereGiveTheSequenceOfAnUndisturbedEngine) {
    EXPECT_TRUE(rc::check([] {
        const GenerateRequest request = arbitrary_request();
        const auto cached =
            *rc::gen::inRange<std::uint32_t>(0, static_cast<std::uint32_t>(request.prompt.size()));
        RequestLife life(request, 1000);
        Outcome seen;
        int legs = 0;
        while (!run_leg(life, seen, cached, ++legs > 30)) {
        }
        RC_ASSERT(life.ended());
        RC_ASSERT(seen.tokens.size() <= request.max_tokens);
        Outcome expected = undisturbed(request, cached);
        RC_ASSERT(seen.tokens == expected.tokens);
        RC_ASSERT(seen.finish == expected.finish);
        RC_ASSERT(seen.prompt_tokens == expected.prompt_tokens);
        RC_ASSERT(seen.cached_tokens == expected.cached_tokens);
    }));
}

GenerateRequest request_of(std::uint32_t max_tokens) {
    GenerateRequest r;
    r.id = protocol::RequestId(1);
    r.prompt = {10, 11, 12};
    r.max_tokens = max_tokens;
    r.min_tokens = 3;
    return r;
}

bool give(RequestLife& life, const std::vector<TokenId>& tokens) {
    StepEvent event;
    event.prompt_tokens = 3;
    std::vector<TokenOutput> out;
    for (const TokenId t : tokens) out.push_back({.token = t});
    event.count = static_cast<std::uint32_t>(out.size());
    return life.take(event, out) == Taken::kPassOn;
}

TEST(RequestLife, TheFirstLegIsTheRequestItselfWithoutACopy) {
    RequestLife life(request_of(8), 3);
    EXPECT_EQ(life.next_request().get(), &life.original());
    EXPECT_FALSE(life.lost(gone()));
    EXPECT_EQ(life.next_request().get(), &life.original());
}

TEST(RequestLife, TheNextLegGoesOnWhereTheLastOneWas) {
    RequestLife life(request_of(8), 3);
    (void)life.next_request();
    EXPECT_TRUE(give(life, {1, 2}));
    EXPECT_FALSE(life.refused());
    EXPECT_FALSE(life.lost(gone()));
    const auto second = life.next_request();
    EXPECT_TRUE(life.refused());
    EXPECT_EQ(second->prompt, (std::vector<TokenId>{10, 11, 12, 1, 2}));
    EXPECT_EQ(second->resumed_tokens, 2U);
    EXPECT_EQ(second->max_tokens, 6U);
    EXPECT_EQ(second->min_tokens, 1U);
    EXPECT_TRUE(give(life, {3, 4, 5}));
    EXPECT_FALSE(life.lost(gone()));
    const auto third = life.next_request();
    EXPECT_EQ(third->resumed_tokens, 5U);
    EXPECT_EQ(third->max_tokens, 3U);
    EXPECT_EQ(third->min_tokens, 0U);
}

TEST(RequestLife, WhatWasCachedMayBeToldAtTheEnd) {
    GenerateRequest request;
    request.prompt = {1, 2, 3, 4};
    request.max_tokens = 3;
    const std::vector<TokenOutput> one = {{.token = 5}};
    const auto step = [&](RequestLife& life, std::uint32_t prompt, std::uint32_t cached,
                          std::optional<FinishReason> finish = std::nullopt) {
        StepEvent e;
        e.count = 1;
        e.prompt_tokens = prompt;
        e.cached_tokens = cached;
        e.finish = finish;
        EXPECT_EQ(life.take(e, one), Taken::kPassOn);
        return e;
    };
    RequestLife late(request, 1);
    (void)late.next_request();
    EXPECT_EQ(step(late, 0, 0).prompt_tokens, 0U);
    const StepEvent end = step(late, 4, 3, FinishReason::kLength);
    EXPECT_EQ(end.prompt_tokens, 4U);
    EXPECT_EQ(end.cached_tokens, 3U);
    // Never told: the prompt's length is known here.
    RequestLife never(request, 1);
    (void)never.next_request();
    (void)step(never, 0, 0);
    EXPECT_EQ(step(never, 0, 0, FinishReason::kStop).prompt_tokens, 4U);
    // After a loss the next worker's number is of another prompt.
    RequestLife moved(request, 1);
    (void)moved.next_request();
    (void)step(moved, 4, 2);
    EXPECT_FALSE(moved.lost(error(ErrorCode::kUnavailable, "gone").value()));
    (void)moved.next_request();
    EXPECT_EQ(step(moved, 4, 4, FinishReason::kLength).cached_tokens, 2U);
}

TEST(RequestLife, MovesAreBoundedAndTheErrorSaysSo) {
    RequestLife life(request_of(8), 2);
    for (int i = 0; i < 2; ++i) {
        (void)life.next_request();
        EXPECT_FALSE(life.lost(gone()));
    }
    (void)life.next_request();
    const auto end = life.lost(gone());
    ASSERT_TRUE(end);
    EXPECT_EQ(end->finish, FinishReason::kError);
    EXPECT_EQ(end->error->code, ErrorCode::kUnavailable);
    EXPECT_TRUE(end->error->retryable);
    EXPECT_NE(end->error->message.find("2 times"), std::string::npos) << end->error->message;
    EXPECT_EQ(end->prompt_tokens, 3U);
    EXPECT_TRUE(life.ended());
}

TEST(RequestLife, RefusalsCostNoMove) {
    RequestLife life(request_of(8), 0);
    for (const ErrorCode code :
         {ErrorCode::kOverloaded, ErrorCode::kUnavailable, ErrorCode::kAborted}) {
        (void)life.next_request();
        StepEvent refusal;
        refusal.finish = FinishReason::kError;
        refusal.error = error(code, "no").value();
        EXPECT_EQ(life.take(refusal, {}), Taken::kRefused);
        EXPECT_TRUE(life.refused());
    }
    EXPECT_FALSE(life.ended());
    EXPECT_EQ(life.migrations(), 0U);
}

TEST(RequestLife, AnErrorOfTheRequestItselfIsPassedOn) {
    RequestLife life(request_of(8), 3);
    (void)life.next_request();
    StepEvent refusal;
    refusal.finish = FinishReason::kError;
    refusal.error = error(ErrorCode::kInvalidArgument, "no such token").value();
    EXPECT_EQ(life.take(refusal, {}), Taken::kPassOn);
    EXPECT_TRUE(life.ended());
    EXPECT_EQ(refusal.prompt_tokens, 3U);
}

TEST(RequestLife, WhatARankHasFailedAtIsDoneElsewhereAFewTimes) {
    RequestLife life(request_of(8), 2);
    for (const ErrorCode code : {ErrorCode::kInternal, ErrorCode::kDataLoss}) {
        (void)life.next_request();
        StepEvent failed;
        failed.finish = FinishReason::kError;
        failed.error = error(code, "status 500").value();
        failed.error->retryable = true;
        EXPECT_EQ(life.take(failed, {}), Taken::kLost);
        EXPECT_FALSE(life.lost(*failed.error));
    }
    (void)life.next_request();
    StepEvent failed;
    failed.finish = FinishReason::kError;
    failed.error = error(ErrorCode::kInternal, "status 500").value();
    failed.error->retryable = true;
    EXPECT_EQ(life.take(failed, {}), Taken::kLost);
    const auto end = life.lost(*failed.error);
    ASSERT_TRUE(end) << "it may be the request that they fail at";
    EXPECT_EQ(end->error->code, ErrorCode::kUnavailable);
    EXPECT_NE(end->error->message.find("status 500"), std::string::npos);
}

TEST(RequestLife, AWorkerThatGivesUpMidwayIsALoss) {
    RequestLife life(request_of(8), 1);
    (void)life.next_request();
    EXPECT_TRUE(give(life, {1}));
    StepEvent end;
    end.finish = FinishReason::kError;
    end.error = error(ErrorCode::kAborted, "the grace time is over").value();
    EXPECT_EQ(life.take(end, {}), Taken::kLost);
    EXPECT_FALSE(life.refused());
    EXPECT_EQ(life.lost(*end.error), std::nullopt);
    EXPECT_EQ(life.next_request()->max_tokens, 7U);
}

TEST(RequestLife, LostWithItsLastTokenOutIsAnEndAndNoMove) {
    RequestLife life(request_of(2), 3);
    (void)life.next_request();
    EXPECT_TRUE(give(life, {1, 2}));
    const auto end = life.lost(gone());
    ASSERT_TRUE(end);
    EXPECT_EQ(end->finish, FinishReason::kLength);
    EXPECT_FALSE(end->error);

    GenerateRequest stops = request_of(8);
    stops.stop_token_ids = {9};
    RequestLife stopped(stops, 3);
    (void)stopped.next_request();
    EXPECT_TRUE(give(stopped, {1, 2, 3, 9}));
    EXPECT_EQ(stopped.lost(gone())->finish, FinishReason::kStop);

    // Before min_tokens a stop token is a token like any other.
    RequestLife early(stops, 3);
    (void)early.next_request();
    EXPECT_TRUE(give(early, {1, 2, 9}));
    EXPECT_FALSE(early.lost(gone()));
}

}  // namespace
}  // namespace stator::legs
