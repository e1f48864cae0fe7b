#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace stator::transfer {

/// XXH3-64 with seed 0.
[[nodiscard]] std::uint64_t checksum(std::span<const std::byte> bytes);

}  // namespace stator::transfer
