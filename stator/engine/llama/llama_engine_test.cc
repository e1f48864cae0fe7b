#include "stator/engine/llama/llama_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <set>
#include <string>
#include <variant>

#include "stator/engine/llama/llama_fixture.h"
#include "stator/model/gguf_model.h"

namespace stator::engine {
namespace {

using Kind = protocol::OutputConstraint::Kind;

TEST_F(LlamaEngineTest, SixteenAtOnceEqualOneByOneAndPlainLlamaUpToNearTies) {
    constexpr int kTokens = 40;
    PlainLlama plain;
    std::vector<std::vector<TokenId>> prompts;
    std::vector<PlainLlama::Greedy> want;
    for (const auto& q : questions()) {
        prompts.push_back(plain.tokens(q));
        want.push_back(plain.greedy(prompts.back(), kTokens));
    }
    LlamaOptions o = options();
    o.prefix_cache = false;
    start(o);
    Differences alone;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        ASSERT_TRUE(submit(i + 1, prompts[i], kTokens, [](auto& r) { r.ignore_eos = true; }));
        const auto got = sink->wait(i + 1);
        expect_equal_up_to_near_tie(want[i], got.tokens, "one by one: " + std::to_string(i), alone);
    }
    Differences together;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        ASSERT_TRUE(submit(i + 101, prompts[i], kTokens, [](auto& r) { r.ignore_eos = true; }));
    }
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        const auto got = sink->wait(i + 101);
        expect_equal_up_to_near_tie(want[i], got.tokens, "at once: " + std::to_string(i), together);
    }
    std::printf(
        "texts of %d tokens that leave the oracle's path: one by one %d of 16 (widest gap %.3f), "
        "sixteen at once %d of 16 (widest gap %.3f; tolerance %.2f)\n",
        kTokens, alone.texts, static_cast<double>(alone.widest_gap), together.texts,
        static_cast<double>(together.widest_gap), static_cast<double>(kNearTie));
    EXPECT_LE(alone.texts, 8);
}

TEST_F(LlamaEngineTest, TheSecondTurnIsCachedAndItsTextIsTheSame) {
    PlainLlama plain;
    start(options());
    std::string history;
    for (int i = 0; i < 12; ++i) history += questions()[static_cast<std::size_t>(i)];
    const auto first = plain.tokens(history);
    ASSERT_TRUE(submit(1, first, 24));
    auto turn = first;
    for (const TokenId t : sink->wait(1).tokens) turn.push_back(t);
    const auto more =
        plain.tokens("<|im_end|>\n<|im_start|>user\nGo on.<|im_end|>\n<|im_start|>assistant\n");
    turn.insert(turn.end(), more.begin(), more.end());
    ASSERT_TRUE(submit(2, turn, 24, [](auto& r) { r.ignore_eos = true; }));
    const auto second = sink->wait(2);
    EXPECT_GE(second.cached + 16, first.size());
    Differences differences;
    expect_equal_up_to_near_tie(plain.greedy(turn, 24), second.tokens, "second turn", differences);
    EXPECT_GE(engine->forward_pass_metrics().cached_tokens, second.cached);
}

TEST_F(LlamaEngineTest, CancelEndsWithinAStepAndFreesEverything) {
    start(options());
    PlainLlama plain;
    ASSERT_TRUE(
        submit(1, plain.tokens(questions()[0]), 1500, [](auto& r) { r.ignore_eos = true; }));
    sink->wait_first_token(1);
    const auto steps = engine->forward_pass_metrics().steps;
    engine->cancel(RequestId(1));
    const auto outcome = sink->wait(1);
    EXPECT_EQ(outcome.finish, FinishReason::kCancelled);
    EXPECT_LE(engine->forward_pass_metrics().steps, steps + 3);
    engine->cancel(RequestId(1));
    engine->cancel(RequestId(999));
    ASSERT_TRUE(submit(2, plain.tokens(questions()[1]), 2));
    sink->wait(2);
    engine->stop(Deadline::never());
    EXPECT_EQ(engine->load().running, 0U);
    EXPECT_EQ(engine->load().kv_used_tokens, 0U);
    EXPECT_EQ(sink->wait(1).ends, 1);
}

