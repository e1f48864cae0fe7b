#include "stator/report/axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace stator::report {
namespace {

constexpr double kMost = 1e15;

/// Finite, not negative, and small enough to calculate with.
double tame(double value) { return value > 0 ? std::min(value, kMost) : 0.0; }

/// In thousands, millions and so on where the axis reaches that far, the same at all its ticks.
std::string tick_number(double value, double greatest) {
    if (value == 0) return "0";
    const double size = greatest;
    if (size >= 1e12) return fmt::format("{:.4g}T", value / 1e12);
    if (size >= 1e9) return fmt::format("{:.4g}G", value / 1e9);
    if (size >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
    if (size >= 1e4) return fmt::format("{:.4g}k", value / 1e3);
    return fmt::format("{:.4g}", value);
}

std::string tick_label(double value, Unit unit, double greatest) {
    switch (unit) {
        case Unit::kPlain:
        case Unit::kTime:
            return tick_number(value, greatest);
        case Unit::kLatency:
            if (value == 0) return "0";
            return value < 999.5 ? tick_number(value, value) + " ms"
                                 : tick_number(value / 1000, value / 1000) + " s";
        case Unit::kShare:
            return fmt::format("{:.5g} %", value * 100);
    }
    return {};
}

/// The least of 1, 2, 5 times a power of ten that is not below `value`.
double round_up(double value) {
    const double power = std::pow(10.0, std::floor(std::log10(value)));
    for (const double digit : {1.0, 2.0, 5.0}) {
        if (digit * power >= value * (1 - 1e-9)) return digit * power;
    }
    return 10 * power;
}

double tail(double share) { return -std::log10(1 - std::min(share, 0.999999)); }

}  // namespace

double Axis::place(double value) const {
    double from = low;
    double to = high;
    if (scale == Scale::kLog) {
        value = std::log(std::max(value, low));
        from = std::log(low);
        to = std::log(high);
    } else if (scale == Scale::kTail) {
        value = tail(value);
        from = tail(low);
        to = tail(high);
    }
    return std::clamp((value - from) / (to - from), 0.0, 1.0);
}

Axis linear_axis(double greatest, Unit unit, std::string_view title) {
    Axis axis;
    axis.unit = unit;
    axis.title = title;
    const double top = std::max(tame(greatest), 1e-9);
    // Of the round steps that give 4 to 8 stretches, the one that leaves least above the figures.
    double step = round_up(top / 8);
    auto steps = static_cast<int>(std::ceil(top / step - 1e-6));
    const double wider = round_up(step * 1.5);
    const auto fewer = static_cast<int>(std::ceil(top / wider - 1e-6));
    if (fewer >= 4 && wider * fewer <= step * steps * 1.02) {
        step = wider;
        steps = fewer;
    }
    axis.high = step * steps;
    for (int i = 0; i <= steps; ++i) {
        axis.ticks.push_back({step * i, tick_label(step * i, unit, axis.high)});
    }
    return axis;
}

Axis log_axis(double least, double greatest, Unit unit, std::string_view title) {
    Axis axis;
    axis.scale = Scale::kLog;
    axis.unit = unit;
    axis.title = title;
    const double top = std::max(tame(greatest), 1e-6);
    const double bottom = std::clamp(tame(least), top * 1e-5, top * 0.5);
    axis.high = round_up(top);
    axis.low = std::pow(10.0, std::floor(std::log10(bottom)));
    for (const double digit : {5.0, 2.0}) {
        if (digit * axis.low <= bottom) {
            axis.low *= digit;
            break;
        }
    }
    const double decades = std::log10(axis.high / axis.low);
    const int first = static_cast<int>(std::floor(std::log10(axis.low) + 1e-9));
    const int last = static_cast<int>(std::ceil(std::log10(axis.high) - 1e-9));
    for (int exponent = first; exponent <= last; ++exponent) {
        for (int digit = 1; digit < 10; ++digit) {
            const double value = digit * std::pow(10.0, exponent);
            if (value < axis.low * (1 - 1e-9) || value > axis.high * (1 + 1e-9)) continue;
            const bool labelled = digit == 1 || (decades <= 2.5 && (digit == 2 || digit == 5));
            if (!labelled && decades > 3.5) continue;
            axis.ticks.push_back({value, labelled ? tick_label(value, unit, value) : ""});
        }
    }
    return axis;
}

Axis fitting_axis(double least, double greatest, Unit unit, std::string_view title) {
    const bool wide = tame(greatest) > 5 * tame(least);
    return wide ? log_axis(least, greatest, unit, title) : linear_axis(greatest, unit, title);
}

Axis tail_axis(std::uint64_t count, std::string_view title) {
    Axis axis;
    axis.scale = Scale::kTail;
    axis.unit = Unit::kShare;
    axis.title = title;
    axis.high = count >= 20'000 ? 0.9999 : count >= 1'000 ? 0.999 : 0.99;
    for (const double share : {0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999}) {
        if (share > axis.high) break;
        const bool crowded = axis.high > 0.9995 && (share == 0.75 || share == 0.95);
        axis.ticks.push_back({share, crowded ? "" : tick_label(share, Unit::kShare, 1)});
    }
    return axis;
}

Axis time_axis(double seconds) {
    seconds = std::max(tame(seconds), 0.1);
    struct Choice {
        double from;
        double unit;
        std::string_view title;
    };
    constexpr std::array kChoices{Choice{3 * 3600.0, 3600, "hours"},
                                  Choice{5 * 60.0, 60, "minutes"}, Choice{0, 1, "seconds"}};
    const auto* choice =
        std::ranges::find_if(kChoices, [seconds](const Choice& c) { return seconds >= c.from; });
    Axis axis = linear_axis(seconds / choice->unit, Unit::kTime, choice->title);
    // The run fills the plot: no empty stretch up to the next round figure.
    std::erase_if(axis.ticks, [&](const Tick& t) { return t.value * choice->unit > seconds; });
    for (Tick& tick : axis.ticks) tick.value *= choice->unit;
    axis.high = seconds;
    return axis;
}

}  // namespace stator::report
