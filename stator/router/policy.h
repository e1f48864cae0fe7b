#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "stator/base/error.h"

namespace stator::router {

/// How a rank is chosen for a request.
enum class Policy : std::uint8_t {
    kExpectedTtft = 1,  ///< least predicted seconds to the first token, harm to others included
    kDynamo,            ///< NVIDIA Dynamo's published block cost, to compare with
    kLeastLoaded,       ///< fewest requests, relative to what a rank can run
    kPowerOfTwo,        ///< the less loaded of two drawn at random
    kRoundRobin,
    kRandom,
    kConsistentHash,  ///< by a hash of session or prefix and the worker's stable name
    kDirect,          ///< the rank that the request names
};
[[nodiscard]] std::string_view to_string(Policy policy);
[[nodiscard]] std::span<const Policy> all_policies();
[[nodiscard]] std::optional<Policy> find_policy(std::string_view name);

/// Whether the prompt of a request that may be split is computed by another rank than the one that
/// generates.
enum class Disaggregation : std::uint8_t {
    kConditional = 1,  ///< where it is predicted to be better
    kAlways,           ///< where there are ranks for it
    kNever,
};
[[nodiscard]] std::string_view to_string(Disaggregation disaggregation);
[[nodiscard]] std::optional<Disaggregation> find_disaggregation(std::string_view name);

/// A policy and all that can be set about it. Plain data: it can be replaced while requests run.
struct PolicyOptions {
    Policy policy = Policy::kExpectedTtft;
    std::uint32_t fallbacks = 3;  ///< further ranks that a decision names, in order

    // expected-ttft.
    /// Seconds charged for each second of prefill that the request takes of a rank: whoever comes
    /// next waits for it. What keeps siblings together and prefers reuse to an idle rank.
    double work_weight = 0.3;
    /// Times the seconds by which requests that will come while the rank's queue lasts are held up:
    /// prefill · queue · arrivals per rank and second, as measured.
    double queue_weight = 1.0;
    /// Seconds charged for each second by which each sequence that decodes there is held up.
    double itl_weight = 0.05;
    /// The same where the prompt could be computed by a rank of its own: between ranks that all
    /// decode the harm is done anyway, here it can be avoided.
    double split_itl_weight = 0.5;
    /// Seconds charged for a rank that runs as many requests as it can, for others in proportion:
    /// what decoding beside others costs where no model of step times says it. Decides between
    /// ranks whose prompts take no time to speak of.
    double occupancy_weight = 0.02;
    /// Seconds charged for each label that a request prefers and a rank lacks, and for each thing
    /// to avoid that the rank bears and the request does not tolerate.
    double preference_s = 0.5;
    /// Ranks within so many standard deviations of the best one's prediction are as good as it.
    double error_band = 0.25;

    // dynamo. Defaults and names are the reference's.
    double overlap_weight = 1.0;
    double temperature = 0.0;
    /// Prompt tokens of requests without a first token count as load of their rank.
    bool track_prefill_tokens = true;
    double host_weight = 0.75;  ///< of blocks in host memory or on disk, against device memory

    // consistent-hash.
    std::uint32_t prefix_blocks = 2;  ///< hashed where a request has no session

    // All but direct.
    /// Where a session's rank costs at most so many seconds more than the best, it is kept.
    double session_slack_s = 0.5;
    double session_ttl_s = 600.0;
    std::uint32_t max_sessions = 100'000;  ///< beyond: the least recently used is forgotten
    /// Refuse a request whose KV no decode rank is predicted to have room for.
    bool refuse_without_kv_room = true;
    Disaggregation disaggregation = Disaggregation::kConditional;

    bool operator==(const PolicyOptions&) const = default;
};

/// kInvalidArgument, with the option, its value and what would be right.
[[nodiscard]] Result<void> validate(const PolicyOptions& options);

}  // namespace stator::router
