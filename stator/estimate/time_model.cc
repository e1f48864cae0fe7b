#include "stator/estimate/time_model.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace stator::estimate {
namespace {

bool fine(const std::array<double, 3>& factors) {
    return std::ranges::all_of(factors, [](double f) { return std::isfinite(f) && f >= 0; }) &&
           std::ranges::any_of(factors, [](double f) { return f > 0; });
}

}  // namespace

bool is_valid(const PrefillTime& t) {
    return fine({t.base_s, t.per_token_s, t.per_token_context_s});
}

bool is_valid(const DecodeStepTime& t) {
    return fine({t.base_s, t.per_sequence_s, t.per_kv_token_s});
}

}  // namespace stator::estimate
