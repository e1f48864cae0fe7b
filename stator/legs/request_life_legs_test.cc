#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <map>

#include "stator/legs/request_life.h"

// Requests whose prompt, media and output are computed by different ranks.
namespace stator::legs {
namespace {

using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::Handoff;
using protocol::Leg;
using protocol::StepEvent;
using protocol::TokenId;
using protocol::TokenOutput;
using Taken = RequestLife::Taken;
using Step = RequestLife::Step;
using namespace std::chrono_literals;

constexpr std::uint32_t kRows = 3;

TimePoint at(std::chrono::milliseconds t) { return TimePoint{} + t; }

Error gone() { return error(ErrorCode::kUnavailable, "connection reset").value(); }

Error no_media() {
    Error e = error(ErrorCode::kUnavailable, "the embeddings are gone").value();
    e.param = "media";
    e.retryable = true;
    return e;
}

std::shared_ptr<const Handoff> handoff(std::uint8_t id, Handoff::Kind kind, std::uint32_t tokens,
                                       Deadline expires = Deadline::never()) {
    auto h = std::make_shared<Handoff>();
    h->id[0] = id;
    h->kind = kind;
    h->tokens = tokens;
    if (kind == Handoff::Kind::kEmbeddings) h->pieces = {{.text = {}, .rows = tokens}};
    h->expires = expires;
    return h;
}

StepEvent left(std::shared_ptr<const Handoff> handoff) {
    StepEvent e;
    e.finish = FinishReason::kHandoff;
    e.prompt_tokens = 4;
    e.cached_tokens = 2;
    e.handoff = std::move(handoff);
    return e;
}

StepEvent failure(Error why) {
    StepEvent e;
    e.finish = FinishReason::kError;
    e.error = std::move(why);
    return e;
}

GenerateRequest request_of(std::uint32_t max_tokens, std::size_t items = 0) {
    GenerateRequest r;
    r.id = protocol::RequestId(1);
    r.prompt = {10, 11, 12, 13};
    r.max_tokens = max_tokens;
    for (std::size_t i = 0; i < items; ++i) {
        protocol::MediaItem item;
        item.digest[0] = static_cast<std::uint8_t>(i);
        item.tokens = kRows;
        item.content = std::make_shared<protocol::MediaContent>();
        item.embeddings =
            handoff(static_cast<std::uint8_t>(100 + i), Handoff::Kind::kEmbeddings, kRows);
        r.media.push_back(std::move(item));
    }
    return r;
}

Taken give(RequestLife& life, const std::vector<TokenId>& tokens) {
    StepEvent event;
    event.prompt_tokens = 4;
    std::vector<TokenOutput> out;
    for (const TokenId t : tokens) out.push_back({.token = t});
    event.count = static_cast<std::uint32_t>(out.size());
    return life.take(event, out);
}

RequestLife prefilled(std::uint32_t max_tokens = 8) {
    RequestLife life(request_of(max_tokens), 3);
    (void)life.next_request(Leg::kPrefill);
    StepEvent end = left(handoff(1, Handoff::Kind::kKv, 3));
    EXPECT_EQ(life.take(end, {}), Taken::kNextLeg);
    return life;
}

TEST(RequestLifeLegs, APrefillLegsHandoffGoesToADecodeLeg) {
    RequestLife life(request_of(8), 3);
    EXPECT_EQ(life.next_step({}), Step::kPrompt);
    EXPECT_TRUE(life.may_split());
    const auto prefill = life.next_request(Leg::kPrefill);
    EXPECT_EQ(prefill->leg, Leg::kPrefill);
    StepEvent end = left(handoff(1, Handoff::Kind::kKv, 3));
    EXPECT_EQ(life.take(end, {}), Taken::kNextLeg);
    EXPECT_EQ(life.next_step({}), Step::kDecode);
    const auto decode = life.next_request(Leg::kDecode);
    EXPECT_EQ(decode->leg, Leg::kDecode);
    EXPECT_EQ(decode->prompt, prefill->prompt);
    ASSERT_TRUE(decode->handoff);
    EXPECT_EQ(decode->handoff->id[0], 1);
    StepEvent event;
    event.prompt_tokens = 4;
    event.cached_tokens = 3;  // as the decode rank sees it
    const std::vector<TokenOutput> token{{.token = 5}};
    EXPECT_EQ(life.take(event, token), Taken::kPassOn);
    EXPECT_EQ(event.cached_tokens, 2U);
    EXPECT_FALSE(life.has_handoff());
    (void)life.end(FinishReason::kCancelled);
    EXPECT_TRUE(life.take_releases().empty());
}

TEST(RequestLifeLegs, ARefusedDecodeLegKeepsTheHandoffAndALostOneDoesNot) {
    RequestLife life = prefilled();
    (void)life.next_request(Leg::kDecode);
    StepEvent refusal = failure(error(ErrorCode::kOverloaded, "full").value());
    EXPECT_EQ(life.take(refusal, {}), Taken::kRefused);
    EXPECT_EQ(life.next_step({}), Step::kDecode);
    EXPECT_TRUE(life.take_releases().empty());
    (void)life.next_request(Leg::kDecode);
    EXPECT_FALSE(life.lost(gone()));
    EXPECT_EQ(life.take_releases().size(), 1U);
    EXPECT_EQ(life.next_step({}), Step::kPrompt);
    EXPECT_FALSE(life.may_split());
}

TEST(RequestLifeLegs, AHandoffThatNobodyWillTakeIsReleasedAndThePromptComputedAgain) {
    RequestLife life = prefilled();
    EXPECT_FALSE(life.give_up_handoff());
    EXPECT_EQ(life.take_releases().size(), 1U);
    EXPECT_EQ(life.next_step({}), Step::kPrompt);
    EXPECT_FALSE(life.may_split());
    EXPECT_EQ(life.next_request().get(), &life.original());
    EXPECT_EQ(give(life, {1}), Taken::kPassOn);
    EXPECT_EQ(life.migrations(), 0U);
}

TEST(RequestLifeLegs, WhatThePrefillLegCannotDoTheWholeRequestMay) {
    RequestLife life(request_of(8), 3);
    (void)life.next_request(Leg::kPrefill);
    StepEvent end = failure(error(ErrorCode::kExhausted, "no memory for the handoff").value());
    EXPECT_EQ(life.take(end, {}), Taken::kLost);
    EXPECT_FALSE(life.lost(*end.error));
    EXPECT_FALSE(life.may_split());
    (void)life.next_request();
    // The same of a whole request is the client's.
    end = failure(error(ErrorCode::kExhausted, "no memory").value());
    EXPECT_EQ(life.take(end, {}), Taken::kPassOn);
    EXPECT_TRUE(life.ended());
}

TEST(RequestLifeLegs, AnErrorOfTheClientsEndsAPrefillLegToo) {
    RequestLife life(request_of(8), 3);
    (void)life.next_request(Leg::kPrefill);
    StepEvent end = failure(error(ErrorCode::kInvalidArgument, "no such token").value());
    EXPECT_EQ(life.take(end, {}), Taken::kPassOn);
    EXPECT_TRUE(life.ended());
}

TEST(RequestLifeLegs, AHandoffThatDoesNotFitIsNotUsed) {
    for (const auto& wrong :
         {handoff(1, Handoff::Kind::kKv, 2), handoff(1, Handoff::Kind::kEmbeddings, 3),
          std::shared_ptr<const Handoff>()}) {
        RequestLife life(request_of(8), 3);
        (void)life.next_request(Leg::kPrefill);
        StepEvent end = left(wrong);
        EXPECT_EQ(life.take(end, {}), Taken::kLost);
        EXPECT_FALSE(life.lost(gone()));
        EXPECT_EQ(life.take_releases().size(), wrong ? 1U : 0U);
        EXPECT_EQ(life.next_step({}), Step::kPrompt);
    }
}

TEST(RequestLifeLegs, EmbeddingsAreUsedByTheFirstLegAndMadeAgainForTheNext) {
    RequestLife life(request_of(8, 2), 3);
    EXPECT_EQ(life.next_step({}), Step::kPrompt);
    const auto whole = life.next_request();
    EXPECT_TRUE(whole->media[0].embeddings);
    EXPECT_FALSE(whole->media[0].content);
    EXPECT_EQ(give(life, {1}), Taken::kPassOn);
    EXPECT_FALSE(life.lost(gone()));
    EXPECT_TRUE(life.take_releases().empty());
    for (std::uint8_t i = 0; i < 2; ++i) {
        ASSERT_EQ(life.next_step({}), Step::kEncode);
        const auto encode = life.next_request(Leg::kEncode);
        EXPECT_TRUE(encode->prompt.empty());
        ASSERT_EQ(encode->media.size(), 1U);
        EXPECT_EQ(encode->media[0].digest[0], i);
        EXPECT_TRUE(encode->media[0].content);
        StepEvent end = left(handoff(i, Handoff::Kind::kEmbeddings, kRows));
        EXPECT_EQ(life.take(end, {}), Taken::kNextLeg);
    }
    ASSERT_EQ(life.next_step({}), Step::kPrompt);
    const auto resumed = life.next_request();
    EXPECT_EQ(resumed->resumed_tokens, 1U);
    EXPECT_EQ(resumed->media[1].embeddings->id[0], 1);
}

/// Of an engine of others: its items are names there, and their pixels go along.
GenerateRequest engines_own(std::uint32_t max_tokens, std::size_t items) {
    GenerateRequest r = request_of(max_tokens, items);
    for (auto& item : r.media) {
        auto h = std::make_shared<Handoff>(*item.embeddings);
        h->object = "{}";
        item.embeddings = std::move(h);
    }
    return r;
}

TEST(RequestLifeLegs, EnginesOwnEmbeddingsGoWithEveryLegAndTheirPixels) {
    RequestLife life(engines_own(8, 2), 3);
    for (const Leg leg : {Leg::kPrefill, Leg::kDecode}) {
        const auto q = life.next_request(leg);
        for (const auto& item : q->media) {
            EXPECT_TRUE(item.embeddings);
            EXPECT_TRUE(item.content);
        }
        if (leg == Leg::kDecode) break;
        StepEvent end = left(handoff(1, Handoff::Kind::kKv, 3));
        EXPECT_EQ(life.take(end, {}), Taken::kNextLeg);
    }
    // They are not used up: after a loss it is for who takes over to encode, or to find them.
    EXPECT_EQ(give(life, {5}), Taken::kPassOn);
    EXPECT_FALSE(life.lost(gone()));
    EXPECT_EQ(life.next_step({}), Step::kPrompt);
    EXPECT_TRUE(life.next_request()->media[1].embeddings);
    (void)life.end(FinishReason::kCancelled);
    EXPECT_EQ(life.take_releases().size(), 2U);
}

TEST(RequestLifeLegs, SaysHowTheEmbeddingsOfItsMediaCanBeHad) {
    const auto at = [](std::uint8_t id, const std::vector<std::string>& methods) {
        auto out = std::make_shared<Handoff>(*handoff(id, Handoff::Kind::kEmbeddings, kRows));
        out->places.clear();
        for (const auto& method : methods) out->places.push_back({method, "somewhere"});
        return out;
    };
    auto q = request_of(8, 3);
    q.media[0].embeddings = at(1, {"shm", "tcp"});
    q.media[1].embeddings = at(2, {"tcp"});
    q.media[2].embeddings = at(3, {});
    RequestLife life(q, 3);
    EXPECT_EQ(life.media_methods(), std::vector<std::string>{"tcp"});
    // Those of now, not those it came with.
    q.media[1].embeddings.reset();
    RequestLife again(q, 3);
    ASSERT_EQ(again.next_step({}), Step::kEncode);
    EXPECT_EQ(again.media_methods(), (std::vector<std::string>{"shm", "tcp"}));
    (void)again.next_request(Leg::kEncode);
    StepEvent end = left(at(4, {"nixl"}));
    ASSERT_EQ(again.take(end, {}), Taken::kNextLeg);
    EXPECT_EQ(again.media_methods(), std::vector<std::string>{"nixl"});
    EXPECT_TRUE(RequestLife(request_of(8), 3).media_methods().empty());
}

TEST(RequestLifeLegs, ADecodeLegGetsNoEmbeddingsAndSaysWhenItNeedsThem) {
    RequestLife life(request_of(8, 1), 3);
    EXPECT_TRUE(life.next_request(Leg::kPrefill)->media[0].embeddings);
    StepEvent end = left(handoff(1, Handoff::Kind::kKv, 3));
    EXPECT_EQ(life.take(end, {}), Taken::kNextLeg);
    const auto decode = life.next_request(Leg::kDecode);
    ASSERT_EQ(decode->media.size(), 1U);
    EXPECT_FALSE(decode->media[0].embeddings);
    StepEvent lacking = failure(no_media());
    EXPECT_EQ(life.take(lacking, {}), Taken::kNextLeg);
    EXPECT_EQ(life.take_releases().size(), 1U);
    EXPECT_EQ(life.next_step({}), Step::kEncode);
    EXPECT_EQ(life.migrations(), 1U);
}

TEST(RequestLifeLegs, AnItemThatIsNotHereAnyMoreEndsTheRequest) {
    GenerateRequest request = request_of(8, 1);
    request.media[0].content = nullptr;
    RequestLife life(request, 3);
    (void)life.next_request();
    const auto end = life.lost(gone());
    ASSERT_TRUE(end);
    EXPECT_EQ(end->error->code, ErrorCode::kUnavailable);
    EXPECT_EQ(life.take_releases().size(), 1U);
}

TEST(RequestLifeLegs, ExpiringEmbeddingsAreMadeAgainBeforeTheyAreSent) {
    GenerateRequest request = request_of(8, 2);
    request.media[1].embeddings =
        handoff(9, Handoff::Kind::kEmbeddings, kRows, Deadline::at(at(1s)));
    RequestLife life(request, 3);
    EXPECT_EQ(life.next_step(at(500ms)), Step::kPrompt);
    EXPECT_EQ(life.next_step(at(1s)), Step::kEncode);
    const auto released = life.take_releases();
    ASSERT_EQ(released.size(), 1U);
    EXPECT_EQ(released[0]->id[0], 9);
    EXPECT_EQ(life.next_request(Leg::kEncode)->media[0].digest[0], 1);
}

TEST(RequestLifeLegs, ASubmittersEncodeLegEndsWithItsHandoff) {
    GenerateRequest request = request_of(1, 1);
    request.leg = Leg::kEncode;
    request.prompt.clear();
    request.media[0].embeddings = nullptr;
    RequestLife life(request, 1);
    EXPECT_EQ(life.next_step({}), Step::kEncode);
    EXPECT_EQ(life.next_request(Leg::kEncode).get(), &life.original());
    EXPECT_FALSE(life.lost(gone()));
    (void)life.next_request(Leg::kEncode);
    StepEvent end = left(handoff(1, Handoff::Kind::kEmbeddings, 7));
    EXPECT_EQ(life.take(end, {}), Taken::kPassOn);
    EXPECT_TRUE(end.handoff);
    EXPECT_TRUE(life.ended());
    EXPECT_TRUE(life.take_releases().empty());
}

/// Random histories: what is made, what is used and what is released; the tokens are 0, 1, 2, …
class History {
  public:
    explicit History(const GenerateRequest& request) : life_(request, 6) {
        for (const auto& item : request.media) made(item.embeddings);
    }