TEST_F(LlamaEngineTest, AFullQueueRefusesWithAHint) {
    LlamaOptions o = options();
    o.max_running = 1;
    o.max_waiting = 2;
    start(o);
    PlainLlama plain;
    const auto prompt = plain.tokens(questions()[0]);
    for (std::uint64_t id = 1; id <= 3; ++id) {
        ASSERT_TRUE(submit(id, prompt, 200, [](auto& r) { r.ignore_eos = true; }));
    }
    const auto refused = submit(4, prompt, 5);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kOverloaded);
    EXPECT_GE(refused.error().retry_after_ms, 1000U);
    engine->stop(Deadline::at(Clock::real().now()));
    for (std::uint64_t id = 1; id <= 3; ++id) {
        const auto outcome = sink->wait(id);
        EXPECT_EQ(outcome.ends, 1);
        EXPECT_EQ(outcome.finish, FinishReason::kError);
    }
    EXPECT_EQ(submit(5, prompt, 5).error().code, ErrorCode::kUnavailable);
}

TEST_F(LlamaEngineTest, BadRequestsAreRefusedBeforeAnyWork) {
    start(options());
    EXPECT_FALSE(submit(1, {}, 5));
    EXPECT_FALSE(submit(2, {1, 2, 3}, 0));
    EXPECT_FALSE(submit(3, {1, 2, 3}, 2046));
    EXPECT_THAT(submit(4, {1, 4'000'000}, 5).error().message, testing::HasSubstr("4000000"));
    EXPECT_EQ(engine->forward_pass_metrics().steps, 0U);
}

TEST_F(LlamaEngineTest, ADeadlineEndsARequest) {
    start(options());
    PlainLlama plain;
    ASSERT_TRUE(submit(1, plain.tokens(questions()[0]), 1500, [](auto& r) {
        r.ignore_eos = true;
        r.deadline = Deadline::after(Clock::real().now(), std::chrono::milliseconds(300));
    }));
    const auto outcome = sink->wait(1);
    EXPECT_EQ(outcome.finish, FinishReason::kCancelled);
    ASSERT_TRUE(outcome.error);
    EXPECT_EQ(outcome.error->code, ErrorCode::kDeadlineExceeded);
}

TEST_F(LlamaEngineTest, LogprobsBelongToTheTokensDrawn) {
    start(options());
    PlainLlama plain;
    ASSERT_TRUE(submit(1, plain.tokens(questions()[2]), 10, [](auto& r) { r.top_logprobs = 5; }));
    const auto outcome = sink->wait(1);
    for (std::size_t i = 0; i < outcome.tokens.size(); ++i) {
        ASSERT_EQ(outcome.top[i].size(), 5U);
        EXPECT_EQ(outcome.top[i][0].token, outcome.tokens[i]);
        EXPECT_FLOAT_EQ(outcome.top[i][0].logprob, outcome.logprobs[i]);
        EXPECT_LE(outcome.logprobs[i], 0.0F);
    }
}

TEST_F(LlamaEngineTest, SeedsDecideTheDraw) {
    start(options());
    PlainLlama plain;
    const auto prompt = plain.tokens(questions()[3]);
    const auto run = [&](std::uint64_t id, std::optional<std::uint64_t> seed) {
        EXPECT_TRUE(submit(id, prompt, 24, [&](auto& r) {
            r.sampling.temperature = 1.0F;
            r.sampling.seed = seed;
            r.cache_salt = id;  // the same batch shapes for all
        }));
        return sink->wait(id).tokens;
    };
    const auto a = run(1, 5);
    EXPECT_EQ(run(2, 5), a);
    EXPECT_NE(run(3, 6), a);
    EXPECT_NE(run(4, std::nullopt), run(5, std::nullopt));
}

