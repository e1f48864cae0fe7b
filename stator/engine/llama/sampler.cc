#include "stator/engine/llama/sampler.h"

#include <llama.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace stator::engine::llama {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
/// exp(-26) * 256k candidates < 1e-6: below this distance (in units of the temperature) nothing is
/// ever drawn.
constexpr float kIrrelevantNats = 26.0F;

float highest(std::span<const float> logits) {
    // Eight running maxima, so that the loop becomes vector instructions without -ffast-math.
    float best[8];
    std::fill(std::begin(best), std::end(best), kMinusInfinity);
    std::size_t i = 0;
    for (; i + 8 <= logits.size(); i += 8) {
        for (std::size_t k = 0; k < 8; ++k)
            best[k] = logits[i + k] > best[k] ? logits[i + k] : best[k];
    }
    float result = *std::max_element(std::begin(best), std::end(best));
    for (; i < logits.size(); ++i) result = std::max(result, logits[i]);
    return result;
}

void keep_allowed(std::span<float> logits, std::span<const std::uint32_t> allowed) {
    constexpr std::size_t kBits = 32;
    for (std::size_t from = 0; from < logits.size(); from += kBits) {
        const std::uint32_t word = from / kBits < allowed.size() ? allowed[from / kBits] : 0;
        const std::size_t n = std::min(kBits, logits.size() - from);
        if (word == 0) {
            std::fill_n(logits.begin() + static_cast<std::ptrdiff_t>(from), n, kMinusInfinity);
            continue;
        }
        for (std::size_t i = 0; i < n; ++i) {
            if ((word >> i & 1U) == 0) logits[from + i] = kMinusInfinity;
        }
    }
}

}  // namespace

tokens::TokenId argmax(std::span<const float> logits) {
    const float best = highest(logits);
    const auto it = std::find(logits.begin(), logits.end(), best);
    return it == logits.end() ? 0 : static_cast<tokens::TokenId>(it - logits.begin());
}

