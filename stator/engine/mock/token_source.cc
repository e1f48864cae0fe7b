#include "stator/engine/mock/token_source.h"

#include <utility>

#include "stator/base/check.h"

namespace stator::engine::mock {
namespace {

constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15ULL;

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input changes every bit.
std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/// Evenly in [0, n), from the high bits.
std::uint32_t scale(std::uint64_t x, std::uint32_t n) {
    return static_cast<std::uint32_t>(((x >> 32) * n) >> 32);
}

}  // namespace

void PrefixState::push(TokenId token) { value = mix(value + kStep * (std::uint64_t{token} + 1)); }

TokenSource::TokenSource(Options options) : options_(std::move(options)) {
    STATOR_CHECK(!options_.alphabet.empty() || options_.vocab_size > 0, "there are tokens");
}

TokenId TokenSource::next(PrefixState prefix, std::uint32_t position, std::uint64_t seed,
                          bool may_end) const {
    const std::uint64_t drawn = mix(mix(prefix.value + kStep * seed) + position);
    if (may_end && options_.mean_output_tokens != 0 &&
        scale(mix(drawn + kStep), options_.mean_output_tokens) == 0) {
        return options_.eos;
    }
    if (options_.alphabet.empty()) return scale(drawn, options_.vocab_size);
    return options_.alphabet[scale(drawn, static_cast<std::uint32_t>(options_.alphabet.size()))];
}

}  // namespace stator::engine::mock
