#pragma once

#include <string>
#include <string_view>

namespace stator::media {

/// For tests: the files that test/media/hostile.json names. Unknown names give an empty one.
[[nodiscard]] std::string hostile_file(std::string_view name);

}  // namespace stator::media
