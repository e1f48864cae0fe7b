#include "stator/report/report.h"

namespace stator::report {

std::string_view to_string(ItlRule rule) {
    switch (rule) {
        case ItlRule::kMean:
            return "mean";
        case ItlRule::kP99:
            return "p99";
    }
    return "unknown";
}

std::uint64_t Report::count(Outcome outcome) const {
    for (const OutcomeCount& entry : outcomes) {
        if (entry.outcome == outcome) return entry.count;
    }
    return 0;
}

std::uint64_t Report::failed() const {
    return requests - count(Outcome::kOk) - count(Outcome::kUnfinished);
}

}  // namespace stator::report
