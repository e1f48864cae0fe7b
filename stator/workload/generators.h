#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "stator/workload/options.h"
#include "stator/workload/trace.h"

namespace stator::workload {

/// The kinds of workloads; make_workload() has checked the options.
[[nodiscard]] std::unique_ptr<Workload> make_single_requests(const WorkloadOptions& options,
                                                             std::uint64_t seed);
[[nodiscard]] std::unique_ptr<Workload> make_sessions(const WorkloadOptions& options,
                                                      std::uint64_t seed);
[[nodiscard]] std::unique_ptr<Workload> make_trace_replay(const WorkloadOptions& options,
                                                          Trace trace, std::uint64_t seed);
[[nodiscard]] std::unique_ptr<Workload> make_prompt_replay(const WorkloadOptions& options,
                                                           std::vector<Prompt> prompts,
                                                           std::uint64_t seed);

}  // namespace stator::workload
