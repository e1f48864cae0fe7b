#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "stator/fleet/fleet.h"

namespace stator::engine {

/// A rank of a worker that was reserved for a request.
struct Choice {
    std::shared_ptr<fleet::Worker> worker;
    std::uint32_t rank = 0;
};

/// The rank with the least load for its size (running and waiting sequences over how many run at
/// once), ties broken by `tie`; reserves it. None where every rank outside `tried` has all it
/// takes. Until prefixes decide, this is the router.
[[nodiscard]] std::optional<Choice> choose_rank(
    std::span<const std::shared_ptr<fleet::Worker>> ready, std::span<const std::uint64_t> tried,
    std::uint64_t tie);

}  // namespace stator::engine
