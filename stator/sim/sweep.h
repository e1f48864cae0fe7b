#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/base/error.h"

namespace stator::sim {

/// Values to try at one place of a scenario: "router.policy=random,least-loaded".
struct Axis {
    std::string path;
    std::vector<std::string> values;
};
[[nodiscard]] Result<Axis> parse_axis(std::string_view text);

/// One combination: a value for each axis.
using Point = std::vector<std::pair<std::string, std::string>>;
constexpr std::size_t kMaxPoints = 10'000;
/// All combinations, the last axis changing fastest. kInvalidArgument: more than kMaxPoints.
[[nodiscard]] Result<std::vector<Point>> all_points(const std::vector<Axis>& axes);
/// "policy=random workers=4"
[[nodiscard]] std::string name_of(const Point& point);

/// Calls work(0 … count-1), each once, on so many threads; returns when all are done.
void run_parallel(std::size_t count, std::size_t threads,
                  const std::function<void(std::size_t)>& work);

}  // namespace stator::sim
