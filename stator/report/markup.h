#pragma once

#include <string>
#include <string_view>

namespace stator::report {

/// Text as it may stand between HTML tags and in quoted attributes: &, <, >, " and ' become
/// references, what is not UTF-8 is mended, control characters become U+FFFD.
[[nodiscard]] std::string escaped(std::string_view text);

}  // namespace stator::report