    void run() {
        for (int legs = 0; !end_; ++legs) {
            RC_ASSERT(legs < 200);
            if (*rc::gen::inRange(0, 30) == 0) {
                over(life_.end(FinishReason::kCancelled));
            } else {
                leg();
            }
            collect();
        }
        for (const auto& [id, fate] : fates_) RC_ASSERT(fate.used + fate.released == 1);
        RC_ASSERT(life_.ended());
        for (std::size_t i = 0; i < tokens_.size(); ++i) RC_ASSERT(tokens_[i] == i);
        const auto max = life_.original().max_tokens;
        RC_ASSERT(tokens_.size() <= max);
        RC_ASSERT((end_->finish == FinishReason::kLength) == (tokens_.size() == max));
    }

  private:
    struct Fate {
        int used = 0;
        int released = 0;
    };

    void made(const std::shared_ptr<const Handoff>& h) {
        RC_ASSERT(fates_.try_emplace(h.get()).second);
        keep_.push_back(h);
    }
    void collect() {
        for (const auto& h : life_.take_releases()) ++fates_.at(h.get()).released;
    }
    void over(const StepEvent& end) {
        RC_ASSERT(!end_);
        end_ = end;
    }
    std::shared_ptr<const Handoff> make(Handoff::Kind kind, std::uint32_t tokens) {
        const auto expires =
            *rc::gen::inRange(0, 4) == 0 ? Deadline::at(at(now_ + 2ms)) : Deadline::never();
        auto h = handoff(0, kind, tokens, expires);
        made(h);
        return h;
    }

