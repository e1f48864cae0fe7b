#include "stator/engine/llama/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace stator::engine::llama {
namespace {

using protocol::SamplingParams;

SamplingParams greedy() {
    SamplingParams p;
    p.temperature = 0.0F;
    return p;
}

std::vector<float> ramp(std::size_t n) {
    std::vector<float> l(n);
    for (std::size_t i = 0; i < n; ++i) l[i] = static_cast<float>((i * 7) % n) * 0.01F;
    return l;
}

TEST(Argmax, FindsTheFirstHighestWhereverItIs) {
    for (std::size_t n : {1UL, 7UL, 8UL, 9UL, 1000UL}) {
        for (std::size_t at : {std::size_t{0}, n / 2, n - 1}) {
            std::vector<float> l(n, -1.0F);
            l[at] = 3.0F;
            EXPECT_EQ(argmax(l), at);
        }
    }
    EXPECT_EQ(argmax(std::vector<float>{1.0F, 5.0F, 5.0F}), 1U);
}

TEST(SamplerMask, OnlyAllowedTokensAreDrawn) {
    // 100 tokens: the fourth word has bits for 4 of them; the rest of the buffer is ignored.
    for (const float temperature : {0.0F, 1.0F}) {
        SamplingParams params;
        params.temperature = temperature;
        params.seed = 1;
        params.frequency_penalty = 1.0F;
        params.logit_bias = {{7, 50.0F}};
        Sampler sampler(params, {}, 1);
        const std::vector<std::uint32_t> allowed{0, 1U << 5, 0, 1U << 2, 0xffffffffU};
        std::map<tokens::TokenId, int> seen;
        for (int i = 0; i < 50; ++i) {
            auto logits = ramp(100);
            ++seen[sampler.draw(logits, {}, allowed)];
        }
        for (const auto& [token, times] : seen) EXPECT_TRUE(token == 37 || token == 98) << token;
        EXPECT_EQ(seen.size(), 2U);  // the penalty makes both come
        const tokens::TokenId masked[] = {98};
        auto logits = ramp(100);
        EXPECT_EQ(sampler.draw(logits, masked, allowed), 37U);
        // A mask that is too short leaves out what it does not name.
        logits = ramp(100);
        EXPECT_EQ(sampler.draw(logits, {}, std::span(allowed).first(2)), 37U);
    }
}

TEST(Logprobs, SumToOneAndAreSorted) {
    const auto logits = ramp(500);
    const auto all = logprobs_of(logits, 3, 500);
    double sum = 0.0;
    for (const auto& t : all.top) sum += std::exp(t.logprob);
    EXPECT_NEAR(sum, 1.0, 1e-4);
    for (std::size_t i = 1; i < all.top.size(); ++i)
        EXPECT_GE(all.top[i - 1].logprob, all.top[i].logprob);
    for (const auto& t : all.top) {
        if (t.token == 3) EXPECT_FLOAT_EQ(t.logprob, all.chosen);
    }
    EXPECT_TRUE(logprobs_of(logits, 3, 0).top.empty());
}

TEST(Sampler, GreedyTakesTheBest) {
    auto logits = ramp(100);
    Sampler s(greedy(), {}, 1);
    EXPECT_EQ(s.draw(logits, {}), argmax(ramp(100)));
}

TEST(Sampler, MaskedTokensAreNotDrawn) {
    std::vector<float> logits{0.0F, 9.0F, 1.0F};
    Sampler s(greedy(), {}, 1);
    const std::vector<tokens::TokenId> masked{1};
    EXPECT_EQ(s.draw(logits, masked), 2U);
}

TEST(Sampler, LogitBiasCanForceAndForbid) {
    auto p = greedy();
    p.logit_bias = {{2, 100.0F}, {1, -100.0F}};
    Sampler s(p, {}, 1);
    std::vector<float> logits{0.0F, 9.0F, 1.0F};
    EXPECT_EQ(s.draw(logits, {}), 2U);
}

TEST(Sampler, FrequencyPenaltyCountsOnlyWhatWasGenerated) {
    auto p = greedy();
    p.frequency_penalty = 1.0F;
    const std::vector<tokens::TokenId> prompt{1, 1, 1, 1};
    Sampler s(p, prompt, 1);
    std::vector<tokens::TokenId> drawn;
    for (int i = 0; i < 4; ++i) {
        std::vector<float> logits{0.0F, 2.5F, 1.0F};
        drawn.push_back(s.draw(logits, {}));
    }
    // 2.5, 1.5, then 0.5 < 1.0.
    EXPECT_EQ(drawn, (std::vector<tokens::TokenId>{1, 1, 2, 1}));
}

TEST(Sampler, RepetitionPenaltyCountsThePromptToo) {
    auto p = greedy();
    p.repetition_penalty = 2.0F;
    const std::vector<tokens::TokenId> prompt{1};
    Sampler s(p, prompt, 1);
    std::vector<float> logits{0.9F, 1.5F, -1.0F};
    EXPECT_EQ(s.draw(logits, {}), 0U);
}

std::map<tokens::TokenId, int> histogram(const SamplingParams& p, const std::vector<float>& base,
                                         int n) {
    Sampler s(p, {}, 7);
    std::map<tokens::TokenId, int> counts;
    for (int i = 0; i < n; ++i) {
        auto logits = base;
        ++counts[s.draw(logits, {})];
    }
    return counts;
}

TEST(Sampler, DrawsWithTheRightProbabilities) {
    const std::vector<float> logits{std::log(0.5F), std::log(0.3F), std::log(0.2F)};
    const auto counts = histogram({}, logits, 20'000);
    EXPECT_NEAR(counts.at(0) / 20'000.0, 0.5, 0.02);
    EXPECT_NEAR(counts.at(1) / 20'000.0, 0.3, 0.02);
    EXPECT_NEAR(counts.at(2) / 20'000.0, 0.2, 0.02);
}

TEST(Sampler, TemperatureComesBeforeTopP) {
    // At temperature 2 the best has sqrt(.8) / (sqrt(.8) + sqrt(.2)) = 0.667 < 0.75: both stay.
    SamplingParams p;
    p.temperature = 2.0F;
    p.top_p = 0.75F;
    const std::vector<float> logits{std::log(0.8F), std::log(0.2F)};
    EXPECT_EQ(histogram(p, logits, 2'000).size(), 2U);
    p.temperature = 1.0F;
    EXPECT_EQ(histogram(p, logits, 2'000).size(), 1U);
}

TEST(Sampler, TopKAndMinPCutTheTail) {
    const std::vector<float> logits{2.0F, 1.9F, 1.8F, -3.0F};
    SamplingParams k;
    k.top_k = 2;
    EXPECT_EQ(histogram(k, logits, 2'000).size(), 2U);
    SamplingParams m;
    m.min_p = 0.5F;
    EXPECT_EQ(histogram(m, logits, 2'000).size(), 3U);
}

TEST(Sampler, TheSameSeedGivesTheSameTokens) {
    SamplingParams p;
    p.seed = 0xffffffffULL;  // folds to the library's "random"
    const auto run = [&](std::uint64_t fallback) {
        Sampler s(p, {}, fallback);
        std::vector<tokens::TokenId> out;
        for (int i = 0; i < 50; ++i) {
            auto logits = ramp(300);
            out.push_back(s.draw(logits, {}));
        }
        return out;
    };
    EXPECT_EQ(run(1), run(2));
    p.seed.reset();
    EXPECT_NE(run(1), run(2));
}

/// Logits that the position decides, as the tokens before it would.
std::vector<float> logits_at(std::size_t position) {
    std::vector<float> l(40);
    for (std::size_t i = 0; i < l.size(); ++i) {
        l[i] = static_cast<float>((i * 7 + position * 11) % 40) * 0.05F;
    }
    return l;
}

TEST(Sampler, ARunCutAnywhereGoesOnAsIfItHadNotBeenCut) {
    constexpr std::size_t kTokens = 30;
    const std::vector<tokens::TokenId> prompt{3, 3, 8, 21};
    std::vector<SamplingParams> cases(4);
    cases[0] = greedy();
    cases[0].frequency_penalty = 0.7F;
    cases[0].presence_penalty = 0.3F;
    cases[0].repetition_penalty = 1.3F;
    cases[1].seed = 11;
    cases[2].seed = 12;
    cases[2].top_k = 5;
    cases[2].top_p = 0.9F;
    cases[2].frequency_penalty = 0.5F;
    cases[3].seed = 13;
    cases[3].min_p = 0.5F;
    cases[3].repetition_penalty = 1.5F;
    for (std::size_t c = 0; c < cases.size(); ++c) {
        auto sequence = prompt;
        const auto draw_rest = [&](Sampler sampler) {
            std::vector<tokens::TokenId> out;
            for (std::size_t i = sequence.size() - prompt.size(); i < kTokens; ++i) {
                auto logits = logits_at(i);
                out.push_back(sampler.draw(logits, {}));
            }
            return out;
        };
        const auto whole = draw_rest(Sampler(cases[c], prompt, 1));
        for (std::uint32_t cut = 1; cut < kTokens; ++cut) {
            sequence = prompt;
            sequence.insert(sequence.end(), whole.begin(), whole.begin() + cut);
            const std::vector<tokens::TokenId> rest(whole.begin() + cut, whole.end());
            EXPECT_EQ(draw_rest(Sampler(cases[c], sequence, 2, cut)), rest)
                << "case " << c << ", cut at " << cut;
        }
    }
}

TEST(Sampler, ResumedTokensAreNotPartOfThePrompt) {
    auto p = greedy();
    p.presence_penalty = 2.0F;
    const std::vector<tokens::TokenId> prompt{0, 1, 500};  // 500 is beyond the logits: no harm
    std::vector<float> logits{2.0F, 2.5F, 1.0F};
    EXPECT_EQ(Sampler(p, prompt, 1, 2).draw(logits, {}), 0U);
}

}  // namespace
}  // namespace stator::engine::llama
