#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "stator/protocol/generate.h"
#include "stator/tokens/token.h"

namespace stator::engine::llama {

/// Natural-log probabilities of `logits` (temperature 1): the drawn token's and the `top` best,
/// best first.
struct Logprobs {
    float chosen = 0.0F;
    std::vector<protocol::TokenLogprob> top;
};
[[nodiscard]] Logprobs logprobs_of(std::span<const float> logits, tokens::TokenId chosen,
                                   std::uint32_t top);

/// Index of the highest logit, the lowest index on a tie.
[[nodiscard]] tokens::TokenId argmax(std::span<const float> logits);

/// Draws the tokens of one request. Order: logit bias, penalties, masked tokens, then
/// temperature, top_k, top_p, min_p and the draw (by llama.cpp's samplers, over the candidates that
/// can matter: what lies so far below the best that all of it together has less than 1e-6 of the
/// probability is left out first). Not thread-safe.
class Sampler {
  public:
    /// `seed` is used where the request has none. The last `resumed` tokens of `prompt` count as
    /// drawn: for the penalties, and the random numbers go on behind those that drew them.
    Sampler(const protocol::SamplingParams& params, std::span<const tokens::TokenId> prompt,
            std::uint64_t seed, std::uint32_t resumed = 0);
    ~Sampler();
    Sampler(Sampler&&) noexcept;
    Sampler& operator=(Sampler&&) noexcept;

    /// The next token. Changes `logits` in place (read what is needed of them before). `masked`
    /// can't be drawn. `allowed`, where it is not empty: neither can a token whose bit (t % 32 of
    /// allowed[t / 32]) is clear or missing; at least one bit of the vocabulary is set.
    [[nodiscard]] tokens::TokenId draw(std::span<float> logits,
                                       std::span<const tokens::TokenId> masked,
                                       std::span<const std::uint32_t> allowed = {});

  private:
    void penalise(std::span<float> logits) const;
    void count(tokens::TokenId token);

    struct Chain;
    protocol::SamplingParams params_;
    std::unordered_map<tokens::TokenId, std::uint32_t>
        generated_;                            ///< counts; filled only where penalties need it
    std::vector<tokens::TokenId> prompt_set_;  ///< distinct; only for repetition_penalty
    std::unique_ptr<Chain> chain_;             ///< null = greedy
};

}  // namespace stator::engine::llama
