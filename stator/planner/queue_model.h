#pragma once

#include <cstdint>

#include "stator/planner/observation.h"
#include "stator/planner/profile.h"

namespace stator::planner {

/// What all workers of a role are asked to do, per second.
struct RoleLoad {
    double requests = 0;
    double prefill_tokens = 0;  ///< to be computed: cached ones not included
    double decode_tokens = 0;
    double images = 0;
    double prompt = 0;        ///< mean tokens of a prompt to be computed
    double context = 0;       ///< mean tokens of a sequence that decodes
    double prompt_scv = 1.5;  ///< squared coefficient of variation of `prompt`
};

struct Expected {
    double utilization = 0;  ///< share of the workers' time that is taken; at most 1
    double ttft_miss = 0;    ///< share of the requests whose first token is late; 1 if unstable
    double itl_s = 0;        ///< mean; infinite if unstable
    double sequences = 0;    ///< that decode on each worker at a time
    double kv_tokens = 0;    ///< of these
    bool operator==(const Expected&) const = default;
};

/// What `workers` of a role would make of a load.
///
/// A step takes T = base + prefill · P + decode · N. With each worker's share λ of the load, P =
/// λ_p T prompt tokens and N = λ_d T sequences a step, so T = base / (1 - λ_p prefill - λ_d
/// decode): the time between tokens. Prompts wait for each other as in an M/G/n queue whose service
/// is a prompt in full steps beside the decoding sequences; that a wait is longer than t:
/// Sakasegawa's approximation of the probability to wait, an exponential tail with Allen's and
/// Cunneen's mean. Prompt lengths are taken as log-normal.
[[nodiscard]] Expected expect(Role role, const StepCost& cost, double step_tokens,
                              const RoleLoad& load, double workers, const SloTarget& slo);

/// The least number of workers, from 1 to `most`, that keep the SLO; `most` where none does.
/// `reachable`: false where even `most` don't; then it is the number from which on more help no
/// more.
struct Need {
    std::uint32_t workers = 1;
    bool reachable = true;
    Expected expected;  ///< with so many
};
[[nodiscard]] Need need(Role role, const RoleProfile& profile, const StepCost& cost,
                        const RoleLoad& load, std::uint32_t most, const SloTarget& slo);

}  // namespace stator::planner
