#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <vector>

#include "stator/base/clock.h"
#include "stator/router/router.h"

namespace stator::router {
namespace {

constexpr std::uint32_t kPromptTokens = 8192;
constexpr std::uint32_t kBlockTokens = 16;
constexpr std::size_t kBlocks = kPromptTokens / kBlockTokens;
/// Prompts under way on each rank while decisions are made.
constexpr std::size_t kBookingsPerRank = 2;

/// Ranks of unlike load, and traffic: prompts in groups, each with a common half.
struct Scene {
    explicit Scene(std::size_t ranks, Policy policy) : router(options(policy), 1) {
        for (std::size_t i = 0; i < ranks; ++i) {
            RankDescription d;
            d.name = "worker-" + std::to_string(i);
            d.prefill = {0.01, 1e-4, 1e-9};
            const RankIndex r = router.add_rank(std::move(d));
            protocol::LoadReport load;
            load.running = load.running_limit = 256;
            load.running = static_cast<std::uint32_t>(random() % 64);
            load.waiting_limit = 1024;
            router.on_report(r, load, BookingId(0));
        }
        for (std::size_t g = 0; g < 64; ++g) {
            auto& blocks = prompts.emplace_back(kBlocks);
            std::iota(blocks.begin(), blocks.end(), g * 1'000'000'007);
        }
        // Three quarters of the ranks hold some of what all begin with, a few hold much.
        for (std::size_t i = 0; i < ranks; ++i) {
            if (i % 4 == 0) continue;
            const auto depth = static_cast<std::uint32_t>(i % 50 == 1 ? 256 + i % 200 : 16);
            overlaps.push_back({static_cast<RankIndex>(i), depth, depth + 8});
        }
        for (std::size_t i = 0; i < ranks * kBookingsPerRank; ++i) book();
    }

    static PolicyOptions options(Policy policy) {
        PolicyOptions o;
        o.policy = policy;
        return o;
    }

    void book() {
        auto& blocks = prompts[random() % prompts.size()];
        std::iota(blocks.begin() + kBlocks / 2, blocks.end(), random());
        RouteRequest r;
        r.prompt_tokens = kPromptTokens;
        r.block_tokens = kBlockTokens;
        r.blocks = blocks;
        r.overlaps = overlaps;
        now += std::chrono::microseconds(50);
        auto decision = router.book(r, now);
        benchmark::DoNotOptimize(decision);
        open.push_back(decision->booking);
    }

    /// The oldest one has its first token, or ends.
    void go_on() {
        if (open.size() < router.ranks().size() * kBookingsPerRank) return;
        router.on_first_token(open[done], 4096, now);
        router.on_end(open[done], now);
        open[done] = open.back();
        open.pop_back();
        done = (done + 7919) % open.size();
    }

    std::mt19937_64 random{1};
    Router router;
    std::vector<std::vector<std::uint64_t>> prompts;
    std::vector<Overlap> overlaps;
    std::vector<BookingId> open;
    std::size_t done = 0;
    Nanos now{0};
};

/// Choosing and booking a rank for a prompt of 8,192 tokens, overlaps given.
void decide(benchmark::State& state, Policy policy) {
    const auto ranks = static_cast<std::size_t>(state.range(0));
    Scene scene(ranks, policy);
    std::vector<double> us;
    us.reserve(100'000);
    for (auto _ : state) {
        const TimePoint begin = Clock::real().now();
        scene.book();
        const double took = to_seconds(Clock::real().now() - begin);
        state.SetIterationTime(took);
        us.push_back(took * 1e6);
        scene.go_on();
    }
    const auto quantile = [&](double q) {
        const auto at = us.begin() + static_cast<std::ptrdiff_t>(q * (us.size() - 1));
        std::ranges::nth_element(us, at);
        return *at;
    };
    state.counters["p50_us"] = quantile(0.5);
    state.counters["p99_us"] = quantile(0.99);
    state.counters["workers"] = static_cast<double>(ranks);
}

BENCHMARK_CAPTURE(decide, expected_ttft, Policy::kExpectedTtft)
    ->ArgName("workers")
    ->Arg(100)
    ->Arg(1000)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);
// To make so many ranks' bookings takes seconds: once.
BENCHMARK_CAPTURE(decide, expected_ttft, Policy::kExpectedTtft)
    ->ArgName("workers")
    ->Arg(10'000)
    ->Iterations(5000)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(decide, dynamo, Policy::kDynamo)
    ->ArgName("workers")
    ->Arg(1000)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(decide, least_loaded, Policy::kLeastLoaded)
    ->ArgName("workers")
    ->Arg(1000)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace stator::router
