#include "stator/worker/request_check.h"

#include <algorithm>
#include <cmath>

namespace stator::worker {
namespace {

/// Written so that NaN fails.
Result<void> within(const char* field, float value, float low, float high) {
    if (value >= low && value <= high) return {};
    return param_error(field, "{} is {}; it must be from {} to {}", field, value, low, high);
}

/// `low` itself is outside.
Result<void> above(const char* field, float value, float low, float high) {
    if (value > low && value <= high) return {};
    return param_error(field, "{} is {}; it must be above {} and at most {}", field, value, low,
                       high);
}

bool computes(protocol::Role role, protocol::Leg leg) {
    using protocol::Role;
    switch (leg) {
        case protocol::Leg::kWhole:
        case protocol::Leg::kDecode:
            return role == Role::kDecode || role == Role::kAggregated;
        case protocol::Leg::kPrefill:
            return role == Role::kPrefill || role == Role::kAggregated;
        case protocol::Leg::kEncode:
            return role == Role::kEncode;
    }
    return false;
}

Result<void> check_constraint(const protocol::GenerateRequest& request,
                              const engine::EngineInfo& engine) {
    if (!request.constraint) return {};
    const protocol::OutputConstraint& c = *request.constraint;
    if (!engine.structured_output) {
        auto refused = error(ErrorCode::kUnsupported,
                             "the engine of this worker can't hold its output to a constraint");
        refused.value().param = "constraint";
        return refused;
    }
    if (c.text.size() > protocol::kMaxConstraintBytes ||
        c.after.size() > protocol::kMaxAfterBytes) {
        return param_error("constraint", "the constraint has {} bytes; at most {} are allowed",
                           c.text.size() + c.after.size(), protocol::kMaxConstraintBytes);
    }
    return {};
}

}  // namespace

Result<void> check_request(const protocol::GenerateRequest& request,
                           const engine::EngineInfo& engine) {
    const protocol::SamplingParams& s = request.sampling;
    if (auto ok = within("temperature", s.temperature, 0.0F, 2.0F); !ok) return ok;
    if (auto ok = above("top_p", s.top_p, 0.0F, 1.0F); !ok) return ok;
    if (s.top_k < 0) return param_error("top_k", "top_k is {}; it must be at least 0", s.top_k);
    if (!(s.min_p >= 0.0F && s.min_p < 1.0F)) {
        return param_error("min_p", "min_p is {}; it must be at least 0 and below 1", s.min_p);
    }
    if (auto ok = within("frequency_penalty", s.frequency_penalty, -2.0F, 2.0F); !ok) return ok;
    if (auto ok = within("presence_penalty", s.presence_penalty, -2.0F, 2.0F); !ok) return ok;
    if (auto ok = above("repetition_penalty", s.repetition_penalty, 0.0F, 2.0F); !ok) return ok;
    for (const auto& [token, bias] : s.logit_bias) {
        if (!std::isfinite(bias)) {
            return param_error("logit_bias", "the bias of token {} is {}; it must be a number",
                               token, bias);
        }
    }
    const auto most = static_cast<std::int32_t>(engine.max_top_logprobs);
    if (request.top_logprobs < -1 || request.top_logprobs > most) {
        return param_error("top_logprobs", "top_logprobs is {}; this engine gives at most {}",
                           request.top_logprobs, most);
    }
    if (!request.adapter.empty() &&
        std::ranges::find(engine.adapters, request.adapter) == engine.adapters.end()) {
        // It may have had it when the request was sent here.
        auto refused =
            error(ErrorCode::kUnavailable, "the adapter {} is not here", request.adapter);
        refused.value().param = "model";
        refused.value().retryable = true;
        return refused;
    }
    return check_constraint(request, engine);
}

Result<void> check_leg(protocol::Leg leg, const std::vector<protocol::Role>& roles,
                       bool can_hand_off) {
    const bool fits =
        std::ranges::any_of(roles, [leg](protocol::Role role) { return computes(role, leg); });
    const bool hands_off = leg == protocol::Leg::kPrefill || leg == protocol::Leg::kEncode;
    if (fits && (can_hand_off || !hands_off)) return {};
    auto refused =
        fits ? error(ErrorCode::kUnsupported,
                     "this worker makes no handoffs, so it takes no {} legs", to_string(leg))
             : error(ErrorCode::kUnsupported,
                     "this worker has no role in which it computes {} legs", to_string(leg));
    refused.value().param = "leg";
    return refused;
}

}  // namespace stator::worker