    void leg() {
        now_ += std::chrono::milliseconds(*rc::gen::inRange(0, 3));
        const Step step = life_.next_step(at(now_));
        collect();
        switch (step) {
            case Step::kEncode:
                return run_leg(Leg::kEncode);
            case Step::kPrompt: {
                const bool split = life_.may_split() && *rc::gen::arbitrary<bool>();
                return run_leg(split ? Leg::kPrefill : Leg::kWhole);
            }
            case Step::kDecode:
                if (life_.handoff_expires().reached(at(now_)) || *rc::gen::inRange(0, 6) == 0) {
                    if (const auto end = life_.give_up_handoff()) over(*end);
                    return;
                }
                return run_leg(Leg::kDecode);
        }
    }

    void run_leg(Leg leg) {
        const auto request = life_.next_request(leg);
        RC_ASSERT(request->leg == leg);
        if (leg == Leg::kDecode) RC_ASSERT(fates_.at(request->handoff.get()).released == 0);
        if (leg == Leg::kWhole || leg == Leg::kPrefill) {
            for (const auto& item : request->media) {
                RC_ASSERT(item.embeddings != nullptr);
                const Fate& fate = fates_.at(item.embeddings.get());
                RC_ASSERT(fate.used + fate.released == 0);
            }
        }
        switch (*rc::gen::inRange(0, 8)) {
            case 0:
                return fail(ErrorCode::kOverloaded, "");
            case 1:
                return fail(ErrorCode::kInternal, "");
            case 2:
                return fail(ErrorCode::kUnavailable, "media");
            case 3:
                return lose();
            default:
                break;
        }
        if (leg == Leg::kEncode || leg == Leg::kPrefill) {
            const bool kv = leg == Leg::kPrefill;
            const std::uint32_t right =
                kv ? static_cast<std::uint32_t>(request->prompt.size()) - 1 : kRows;
            const bool wrong = *rc::gen::inRange(0, 8) == 0;
            StepEvent end = left(make(kv ? Handoff::Kind::kKv : Handoff::Kind::kEmbeddings,
                                      wrong ? right + 1 : right));
            const Taken taken = life_.take(end, {});
            RC_ASSERT(taken == (wrong ? Taken::kLost : Taken::kNextLeg));
            if (wrong) return lose();
            if (kv) use(*request);
            return;
        }
        generate(*request);
    }

