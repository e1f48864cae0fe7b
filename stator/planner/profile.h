#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/planner/observation.h"

namespace stator::planner {

/// What a step of an engine costs, in seconds of its time: base_s + prefill_token_s for each prompt
/// token computed + decode_token_s for each sequence that gets a token + image_s for each image.
/// All finite and at least 0.
struct StepCost {
    double base_s = 0;
    double prefill_token_s = 0;
    double decode_token_s = 0;  ///< at the contexts that the traffic has
    double image_s = 0;
    bool operator==(const StepCost&) const = default;
};

/// What is known of one role's workers beforehand.
struct RoleProfile {
    StepCost cost;
    std::uint32_t step_tokens = 2048;  ///< prompt tokens of a full step
    std::uint32_t max_running = 0;     ///< sequences; 0 = not known
    std::uint64_t kv_tokens = 0;       ///< that fit a worker; 0 = not known
    double start_up_s = 0;             ///< 0 = not known
    bool operator==(const RoleProfile&) const = default;
};

/// A profile file, as `stator bench --profile` writes it:
///
///     {"schema": "stator-profile/1", "engine": "llama-3.1-8b-fp8-h100", "source": "…",
///      "roles": {"aggregated": {"base_s": 0.0043, "prefill_token_s": 1.6e-5,
///                               "decode_token_s": 4.2e-5, "image_s": 0, "step_tokens": 8192,
///                               "max_running": 256, "kv_tokens": 912000, "start_up_s": 95}}}
///
/// Each figure of a role may be left out; a role that is left out is learned from nothing.
struct Profile {
    std::string engine;  ///< what was measured, for people
    std::string source;  ///< how
    PerRole<std::optional<RoleProfile>> roles;

    bool operator==(const Profile& other) const {
        for (const Role role : kRoles) {
            if (roles[role] != other.roles[role]) return false;
        }
        return engine == other.engine && source == other.source;
    }
};

inline constexpr std::size_t kMaxProfileBytes = 1U << 20;

/// Reads a profile file's text. kInvalidArgument names the field that is wrong; kTooLarge.
[[nodiscard]] Result<Profile> read_profile(std::string_view json);
/// The text that read_profile() reads, with a line end.
[[nodiscard]] std::string write_profile(const Profile& profile);

}  // namespace stator::planner
