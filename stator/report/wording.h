#pragma once

#include <string>
#include <string_view>

#include "stator/report/report.h"

namespace stator::report {

/// "TTFT ≤ 500 ms, TPOT ≤ 50.0 ms"; empty where no limit is set. `sign` stands between.
[[nodiscard]] std::string slo_text(const Slo& slo, std::string_view sign);
/// A heading for an outcome: "HTTP error", "timed out".
[[nodiscard]] std::string_view outcome_title(Outcome outcome);

}  // namespace stator::report
