#pragma once

#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/codec/json.h"

namespace stator::frontend {

/// The model that a request to be passed on is for. Its server checks the rest, but for members by
/// which engines hand KV caches and rooms to each other: in a client's request they are
/// kInvalidArgument, because a made-up one can take an engine down. `document` is a buffer.
[[nodiscard]] Result<std::string> read_relayed(std::string_view body,
                                               codec::JsonDocument& document);

}  // namespace stator::frontend
