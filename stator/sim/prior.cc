#include "stator/sim/prior.h"

#include <algorithm>

namespace stator::sim {
namespace {

using engine::mock::CoreOptions;
using engine::mock::StepShape;

double seconds(const CoreOptions& o, const StepShape& shape) {
    return to_seconds(o.step_time.of(shape));
}

StepShape prefill(std::uint32_t tokens, std::uint64_t context) {
    StepShape s;
    s.prefill_tokens = tokens;
    s.prefill_sequences = 1;
    s.prefill_context = context;
    return s;
}

StepShape decode(std::uint32_t sequences, std::uint64_t context) {
    StepShape s;
    s.decode_sequences = sequences;
    s.decode_context = context;
    return s;
}

}  // namespace

estimate::PrefillTime prefill_prior(const CoreOptions& o) {
    constexpr double kContext = 1e7;
    const double chunk = std::max(2U, o.step_tokens);
    const double one = seconds(o, prefill(1, 0));
    const double whole = seconds(o, prefill(static_cast<std::uint32_t>(chunk), 0));
    const double deep = seconds(o, prefill(1, static_cast<std::uint64_t>(kContext)));
    estimate::PrefillTime t;
    t.base_s = one;
    // A long prompt is cut into chunks, and each is a step of its own.
    t.per_token_s = std::max((whole - one) / (chunk - 1) + one / chunk, 1e-12);
    t.per_token_context_s = std::max(0.0, deep - one) / kContext;
    return t;
}

estimate::DecodeStepTime step_prior(const CoreOptions& o) {
    constexpr std::uint64_t kContext = 100'000;
    const double one = seconds(o, decode(1, 1000));
    const double many = seconds(o, decode(33, 1000));
    const double deep = seconds(o, decode(33, 1000 + kContext));
    estimate::DecodeStepTime t;
    t.per_sequence_s = std::max(0.0, many - one) / 32;
    t.per_kv_token_s = std::max(0.0, deep - many) / static_cast<double>(kContext);
    t.base_s = std::max(1e-9, one - t.per_sequence_s - 1000 * t.per_kv_token_s);
    return t;
}

}  // namespace stator::sim
