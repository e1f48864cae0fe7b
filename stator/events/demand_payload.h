#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/demand.h"

namespace stator::events {

/// Topic "demand" of a frontend: what it was asked for since its start, a map for each model. A
/// reader passes over keys that it does not know and takes 0 for those that are missing.
[[nodiscard]] std::string encode_demand(const std::vector<protocol::DemandTotals>& models);

inline constexpr std::size_t kMaxDemandModels = 1024;
inline constexpr std::size_t kMaxDurationBounds = 128;

/// kInvalidArgument: what is wrong. Bounds are finite and strictly ascending; counts are one more.
[[nodiscard]] Result<std::vector<protocol::DemandTotals>> decode_demand(std::string_view payload);

}  // namespace stator::events
