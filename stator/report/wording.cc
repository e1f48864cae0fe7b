#include "stator/report/wording.h"

#include <fmt/format.h>

#include "stator/report/figure.h"

namespace stator::report {

std::string slo_text(const Slo& slo, std::string_view sign) {
    std::string text;
    const auto add = [&](std::string_view what, const std::optional<double>& limit) {
        if (!limit) return;
        if (!text.empty()) text += ", ";
        text += fmt::format("{} {} {}", what, sign, latency(*limit));
    };
    add("TTFT", slo.ttft_ms);
    add(slo.itl_rule == ItlRule::kMean ? "TPOT" : "p99 ITL", slo.itl_ms);
    add("E2E", slo.e2e_ms);
    return text;
}

std::string_view outcome_title(Outcome outcome) {
    switch (outcome) {
        case Outcome::kOk:
            return "ok";
        case Outcome::kRefused:
            return "refused";
        case Outcome::kHttpError:
            return "HTTP error";
        case Outcome::kConnect:
            return "no connection";
        case Outcome::kReset:
            return "reset";
        case Outcome::kTimeout:
            return "timed out";
        case Outcome::kBadAnswer:
            return "bad answer";
        case Outcome::kServerError:
            return "server error";
        case Outcome::kUnfinished:
            return "unfinished";
    }
    return "unknown";
}

}  // namespace stator::report
