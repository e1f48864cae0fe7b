#pragma once

#include <string_view>

namespace stator::report {

/// What every page carries in itself: its style sheet, and the script that adds read-outs and the
/// choice of light or dark. Neither holds text from outside.
extern const std::string_view kPageStyle;
extern const std::string_view kPageScript;

}  // namespace stator::report
