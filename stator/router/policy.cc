#include "stator/router/policy.h"

#include <array>
#include <cmath>

namespace stator::router {
namespace {

constexpr std::array<Policy, 8> kPolicies{
    Policy::kExpectedTtft, Policy::kDynamo, Policy::kLeastLoaded,    Policy::kPowerOfTwo,
    Policy::kRoundRobin,   Policy::kRandom, Policy::kConsistentHash, Policy::kDirect};

/// What a number must be.
struct Bound {
    std::string_view name;
    double value;
    double least;
    double most;
};

}  // namespace

std::string_view to_string(Policy policy) {
    switch (policy) {
        case Policy::kExpectedTtft:
            return "expected-ttft";
        case Policy::kDynamo:
            return "dynamo";
        case Policy::kLeastLoaded:
            return "least-loaded";
        case Policy::kPowerOfTwo:
            return "power-of-two";
        case Policy::kRoundRobin:
            return "round-robin";
        case Policy::kRandom:
            return "random";
        case Policy::kConsistentHash:
            return "consistent-hash";
        case Policy::kDirect:
            return "direct";
    }
    return "unknown";
}

std::span<const Policy> all_policies() { return kPolicies; }

std::optional<Policy> find_policy(std::string_view name) {
    for (const Policy policy : kPolicies) {
        if (to_string(policy) == name) return policy;
    }
    return std::nullopt;
}

std::string_view to_string(Disaggregation disaggregation) {
    switch (disaggregation) {
        case Disaggregation::kConditional:
            return "conditional";
        case Disaggregation::kAlways:
            return "always";
        case Disaggregation::kNever:
            return "never";
    }
    return "unknown";
}

std::optional<Disaggregation> find_disaggregation(std::string_view name) {
    for (const auto d :
         {Disaggregation::kConditional, Disaggregation::kAlways, Disaggregation::kNever}) {
        if (to_string(d) == name) return d;
    }
    return std::nullopt;
}

Result<void> validate(const PolicyOptions& o) {
    constexpr double kMost = 1e6;
    const std::array<Bound, 13> bounds{{
        {"work_weight", o.work_weight, 0, kMost},
        {"queue_weight", o.queue_weight, 0, kMost},
        {"itl_weight", o.itl_weight, 0, kMost},
        {"split_itl_weight", o.split_itl_weight, 0, kMost},
        {"occupancy_weight", o.occupancy_weight, 0, kMost},
        {"preference_s", o.preference_s, 0, kMost},
        {"error_band", o.error_band, 0, 100},
        {"overlap_weight", o.overlap_weight, 0, kMost},
        {"temperature", o.temperature, 0, kMost},
        {"host_weight", o.host_weight, 0, 1},
        {"session_slack_s", o.session_slack_s, 0, kMost},
        {"session_ttl_s", o.session_ttl_s, 0, 31'536'000},
        {"fallbacks", static_cast<double>(o.fallbacks), 0, 64},
    }};
    for (const Bound& b : bounds) {
        // A NaN is in no range.
        if (b.value >= b.least && b.value <= b.most) continue;
        return param_error(b.name, "{} is {}; it must be a number from {} to {}", b.name, b.value,
                           b.least, b.most);
    }
    if (o.prefix_blocks == 0) {
        return param_error("prefix_blocks", "prefix_blocks is 0; at least one block is hashed");
    }
    if (find_policy(to_string(o.policy)) == std::nullopt) {
        return param_error("policy", "there is no policy of number {}", static_cast<int>(o.policy));
    }
    return {};
}

}  // namespace stator::router
