#include "stator/planner/observation.h"

#include <algorithm>
#include <cmath>

namespace stator::planner {
namespace {

double difference(std::uint64_t before, std::uint64_t after) {
    return static_cast<double>(after >= before ? after - before : after);
}

/// Where in a histogram's counts (of `bounds.size() + 1` ranges) a share of them lies.
double quantile(const std::vector<double>& bounds, const std::vector<double>& counts, double total,
                double share) {
    double below = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
        if (below + counts[i] >= share * total && counts[i] > 0) {
            const double low = i == 0 ? 0 : bounds[i - 1];
            if (i == bounds.size()) return low;
            return low + (bounds[i] - low) * (share * total - below) / counts[i];
        }
        below += counts[i];
    }
    return bounds.empty() ? 0 : bounds.back();
}

LatencyWindow latency(const protocol::DurationTotals& before, const protocol::DurationTotals& after,
                      double limit) {
    LatencyWindow w;
    if (after.counts.size() != after.bounds.size() + 1) return w;
    const bool same = before.bounds == after.bounds && before.counts.size() == after.counts.size();
    bool anew = !same;
    for (std::size_t i = 0; same && i < after.counts.size(); ++i) {
        anew = anew || after.counts[i] < before.counts[i];
    }
    std::vector<double> counts(after.counts.size());
    for (std::size_t i = 0; i < counts.size(); ++i) {
        counts[i] = difference(anew ? 0 : before.counts[i], after.counts[i]);
        w.count += counts[i];
    }
    if (w.count <= 0) return w;
    for (std::size_t i = 0; i < counts.size(); ++i) {
        const double low = i == 0 ? 0 : after.bounds[i - 1];
        if (i < after.bounds.size() && after.bounds[i] <= limit) {
            w.within += counts[i];
        } else if (i < after.bounds.size() && low < limit) {
            w.within += counts[i] * (limit - low) / (after.bounds[i] - low);
        }
    }
    const double sum = after.sum_s - (anew ? 0 : before.sum_s);
    w.mean_s = std::isfinite(sum) ? std::max(0.0, sum) / w.count : 0;
    w.p50_s = quantile(after.bounds, counts, w.count, 0.5);
    w.p99_s = quantile(after.bounds, counts, w.count, 0.99);
    return w;
}

void add(LatencyWindow& sum, const LatencyWindow& other) {
    const double count = sum.count + other.count;
    if (count <= 0) return;
    const auto mix = [&](double a, double b) { return (a * sum.count + b * other.count) / count; };
    sum.mean_s = mix(sum.mean_s, other.mean_s);
    sum.p50_s = mix(sum.p50_s, other.p50_s);  // of two frontends of one pool: nearly equal
    sum.p99_s = mix(sum.p99_s, other.p99_s);
    sum.count = count;
    sum.within += other.within;
}

}  // namespace

std::string_view to_string(WorkerState state) {
    switch (state) {
        case WorkerState::kStarting:
            return "starting";
        case WorkerState::kReady:
            return "ready";
        case WorkerState::kDraining:
            return "draining";
    }
    return "unknown";
}

DemandWindow window_of(const protocol::DemandTotals& before, const protocol::DemandTotals& after,
                       double seconds, const SloTarget& slo) {
    static const protocol::DemandTotals kNothing;
    const bool anew = after.offered < before.offered;
    const protocol::DemandTotals& b = anew ? kNothing : before;
    DemandWindow w;
    w.seconds = seconds;
    w.offered = difference(b.offered, after.offered);
    w.refused = difference(b.refused, after.refused);
    w.prompt_tokens = difference(b.prompt_tokens, after.prompt_tokens);
    w.media_items = difference(b.media_items, after.media_items);
    w.started_prompt_tokens = difference(b.started_prompt_tokens, after.started_prompt_tokens);
    w.cached_tokens = difference(b.cached_tokens, after.cached_tokens);
    w.finished = difference(b.finished, after.finished);
    w.output_tokens = difference(b.output_tokens, after.output_tokens);
    w.ttft = latency(b.ttft, after.ttft, slo.ttft_s);
    w.itl = latency(b.itl, after.itl, slo.itl_s);
    return w;
}

void add(DemandWindow& sum, const DemandWindow& other) {
    sum.seconds = std::max(sum.seconds, other.seconds);
    sum.offered += other.offered;
    sum.refused += other.refused;
    sum.prompt_tokens += other.prompt_tokens;
    sum.started_prompt_tokens += other.started_prompt_tokens;
    sum.cached_tokens += other.cached_tokens;
    sum.media_items += other.media_items;
    sum.finished += other.finished;
    sum.output_tokens += other.output_tokens;
    add(sum.ttft, other.ttft);
    add(sum.itl, other.itl);
}

}  // namespace stator::planner
