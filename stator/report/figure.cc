#include "stator/report/figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "stator/codec/utf8.h"

namespace stator::report {
namespace {

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

std::string whole(std::uint64_t n) {
    std::string digits = fmt::format("{}", n);
    for (std::size_t at = digits.size(); at > 3;) {
        at -= 3;
        digits.insert(at, ",");
    }
    return digits;
}

std::string figure(double value) {
    if (!std::isfinite(value)) return "-";
    if (value == 0) return "0";
    const double size = std::abs(value);
    if (size >= 1e15) return fmt::format("{:.2e}", value);
    // 99.95 would round up to four digits.
    if (size >= 99.95) {
        const std::string digits = whole(static_cast<std::uint64_t>(std::llround(size)));
        return value < 0 ? "-" + digits : digits;
    }
    if (size >= 9.995) return fmt::format("{:.1f}", value);
    if (size >= 0.9995) return fmt::format("{:.2f}", value);
    return fmt::format("{:.3g}", value);
}

std::string short_figure(double value) {
    const double size = std::abs(value);
    if (size >= 999.5e6) return figure(value / 1e9) + " G";
    if (size >= 999.5e3) return figure(value / 1e6) + " M";
    if (size >= 9999.5) return figure(value / 1e3) + " k";
    return figure(value);
}

std::string latency(double ms) {
    const double size = std::abs(ms);
    if (size >= 999.5) return figure(ms / 1000.0) + " s";
    if (size >= 0.09995 || ms == 0) return figure(ms) + " ms";
    return size >= 0.0009995 ? figure(ms * 1000.0) + " µs" : "under 1 µs";
}

std::string span(double seconds) {
    if (!(seconds < 1e9)) return figure(seconds) + " s";
    if (seconds < 119.5) return fmt::format("{:.1f} s", seconds);
    const auto whole_seconds = static_cast<std::uint64_t>(std::llround(seconds));
    if (whole_seconds < 3600) {
        return fmt::format("{} min {} s", whole_seconds / 60, whole_seconds % 60);
    }
    return fmt::format("{} h {} min", whole(whole_seconds / 3600), whole_seconds % 3600 / 60);
}

std::string percent(double share) {
    if (!std::isfinite(share)) return "-";
    if (share > 0 && share < 0.0005) return "under 0.1 %";
    if (share < 1 && share > 0.9995) return "over 99.9 %";
    return fmt::format("{:.1f} %", share * 100);
}

std::string one_line(std::string_view text, std::size_t limit) {
    std::string mended;
    codec::utf8_append_lossy(mended, text);
    for (char& c : mended) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    }
    // C1 controls (U+0080 to U+009F) steer terminals too.
    for (std::size_t at = 0; (at = mended.find('\xc2', at)) != std::string::npos; ++at) {
        if (static_cast<unsigned char>(mended[at + 1]) < 0xa0) mended.replace(at, 2, "?");
    }
    if (columns(mended) <= limit) return mended;
    std::size_t end = 0;
    for (std::size_t kept = 0; end < mended.size(); ++end) {
        if (!continues(mended[end]) && ++kept + 3 > limit) break;
    }
    return mended.substr(0, end) + "...";
}

std::size_t columns(std::string_view text) {
    return static_cast<std::size_t>(
        std::ranges::count_if(text, [](char c) { return !continues(c); }));
}

}  // namespace stator::report