Logprobs logprobs_of(std::span<const float> logits, tokens::TokenId chosen, std::uint32_t top) {
    const float best = highest(logits);
    double sum = 0.0;
    for (const float l : logits) {
        const float d = l - best;
        if (d > -40.0F) sum += std::exp(d);
    }
    const auto log_sum = static_cast<float>(std::log(sum)) + best;

    Logprobs result;
    result.chosen = chosen < logits.size() ? logits[chosen] - log_sum : kMinusInfinity;
    const std::size_t count = std::min<std::size_t>(top, logits.size());
    if (count == 0) return result;
    std::vector<tokens::TokenId> order(logits.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<tokens::TokenId>(i);
    const auto better = [&](tokens::TokenId a, tokens::TokenId b) {
        return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
    };
    const auto end = order.begin() + static_cast<std::ptrdiff_t>(count);
    std::partial_sort(order.begin(), end, order.end(), better);
    for (auto it = order.begin(); it != end; ++it)
        result.top.push_back({*it, logits[*it] - log_sum});
    return result;
}

struct Sampler::Chain {
    explicit Chain(const protocol::SamplingParams& p, std::uint64_t seed) {
        auto params = llama_sampler_chain_default_params();
        params.no_perf = true;
        chain = llama_sampler_chain_init(params);
        llama_sampler_chain_add(chain, llama_sampler_init_temp(p.temperature));
        if (p.top_k > 0) llama_sampler_chain_add(chain, llama_sampler_init_top_k(p.top_k));
        if (p.top_p < 1.0F) llama_sampler_chain_add(chain, llama_sampler_init_top_p(p.top_p, 1));
        if (p.min_p > 0.0F) llama_sampler_chain_add(chain, llama_sampler_init_min_p(p.min_p, 1));
        // The library's generator takes 32 bits: fold, so that seeds that differ anywhere differ
        // here.
        const std::uint64_t s = p.seed.value_or(seed);
        auto folded = static_cast<std::uint32_t>(s ^ (s >> 32));
        if (folded == LLAMA_DEFAULT_SEED) folded = 0;  // which would ask for a random seed
        llama_sampler_chain_add(chain, llama_sampler_init_dist(folded));
    }
    ~Chain() { llama_sampler_free(chain); }

    /// Uses up the random numbers of `count` tokens. Asks the draw alone, the chain's last: a draw
    /// takes its number however many candidates there are.
    void skip(std::uint32_t count) {
        llama_sampler* draw = llama_sampler_chain_get(chain, llama_sampler_chain_n(chain) - 1);
        for (std::uint32_t i = 0; i < count; ++i) {
            llama_token_data pair[2] = {{0, 0.0F, 0.0F}, {1, 0.0F, 0.0F}};
            llama_token_data_array array{pair, 2, -1, false};
            llama_sampler_apply(draw, &array);
        }
    }
    Chain(const Chain&) = delete;
    Chain& operator=(const Chain&) = delete;

    llama_sampler* chain = nullptr;
    std::vector<llama_token_data> candidates;
};

Sampler::Sampler(const protocol::SamplingParams& params, std::span<const tokens::TokenId> prompt,
                 std::uint64_t seed, std::uint32_t resumed)
    : params_(params) {
    const auto drawn = prompt.last(std::min<std::size_t>(resumed, prompt.size()));
    prompt = prompt.first(prompt.size() - drawn.size());
    if (params.temperature > 0.0F) {
        chain_ = std::make_unique<Chain>(params, seed);
        chain_->skip(static_cast<std::uint32_t>(drawn.size()));
    }
    for (const auto token : drawn) count(token);
    if (params.repetition_penalty != 1.0F) {
        prompt_set_.assign(prompt.begin(), prompt.end());
        std::ranges::sort(prompt_set_);
        const auto repeats = std::ranges::unique(prompt_set_);
        prompt_set_.erase(repeats.begin(), repeats.end());
    }
}

Sampler::~Sampler() = default;
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;

void Sampler::penalise(std::span<float> logits) const {
    const auto repeat = [&](tokens::TokenId token) {
        float& l = logits[token];
        l = l > 0.0F ? l / params_.repetition_penalty : l * params_.repetition_penalty;
    };
    if (params_.repetition_penalty != 1.0F) {
        for (const auto token : prompt_set_) {
            if (token < logits.size()) repeat(token);
        }
    }
    for (const auto& [token, count] : generated_) {
        if (token >= logits.size()) continue;
        if (params_.repetition_penalty != 1.0F && !std::ranges::binary_search(prompt_set_, token)) {
            repeat(token);
        }
        logits[token] -=
            params_.frequency_penalty * static_cast<float>(count) + params_.presence_penalty;
    }
}

void Sampler::count(tokens::TokenId token) {
    const bool counts = params_.frequency_penalty != 0.0F || params_.presence_penalty != 0.0F ||
                        params_.repetition_penalty != 1.0F;
    if (counts) ++generated_[token];
}

tokens::TokenId Sampler::draw(std::span<float> logits, std::span<const tokens::TokenId> masked,
                              std::span<const std::uint32_t> allowed) {
    for (const auto& [token, bias] : params_.logit_bias) {
        if (token < logits.size()) logits[token] += bias;
    }
    penalise(logits);
    for (const auto token : masked) {
        if (token < logits.size()) logits[token] = kMinusInfinity;
    }
    if (!allowed.empty()) keep_allowed(logits, allowed);

    tokens::TokenId drawn = 0;
    if (!chain_) {
        drawn = argmax(logits);
    } else {
        const float floor = highest(logits) - kIrrelevantNats * params_.temperature;
        auto& candidates = chain_->candidates;
        candidates.clear();
        for (std::size_t i = 0; i < logits.size(); ++i) {
            if (logits[i] >= floor)
                candidates.push_back({static_cast<llama_token>(i), logits[i], 0.0F});
        }
        llama_token_data_array array{candidates.data(), candidates.size(), -1, false};
        llama_sampler_apply(chain_->chain, &array);
        const std::int64_t pick = array.selected;
        drawn = pick >= 0 && static_cast<std::size_t>(pick) < array.size
                    ? static_cast<tokens::TokenId>(array.data[pick].id)
                    : argmax(logits);
    }
    count(drawn);
    return drawn;
}

}  // namespace stator::engine::llama
