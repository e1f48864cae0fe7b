#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/report/render.h"
#include "stator/report/report.h"

namespace stator::report {

enum class Verdict : std::uint8_t {
    kNoDifference = 1,  ///< the interval includes 1: not shown, which is not "equal"
    kBetter,            ///< A is better than B
    kWorse,             ///< A is worse than B
    kTooFew,            ///< fewer than two usable pairs: no interval
};
std::string_view to_string(Verdict verdict);

struct MetricRatio {
    std::string metric;  ///< "TTFT p99"
    std::string unit;    ///< of a and b: "ms", "req/s"
    bool higher_is_better = false;
    double a = 0;  ///< geometric means over the pairs
    double b = 0;
    double ratio = 0;  ///< A / B
    double low = 0;    ///< 95 % confidence interval of the ratio; 0 and 0 with kTooFew
    double high = 0;
    std::uint64_t pairs = 0;  ///< that had the figure on both sides, above zero
    Verdict verdict = Verdict::kTooFew;
    bool operator==(const MetricRatio&) const = default;
};

struct Comparison {
    std::string name_a;
    std::string name_b;
    std::uint64_t pairs = 0;
    std::vector<MetricRatio> metrics;
    std::vector<std::string> warnings;
    bool operator==(const Comparison&) const = default;
};

/// Compares runs made in pairs, alternately (A B, B A, A B, …), so that a drift of the machine
/// falls on both sides alike: a[i] and b[i] are one pair. Surplus runs of the longer side are left
/// out with a warning.
///
/// The ratio is the geometric mean of the pairs' ratios; its interval is Student's t on their
/// logarithms. A bootstrap over pairs would need no assumption of a shape, but with the 3 to 10
/// pairs people run it is too narrow; the t-interval holds its 95 % there.
[[nodiscard]] Comparison compare(std::span<const Report> a, std::span<const Report> b,
                                 std::string_view name_a, std::string_view name_b);

[[nodiscard]] std::string to_table(const Comparison& comparison, const TableStyle& style);
[[nodiscard]] std::string to_json(const Comparison& comparison);

}  // namespace stator::report
