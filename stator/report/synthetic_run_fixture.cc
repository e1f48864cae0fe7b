#include "stator/report/synthetic_run_fixture.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

namespace stator::report {
namespace {

/// The standard's distributions differ between libraries; these don't.
class Dice {
  public:
    explicit Dice(std::uint64_t seed) : engine_(seed) {}
    double uniform() { return (static_cast<double>(engine_() >> 11) + 0.5) * 0x1p-53; }
    double exponential(double mean) { return -mean * std::log(uniform()); }
    double log_normal(double median, double sigma) {
        const double normal =
            std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform());
        return median * std::exp(sigma * normal);
    }

  private:
    std::mt19937_64 engine_;
};

}  // namespace

SyntheticRecords synthetic_records(const SyntheticRun& run) {
    Dice dice(run.seed);
    SyntheticRecords made;
    std::vector<double> free_at(run.workers, 0.0);
    std::vector<std::vector<double>> ends(run.workers);
    double now = 0;
    for (std::uint64_t index = 0; (now += dice.exponential(1 / run.rate)) < run.seconds; ++index) {
        RequestRecord r;
        r.index = index;
        r.intended = now;
        r.sent = now + dice.exponential(0.0001);
        const auto least = std::ranges::min_element(free_at);
        r.worker = static_cast<std::uint32_t>(least - free_at.begin());
        r.input_tokens =
            static_cast<std::uint32_t>(std::clamp(dice.log_normal(1500, 0.9), 16.0, 60'000.0));
        if (dice.uniform() < 1.5 * run.cached_share) {
            r.cached_tokens = static_cast<std::uint32_t>(r.input_tokens * dice.uniform());
            r.cached_tokens -= r.cached_tokens % 16;
        }
        r.output_tokens =
            static_cast<std::uint32_t>(std::clamp(dice.log_normal(150, 0.7), 1.0, 2'000.0));
        double begin = std::max(*least, r.sent);
        if (run.stall_at && begin >= *run.stall_at && begin < *run.stall_at + 5) {
            begin = *run.stall_at + 5;
        }
        const double prefill =
            0.015 + (r.input_tokens - r.cached_tokens) / run.prefill_tokens_per_second;
        *least = begin + prefill;
        std::vector<double>& busy = ends[r.worker];
        std::erase_if(busy, [&](double end) { return end < begin; });
        const double step = 0.009 + 0.0004 * static_cast<double>(busy.size());
        r.first_token = begin + prefill;
        double end = r.first_token;
        std::vector<float>& gaps = made.gaps.emplace_back();
        for (std::uint32_t t = 1; t < r.output_tokens; ++t) {
            const double spike = dice.uniform() < 0.03 ? dice.exponential(0.03) : 0.0;
            gaps.push_back(static_cast<float>(step * (0.9 + 0.2 * dice.uniform()) + spike));
            end += static_cast<double>(gaps.back());
        }
        r.end = end;
        busy.push_back(end);
        r.gaps = gaps;
        if (dice.uniform() < run.failure_share) {
            const bool early = dice.uniform() < 0.7;
            r.outcome = early ? Outcome::kRefused : Outcome::kReset;
            r.reason = early ? "http 503" : "closed in the middle of a chunk";
            r.gaps = {};
            r.output_tokens = early ? 0 : 1;
            if (early) r.first_token = -1;
            r.end = early ? r.sent + 0.002 : r.first_token;
        }
        made.records.push_back(r);
    }
    std::ranges::sort(made.records, {}, &RequestRecord::end);
    return made;
}

Report synthetic_report(const SyntheticRun& run, CollectorOptions options) {
    if (options.facts.empty()) {
        options.facts = {{"model", "Qwen3-8B"},
                         {"server", "http://127.0.0.1:8000/v1"},
                         {"workload", "made up, inputs 1,500 and outputs 150 tokens (median)"},
                         {"arrivals", "Poisson"},
                         {"seed", std::to_string(run.seed)}};
    }
    options.offered_rate = run.rate;
    Collector collector(std::move(options));
    for (const RequestRecord& record : synthetic_records(run).records) collector.add(record);
    return collector.finish(run.seconds, false);
}

}  // namespace stator::report
