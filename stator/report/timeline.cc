#include "stator/report/timeline.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace stator::report {

std::size_t TimelineRecorder::index(double time) const {
    if (!(time > 0)) return 0;
    return std::min(static_cast<std::size_t>(std::min(time / width_, 1e9)),
                    Report::kMaxIntervals - 1);
}

void TimelineRecorder::coarsen() {
    width_ *= 2;
    for (std::size_t i = 0; i < cells_.size(); ++i) {
        if (i % 2 == 0) {
            if (i > 0) cells_[i / 2] = std::exchange(cells_[i], Cell{});
            continue;
        }
        Interval& into = cells_[i / 2].figures;
        const Interval& from = cells_[i].figures;
        into.offered += from.offered;
        into.completed += from.completed;
        into.failed += from.failed;
        into.output_tokens += from.output_tokens;
        into.in_flight += from.in_flight;
        cells_[i / 2].ttft.merge(cells_[i].ttft);
    }
    cells_.resize((cells_.size() + 1) / 2);
}

void TimelineRecorder::cover(double time) {
    while (time >= width_ * static_cast<double>(Report::kMaxIntervals)) coarsen();
    const std::size_t needed = index(time) + 1;
    if (cells_.size() < needed) cells_.resize(needed);
}

TimelineRecorder::Cell& TimelineRecorder::at(double time) {
    cover(time);
    return cells_[index(time)];
}

void TimelineRecorder::under_way(double begin, double end) {
    begin = std::max(begin, 0.0);
    if (!(end > begin)) return;
    cover(end);
    const std::size_t last = index(end);
    for (std::size_t i = index(begin); i <= last; ++i) {
        const double from = std::max(begin, static_cast<double>(i) * width_);
        const double to = std::min(end, static_cast<double>(i + 1) * width_);
        cells_[i].figures.in_flight += std::max(0.0, to - from);
    }
}

void TimelineRecorder::tokens(double first, double last, std::span<const float> gaps,
                              std::uint64_t count) {
    if (count == 0) return;
    if (gaps.size() >= count) gaps = gaps.first(static_cast<std::size_t>(count - 1));
    cover(std::max(first, last));
    double time = first;
    std::size_t i = index(time);
    double edge = static_cast<double>(i + 1) * width_;
    std::uint64_t here = 1;
    for (const float gap : gaps) {
        time += static_cast<double>(gap);
        if (time >= edge) [[unlikely]] {
            cells_[i].figures.output_tokens += here;
            here = 0;
            i = index(std::min(time, last));
            edge = time < last ? static_cast<double>(i + 1) * width_
                               : std::numeric_limits<double>::infinity();
        }
        ++here;
    }
    cells_[i].figures.output_tokens += here + (count - 1 - gaps.size());
}

Timeline TimelineRecorder::finish(double seconds) const {
    Timeline line;
    line.interval_seconds = width_;
    // A run that ends on an interval's edge has nothing in the interval after it.
    std::size_t count = std::max(cells_.size(), index(seconds) + 1);
    if (count > 1 && count > cells_.size() && seconds <= static_cast<double>(count - 1) * width_)
        --count;
    for (std::size_t i = 0; i < count; ++i) {
        const double begin = static_cast<double>(i) * width_;
        const double length = std::min(width_, seconds - begin);
        Interval& interval = line.intervals.emplace_back();
        if (i >= cells_.size()) continue;
        interval = cells_[i].figures;
        interval.in_flight = length > 0 ? interval.in_flight / length : 0.0;
        const Distribution& ttft = cells_[i].ttft;
        interval.ttft_count = ttft.count();
        interval.ttft_p50_ms = ttft.percentile(0.5);
        interval.ttft_p99_ms = ttft.percentile(0.99);
    }
    return line;
}

TimelineRecorder::Recent TimelineRecorder::recent(double now) const {
    Recent sum;
    const std::size_t end = std::min(index(now), cells_.size());
    const auto wanted = static_cast<std::size_t>(std::max(1.0, std::ceil(5.0 / width_)));
    for (std::size_t i = end - std::min(end, wanted); i < end; ++i) {
        sum.seconds += width_;
        sum.completed += cells_[i].figures.completed;
        sum.output_tokens += cells_[i].figures.output_tokens;
    }
    return sum;
}

}  // namespace stator::report
