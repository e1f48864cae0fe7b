#include <benchmark/benchmark.h>

#include <numeric>
#include <vector>

#include "stator/tokens/token_sequence.h"

namespace stator::tokens {
namespace {

constexpr std::size_t kTokens = 8192;

/// A prompt of 8k tokens: copied, cut into blocks, hashed.
void hash_prompt(benchmark::State& state) {
    std::vector<TokenId> tokens(kTokens);
    std::iota(tokens.begin(), tokens.end(), 1000U);
    const auto block_size = static_cast<std::size_t>(state.range(0));
    TokenSequence s(block_size, hash_seed());
    for (auto _ : state) {
        s.truncate(0);
        s.append(tokens);
        benchmark::DoNotOptimize(s.sequence_hashes().data());
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * kTokens));
}
BENCHMARK(hash_prompt)->ArgName("block")->Arg(16)->Arg(32)->Arg(64)->Arg(128);

/// Decoding: one token at a time.
void push_token(benchmark::State& state) {
    TokenSequence s(16, hash_seed());
    s.reserve(kTokens);
    TokenId token = 0;
    for (auto _ : state) {
        if (s.size() == kTokens) s.truncate(0);
        s.push(token++);
    }
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}
BENCHMARK(push_token);

}  // namespace
}  // namespace stator::tokens
