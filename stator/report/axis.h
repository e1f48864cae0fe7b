#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stator::report {

enum class Scale : std::uint8_t {
    kLinear = 1,
    kLog,
    kTail,  ///< of a share: equal lengths for 90 %, 99 %, 99.9 %, so that the tail can be read
};

/// What an axis counts, for its labels.
enum class Unit : std::uint8_t {
    kPlain = 1,
    kLatency,  ///< milliseconds
    kTime,     ///< seconds since the run's begin
    kShare,    ///< 0 to 1
};

struct Tick {
    double value = 0;
    std::string label;  ///< empty: a line of the grid without a label
};

/// One axis of a plot: where values lie on it and which are marked.
struct Axis {
    Scale scale = Scale::kLinear;
    Unit unit = Unit::kPlain;
    double low = 0;
    double high = 1;
    std::string title;
    std::vector<Tick> ticks;

    /// Where a value lies: 0 at the low end, 1 at the high one; values beyond are held there.
    [[nodiscard]] double place(double value) const;
};

/// From zero, up to a round figure that `greatest` does not exceed.
[[nodiscard]] Axis linear_axis(double greatest, Unit unit, std::string_view title);
/// From `least` to `greatest`, widened to round figures. What is not above zero has no place on it:
/// the axis then begins five decades below `greatest`.
[[nodiscard]] Axis log_axis(double least, double greatest, Unit unit, std::string_view title);
/// Logarithmic where the values spread over a factor of 5, else linear from zero.
[[nodiscard]] Axis fitting_axis(double least, double greatest, Unit unit, std::string_view title);
/// Shares of `count` samples, up to 99 %, 99.9 % or 99.99 %, as far as the samples carry.
[[nodiscard]] Axis tail_axis(std::uint64_t count, std::string_view title);
/// A run's time in the unit that suits it.
[[nodiscard]] Axis time_axis(double seconds);

}  // namespace stator::report