/// A worker is lost after some tokens; another one goes on with them. Its kernels see other batch
/// shapes than an undisturbed run, so the texts may part at a near-tie.
TEST_F(LlamaEngineTest, ARunCutAnywhereGoesOnAsIfItHadNotBeenCut) {
    constexpr std::uint32_t kTokens = 32;
    PlainLlama plain;
    LlamaOptions o = options();
    o.prefix_cache = false;
    start(o);
    const auto prompt = plain.tokens(questions()[4]);
    std::uint64_t next_id = 1;
    const auto go_on = [&](const std::vector<TokenId>& so_far, const auto& change) {
        const std::uint64_t id = next_id++;
        auto sequence = prompt;
        sequence.insert(sequence.end(), so_far.begin(), so_far.end());
        const auto resumed = static_cast<std::uint32_t>(so_far.size());
        EXPECT_TRUE(submit(id, std::move(sequence), kTokens - resumed, [&](GenerateRequest& r) {
            r.ignore_eos = true;
            r.resumed_tokens = resumed;
            change(r);
        }));
        auto tokens = so_far;
        const auto rest = sink->wait(id).tokens;
        tokens.insert(tokens.end(), rest.begin(), rest.end());
        return tokens;
    };

    const auto want = plain.greedy(prompt, kTokens);
    Differences differences;
    for (const std::uint32_t cut : {1U, 7U, 16U, 31U}) {
        const std::vector<TokenId> so_far(want.tokens.begin(), want.tokens.begin() + cut);
        expect_equal_up_to_near_tie(want, go_on(so_far, [](GenerateRequest&) {}),
                                    "greedy, cut at " + std::to_string(cut), differences);
    }

    // A draw depends little on how logits were rounded and much on its random number: a text that
    // starts its numbers again parts from the undisturbed one at once.
    const auto sampled = [](GenerateRequest& r) {
        r.sampling.temperature = 1.0F;
        r.sampling.top_k = 4;
        r.sampling.seed = 5;
        r.sampling.frequency_penalty = 0.4F;
        r.sampling.repetition_penalty = 1.2F;
    };
    const auto whole = go_on({}, sampled);
    int equal = 0;
    for (const std::uint32_t cut : {1U, 7U, 16U, 31U}) {
        const std::vector<TokenId> so_far(whole.begin(), whole.begin() + cut);
        const auto moved = go_on(so_far, sampled);
        ASSERT_EQ(moved.size(), whole.size());
        equal += moved == whole ? 1 : 0;
    }
    EXPECT_GE(equal, 3) << "of 4; one may part where a draw falls between two roundings";
}

TEST_F(LlamaEngineTest, KvEventsReplayToWhatIsCached) {
    std::set<std::uint64_t> resident;
    LlamaOptions o = options();
    o.context_tokens = 512;
    o.max_sequence_tokens = 512;
    start(o, [&](const std::vector<protocol::KvEvent>& events) {
        for (const auto& e : events) {
            if (const auto* s = std::get_if<protocol::KvStored>(&e.what)) {
                for (const auto& b : s->blocks) resident.insert(b.sequence.value);
            } else if (const auto* r = std::get_if<protocol::KvRemoved>(&e.what)) {
                for (const auto& h : r->sequences) resident.erase(h.value);
            } else {
                resident.clear();
            }
        }
    });
    PlainLlama plain;
    for (std::uint64_t id = 1; id <= 16; ++id) {
        ASSERT_TRUE(submit(id, plain.tokens(questions()[id - 1]), 60,
                           [](auto& r) { r.ignore_eos = true; }));
    }
    for (std::uint64_t id = 1; id <= 16; ++id) EXPECT_EQ(sink->wait(id).tokens.size(), 60U);
    engine->stop(Deadline::never());
    EXPECT_EQ(resident.size() * 16, engine->load().kv_cached_tokens);
    EXPECT_GT(resident.size(), 0U);
}

TEST(LlamaEngineLoad, SaysWhatIsWrongWithAFile) {
    LlamaOptions o;
    o.model_path = "/nonexistent/model.gguf";
    const auto missing = make_llama_engine(o, {});
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
    o.max_running = 0;
    EXPECT_THAT(make_llama_engine(o, {}).error().message, testing::HasSubstr("max_running"));
}

