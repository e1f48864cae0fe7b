#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace stator::codec {

struct JsonFault {
    std::size_t offset = 0;  ///< of the first byte that can't stand where it stands
    std::string what;        ///< half a sentence: "expected ',' or ']' but found 'x'"
};

/// Why JsonDocument refuses `text`, or nothing where it accepts it. A slow, strict second reader,
/// used for its message once the fast one has said no; tests hold the two to the same verdict. No
/// allocation but the message.
[[nodiscard]] std::optional<JsonFault> find_json_fault(std::string_view text,
                                                       std::size_t max_depth);

}  // namespace stator::codec
