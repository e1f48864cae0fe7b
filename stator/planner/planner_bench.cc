#include "stator/planner/planner.h"

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cmath>

namespace stator::planner {
namespace {

constexpr int kDay = 8640;  ///< windows of 10 s

/// A tick with so many workers, after a day of history.
void tick(benchmark::State& state) {
    PlannerOptions o;
    const auto n = static_cast<std::uint32_t>(state.range(0));
    o.roles = {{Role::kAggregated, n, 1, 2 * n, 1}};
    RoleProfile p;
    p.cost = {0.005, 2e-5, 2e-4, 0};
    o.profile.roles[Role::kAggregated] = p;
    auto planner = *Planner::make(o);
    Observation seen;
    for (std::uint32_t i = 0; i < n; ++i) {
        WorkerObservation w;
        w.name = fmt::format("worker-{}", i);
        w.load = protocol::LoadReport{};
        w.load->kv_cached_tokens = i;
        w.passes = protocol::ForwardPassMetrics{};
        seen.workers.push_back(std::move(w));
    }
    std::int64_t t = 0;
    const auto step = [&] {
        t += 10;
        const double rate = n * (10 + 5 * std::sin(static_cast<double>(t) * 7e-5));
        DemandWindow d;
        d.seconds = 10;
        d.offered = 10 * rate;
        d.prompt_tokens = 1000 * d.offered;
        d.started_prompt_tokens = d.prompt_tokens;
        d.finished = d.offered;
        d.output_tokens = 100 * d.offered;
        d.ttft = {d.offered, d.offered, 0.1, 0.1, 0.2};
        d.itl = d.ttft;
        seen.demand = d;
        for (WorkerObservation& w : seen.workers) {
            w.passes->steps += 1000;
            w.passes->prefill_tokens += 100'000;
            w.passes->decode_tokens += 10'000;
            w.passes->model_seconds += 9;
        }
        return planner->tick(seen, TimePoint{t * 1'000'000'000}).id;
    };
    const std::vector<WorkerObservation> all = seen.workers;
    seen.workers.resize(std::min<std::size_t>(seen.workers.size(), 4));
    for (int i = 0; i < kDay; ++i) (void)step();
    seen.workers = all;
    for (auto _ : state) benchmark::DoNotOptimize(step());
}
BENCHMARK(tick)->Arg(1000)->Iterations(50)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace stator::planner