class GuidedLlamaTest : public LlamaEngineTest {
  protected:
    void SetUp() override {
        LlamaEngineTest::SetUp();
        if (IsSkipped()) return;
        auto file = model::GgufModel::open(model_path());
        ASSERT_TRUE(file);
        file_ = std::move(*file);
        LlamaOptions o = options();
        o.tokenizer = {file_, &file_->tokenizer()};
        o.max_running = 8;
        start(o);
        EXPECT_TRUE(engine->info().structured_output);
        ASSERT_TRUE(file_->tokenizer().encode("Once upon a time", text::SpecialTokens::kAsText,
                                              true, prompt_));
    }

    Result<void> ask(std::uint64_t id, Kind kind, std::string text, std::uint32_t max_tokens,
                     const std::function<void(GenerateRequest&)>& change = {}) {
        return submit(id, prompt_, max_tokens, [&](GenerateRequest& r) {
            r.constraint = std::make_shared<const protocol::OutputConstraint>(
                protocol::OutputConstraint{kind, std::move(text), ""});
            if (change) change(r);
        });
    }

    std::string text_of(const std::vector<TokenId>& tokens) const {
        std::string out;
        for (const TokenId t : tokens) out += file_->tokenizer().bytes(t);
        return out;
    }

    std::shared_ptr<const model::GgufModel> file_;
    std::vector<TokenId> prompt_;
};

TEST_F(GuidedLlamaTest, ManyAtOnceEachObeyTheirOwn) {
    const char* schema =
        R"({"type":"object","properties":{"a":{"type":"integer","minimum":0,)"
        R"("maximum":99},"b":{"enum":["x","y"]}},"required":["a","b"],)"
        R"("additionalProperties":false,"x-guidance":{"whitespace_flexible":false}})";
    for (std::uint64_t i = 1; i <= 12; ++i) {
        const auto sampling = [i](GenerateRequest& r) {
            r.sampling.temperature = i % 2 == 0 ? 0.0F : 1.3F;
            r.sampling.seed = i;
            r.sampling.repetition_penalty = i % 4 == 0 ? 1.3F : 1.0F;
            r.top_logprobs = i % 3 == 0 ? 2 : -1;
        };
        if (i % 4 == 3) {
            ASSERT_TRUE(submit(i, prompt_, 20, sampling));  // free
        } else if (i % 4 == 2) {
            ASSERT_TRUE(ask(i, Kind::kRegex, "(ab|cd){3}", 40, sampling));
        } else {
            ASSERT_TRUE(ask(i, Kind::kJsonSchema, schema, 60, sampling));
        }
    }
    for (std::uint64_t i = 1; i <= 12; ++i) {
        const auto got = sink->wait(i);
        EXPECT_EQ(got.ends, 1);
        if (i % 4 == 3) continue;
        EXPECT_EQ(got.finish, FinishReason::kStop) << i;
        const std::string text = text_of(got.tokens);
        EXPECT_THAT(text, testing::MatchesRegex(i % 4 == 2 ? "(ab|cd)(ab|cd)(ab|cd)"
                                                           : R"(\{"a":[0-9]+,"b":"[xy]"\})"))
            << i;
    }
    const auto work = engine->forward_pass_metrics();
    EXPECT_GT(work.guided_tokens, 30U);
    EXPECT_GT(work.guide_seconds, 0.0);
}

TEST_F(GuidedLlamaTest, TheGrammarsEndIsTheTextsEnd) {
    for (std::uint64_t id = 1; id <= 3; ++id) {
        ASSERT_TRUE(ask(id, Kind::kRegex, "[ab]{4}", 40, [id](GenerateRequest& r) {
            r.ignore_eos = id == 2;
            r.min_tokens = id == 3 ? 30 : 0;
        }));
        const auto got = sink->wait(id);
        EXPECT_EQ(got.finish, FinishReason::kStop);
        EXPECT_EQ(text_of(got.tokens).size(), 4U);
    }
    // Where it may end and need not, the model decides; masked ends leave it no choice.
    ASSERT_TRUE(ask(4, Kind::kRegex, "[ab]{2,9}", 40, [](auto& r) { r.ignore_eos = true; }));
    EXPECT_EQ(text_of(sink->wait(4).tokens).size(), 9U);
    ASSERT_TRUE(ask(5, Kind::kRegex, "[ab]{50}", 3));
    const auto cut = sink->wait(5);
    EXPECT_EQ(cut.finish, FinishReason::kLength);
    EXPECT_EQ(cut.tokens.size(), 3U);
    // Nothing at all is a text too.
    ASSERT_TRUE(ask(6, Kind::kRegex, "x?", 3, [](auto& r) { r.ignore_eos = true; }));
    EXPECT_EQ(sink->wait(6).finish, FinishReason::kStop);
}

