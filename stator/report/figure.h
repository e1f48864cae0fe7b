#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace stator::report {

/// Figures as people read them, the same in the table and on the page: no character of theirs means
/// anything to HTML.

/// With thousands separated: "12,031".
[[nodiscard]] std::string whole(std::uint64_t n);
/// Three significant digits at least, all of the whole part: "0.0123", "9.87", "98.7", "12,345".
[[nodiscard]] std::string figure(double value);
/// figure() with a factor of thousands where it is long: "4.2 k", "1.31 M".
[[nodiscard]] std::string short_figure(double value);
/// A latency in the unit that suits it: "68.5 µs", "0.42 ms", "845 ms", "1.23 s", "12.3 s", "205
/// s".
[[nodiscard]] std::string latency(double ms);
/// How long a run was: "0.8 s", "42.1 s", "2 min 5 s", "1 h 0 min".
[[nodiscard]] std::string span(double seconds);
/// "98.7 %"; 100 % only where it is all, 0 % only where it is none.
[[nodiscard]] std::string percent(double share);

/// `text` without control characters and mended to UTF-8, each bad one as '?'; at most `limit`
/// characters, the last three of them dots where it was longer.
[[nodiscard]] std::string one_line(std::string_view text, std::size_t limit);
/// Characters of a well-formed text, as a terminal's columns (wide characters count as one).
[[nodiscard]] std::size_t columns(std::string_view text);

}  // namespace stator::report
