#pragma once

#include <cstddef>
#include <cstdint>

namespace stator::cli {

/// How many threads compute the model and how many serve HTTP.
struct ThreadPlan {
    std::uint32_t engine = 1;
    std::uint32_t http = 1;
    bool operator==(const ThreadPlan&) const = default;
};

/// Fills in what was left to us (0). Engine: half of the usable cores, at least 1: its threads spin
/// while they wait for each other, and one that finds its core taken holds up all. HTTP: the cores
/// that leaves, from 1 to 16.
[[nodiscard]] ThreadPlan plan_threads(std::size_t usable_cores, std::uint32_t engine,
                                      std::uint32_t http);

}  // namespace stator::cli