TEST_F(GuidedLlamaTest, WhatCanNotBeUsedFailsBeforeAnyToken) {
    ASSERT_TRUE(ask(1, Kind::kJsonSchema, R"({"type":"strnig"})", 5));
    const auto got = sink->wait(1);
    EXPECT_EQ(got.finish, FinishReason::kError);
    EXPECT_TRUE(got.tokens.empty());
    ASSERT_TRUE(got.error);
    EXPECT_EQ(got.error->code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(got.error->param, "constraint");
    // The engine is none the worse for it.
    ASSERT_TRUE(ask(2, Kind::kChoice, R"(["good"])", 9));
    EXPECT_EQ(text_of(sink->wait(2).tokens), "good");
    // Free text up to a mark that can't be followed by anything: an end with a reason, no hang.
    ASSERT_TRUE(ask(3, Kind::kRegex, "((a{1,100}){1,100}){1,100}", 200));
    EXPECT_TRUE(sink->wait(3).finish.has_value());
}

TEST_F(GuidedLlamaTest, ARunCutAnywhereGoesOnUnderTheSameConstraint) {
    const std::string regex = "[0-9]{3}(-[0-9]{3}){5}";
    ASSERT_TRUE(ask(1, Kind::kRegex, regex, 60));
    const auto whole = sink->wait(1).tokens;
    for (std::uint32_t cut = 1; cut < whole.size(); cut += 3) {
        ASSERT_TRUE(ask(10 + cut, Kind::kRegex, regex, 60 - cut, [&](GenerateRequest& r) {
            r.prompt.insert(r.prompt.end(), whole.begin(), whole.begin() + cut);
            r.resumed_tokens = cut;
        }));
        const auto rest = sink->wait(10 + cut);
        EXPECT_EQ(rest.finish, FinishReason::kStop);
        std::vector<TokenId> all(whole.begin(), whole.begin() + cut);
        all.insert(all.end(), rest.tokens.begin(), rest.tokens.end());
        EXPECT_THAT(text_of(all),
                    testing::MatchesRegex("[0-9]+-[0-9]+-[0-9]+-[0-9]+-[0-9]+-[0-9]+"));
        EXPECT_EQ(text_of(all).size(), 23U);
    }
}

TEST_F(GuidedLlamaTest, CancelledWhileItsConstraintIsCompiled) {
    // Slow to compile, so that the cancellation is there first.
    std::string slow;
    for (int i = 0; i < 5000; ++i) slow += "a?";
    slow.append(5000, 'a');
    ASSERT_TRUE(ask(1, Kind::kRegex, slow, 5));
    ASSERT_TRUE(ask(2, Kind::kRegex, slow, 5));
    engine->cancel(RequestId(2));
    const auto second = sink->wait(2);
    EXPECT_EQ(second.finish, FinishReason::kCancelled);
    EXPECT_EQ(second.ends, 1);
    sink->wait(1);
    ASSERT_TRUE(ask(3, Kind::kRegex, slow, 5));
    engine->stop(Deadline::at(Clock::real().now()));
    EXPECT_EQ(sink->wait(3).ends, 1);
    EXPECT_EQ(sink->wait(2).ends, 1);
}

TEST_F(LlamaEngineTest, WithoutATokenizerConstraintsAreRefused) {
    start(options());
    EXPECT_FALSE(engine->info().structured_output);
    const auto refused = submit(1, {1, 2, 3}, 4, [](GenerateRequest& r) {
        r.constraint = std::make_shared<const protocol::OutputConstraint>();
    });
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace stator::engine
