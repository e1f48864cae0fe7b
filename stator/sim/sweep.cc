#include "stator/sim/sweep.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "stator/config/value.h"

namespace stator::sim {

Result<Axis> parse_axis(std::string_view text) {
    const std::size_t equals = text.find('=');
    Axis axis;
    if (equals != std::string_view::npos && equals > 0) {
        axis.path = text.substr(0, equals);
        std::string_view rest = text.substr(equals + 1);
        while (!rest.empty()) {
            const std::size_t comma = std::min(rest.find(','), rest.size());
            if (comma > 0) axis.values.emplace_back(rest.substr(0, comma));
            rest.remove_prefix(std::min(comma + 1, rest.size()));
        }
    }
    if (axis.values.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "{} is no sweep; it is written PLACE=VALUE,VALUE such as "
                     "router.policy=random,least-loaded",
                     config::in_quotes(text));
    }
    return axis;
}

Result<std::vector<Point>> all_points(const std::vector<Axis>& axes) {
    std::vector<Point> points{{}};
    for (const Axis& axis : axes) {
        if (points.size() * axis.values.size() > kMaxPoints) {
            return error(ErrorCode::kInvalidArgument, "these are more than {} combinations",
                         kMaxPoints);
        }
        std::vector<Point> longer;
        for (const Point& point : points) {
            for (const std::string& value : axis.values) {
                longer.push_back(point);
                longer.back().emplace_back(axis.path, value);
            }
        }
        points = std::move(longer);
    }
    return points;
}

std::string name_of(const Point& point) {
    std::string name;
    for (const auto& [path, value] : point) {
        const std::size_t dot = path.rfind('.');
        if (!name.empty()) name += ' ';
        name += path.substr(dot == std::string::npos ? 0 : dot + 1) + '=' + value;
    }
    return name;
}

void run_parallel(std::size_t count, std::size_t threads,
                  const std::function<void(std::size_t)>& work) {
    std::atomic<std::size_t> next{0};
    const auto loop = [&] {
        for (std::size_t i = next++; i < count; i = next++) work(i);
    };
    std::vector<std::jthread> others;
    for (std::size_t i = 1; i < std::min(threads, count); ++i) others.emplace_back(loop);
    loop();
}

}  // namespace stator::sim