    void generate(const GenerateRequest& request) {
        use(request);
        const auto some = *rc::gen::inRange(1U, request.max_tokens + 1);
        for (std::uint32_t i = 1; i <= some; ++i) {
            const std::vector<TokenOutput> token{
                {.token = static_cast<TokenId>(request.resumed_tokens + i - 1)}};
            StepEvent event;
            event.count = 1;
            if (i == request.max_tokens) event.finish = FinishReason::kLength;
            RC_ASSERT(life_.take(event, token) == Taken::kPassOn);
            tokens_.push_back(token[0].token);
            if (event.finish) return over(event);
        }
        lose();
    }

    void use(const GenerateRequest& request) {
        if (request.handoff) ++fates_.at(request.handoff.get()).used;
        for (const auto& item : request.media) {
            if (item.embeddings) ++fates_.at(item.embeddings.get()).used;
        }
    }

    void fail(ErrorCode code, const char* param) {
        Error e = error(code, "no").value();
        e.param = param;
        StepEvent event = failure(e);
        switch (life_.take(event, {})) {
            case Taken::kPassOn:
                return over(event);
            case Taken::kLost:
                return lose();
            case Taken::kRefused:
            case Taken::kNextLeg:
                return;
        }
    }

    void lose() {
        if (const auto end = life_.lost(gone())) over(*end);
    }

