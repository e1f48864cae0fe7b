#pragma once

#include <span>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/report/report.h"

namespace stator::report {

/// One JSON object of compact form that ends in a newline; its fields are described in the room's
/// README. Byte-identical for equal reports. Text that is not UTF-8 is mended (U+FFFD).
[[nodiscard]] std::string to_json(const Report& report);

/// Reads what to_json() wrote: parse_report(to_json(r)) equals r, but for mended text. Unknown
/// fields are passed over, missing ones keep their default. kInvalidArgument: no JSON, no report,
/// of a newer format, a field of the wrong type (named), or over a bound of Report.
[[nodiscard]] Result<Report> parse_report(std::string_view json);

struct TableStyle {
    bool colour = false;    ///< ANSI colours
    bool unicode = true;    ///< lines and bars beyond ASCII
    unsigned columns = 80;  ///< of the terminal; narrower than 60 counts as 60
};

/// The report for a terminal, several lines, with a newline at the end. Control characters in texts
/// from outside are shown as '?'.
[[nodiscard]] std::string to_table(const Report& report, const TableStyle& style);

struct Comparison;

/// A whole HTML page: no other file, no fetches; scripts only add read-outs under the pointer and
/// the choice of light or dark. Several reports are drawn over each other, in the order given (a
/// sweep of rates also as curves over the rate); at most kMaxPageReports, the page says so where
/// there are more. `comparison` adds its table.
inline constexpr std::size_t kMaxPageReports = 24;
[[nodiscard]] std::string to_html(std::span<const Report> reports, std::string_view title,
                                  const Comparison* comparison = nullptr);

}  // namespace stator::report
