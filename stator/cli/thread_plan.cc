#include "stator/cli/thread_plan.h"

#include <algorithm>

namespace stator::cli {

ThreadPlan plan_threads(std::size_t usable_cores, std::uint32_t engine, std::uint32_t http) {
    constexpr std::uint32_t kMaxHttp = 16;
    const auto cores = static_cast<std::uint32_t>(std::min<std::size_t>(usable_cores, 1024));
    ThreadPlan plan{engine, http};
    if (plan.engine == 0) plan.engine = std::max(1U, cores / 2);
    const std::uint32_t left = cores > plan.engine ? cores - plan.engine : 1;
    if (plan.http == 0) plan.http = std::clamp(left, 1U, kMaxHttp);
    return plan;
}

}  // namespace stator::cli