    RequestLife life_;
    std::map<const Handoff*, Fate> fates_;
    std::vector<std::shared_ptr<const Handoff>> keep_;  ///< so that addresses are unique
    std::vector<std::size_t> tokens_;
    std::optional<StepEvent> end_;
    std::chrono::milliseconds now_{0};
};

TEST(RequestLifeLegs, RandomHistoriesEndOnceWithEveryTokenAndHandoffAccountedFor) {
    EXPECT_TRUE(rc::check([] {
        GenerateRequest request = request_of(*rc::gen::inRange(1U, 8U), 0);
        const auto items = *rc::gen::inRange<std::size_t>(0, 3);
        request.media = request_of(1, items).media;
        History(request).run();
    }));
}

TEST(RequestLifeLegs, PairsTryAgainWhereNobodyElseCan) {
    RequestLife life(request_of(8), 3);
    for (int i = 0; i < 2; ++i) {
        EXPECT_EQ(life.may_split(), i == 0) << "others are asked first";
        EXPECT_TRUE(life.may_split_again());
        (void)life.next_request(Leg::kPrefill);
        auto done = left(handoff(static_cast<std::uint8_t>(i), Handoff::Kind::kKv, 3));
        ASSERT_EQ(life.take(done, {}), Taken::kNextLeg);
        (void)life.next_request(Leg::kDecode);
        auto failed = failure(error(ErrorCode::kInternal, "its peer has failed").value());
        ASSERT_EQ(life.take(failed, {}), Taken::kLost);
        ASSERT_FALSE(life.lost(*failed.error));
        EXPECT_EQ(life.take_releases().size(), 1U);
    }
    EXPECT_FALSE(life.may_split_again());
}

TEST(RequestLifeLegs, APairGoesOnWithTheTokensThatAreOut) {
    RequestLife life(request_of(8), 3);
    (void)life.next_request(Leg::kPrefill);
    auto done = left(handoff(1, Handoff::Kind::kKv, 3));
    ASSERT_EQ(life.take(done, {}), Taken::kNextLeg);
    (void)life.next_request(Leg::kDecode);
    StepEvent two;
    two.count = 2;
    ASSERT_EQ(life.take(two, std::vector<protocol::TokenOutput>{{.token = 8}, {.token = 9}}),
              Taken::kPassOn);
    ASSERT_FALSE(life.lost(gone()));
    EXPECT_FALSE(life.may_split());
    ASSERT_TRUE(life.may_split_again());
    EXPECT_EQ(life.next_request(Leg::kPrefill)->prompt.size(), 6U);
    auto again = left(handoff(2, Handoff::Kind::kKv, 5));
    again.cached_tokens = 5;
    ASSERT_EQ(life.take(again, {}), Taken::kNextLeg);
    const auto last = life.next_request(Leg::kDecode);
    EXPECT_EQ(last->resumed_tokens, 2U);
    ASSERT_TRUE(last->handoff);
    StepEvent end;
    end.count = 1;
    end.finish = FinishReason::kLength;
    ASSERT_EQ(life.take(end, std::vector<protocol::TokenOutput>{{.token = 7}}), Taken::kPassOn);
    EXPECT_EQ(end.prompt_tokens, 4U);
    EXPECT_EQ(end.cached_tokens, 2U) << "of the prompt that the client sent";
}

}  // namespace
}  // namespace stator::legs
