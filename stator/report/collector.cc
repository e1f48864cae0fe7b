#include "stator/report/collector.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <tuple>
#include <utility>

#include "stator/codec/utf8.h"
#include "stator/report/distribution.h"
#include "stator/report/timeline.h"
#include "stator/report/worker_tally.h"

namespace stator::report {
namespace {

constexpr std::size_t kMaxReasonBytes = 80;
constexpr std::size_t kOutcomes = static_cast<std::size_t>(Outcome::kUnfinished) + 1;
constexpr double kMsPerSecond = 1000.0;

/// SplitMix64 (Steele, Lea, Flood 2014): a small generator whose sequence is the same everywhere.
std::uint64_t next_random(std::uint64_t& state) {
    std::uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

/// Uniform in [0, bound): the upper half of a 128-bit product (its bias is below 2^-40 here).
std::uint64_t random_below(std::uint64_t& state, std::uint64_t bound) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((static_cast<Wide>(next_random(state)) * bound) >> 64);
}

bool possible(const RequestRecord& r) {
    if (!std::isfinite(r.intended) || !std::isfinite(r.sent) || !std::isfinite(r.first_token) ||
        !std::isfinite(r.end)) {
        return false;
    }
    if (r.end < std::max(r.intended, r.sent) && r.outcome != Outcome::kUnfinished) return false;
    if (r.first_token >= 0 && (r.first_token < r.sent || r.first_token > r.end)) return false;
    return r.outcome >= Outcome::kOk && r.outcome <= Outcome::kUnfinished;
}

std::string kept_reason(const RequestRecord& record) {
    std::string_view text = record.reason;
    if (text.empty()) text = to_string(record.outcome);
    text = text.substr(0, kMaxReasonBytes);
    std::string reason;
    codec::utf8_append_lossy(reason, text.substr(0, codec::utf8_complete_prefix(text)));
    return reason;
}

}  // namespace

struct Collector::Impl {
    CollectorOptions options;
    std::array<std::uint64_t, kOutcomes> outcomes{};
    std::uint64_t requests = 0;
    std::vector<ReasonCount> reasons;
    Distribution ttft;
    Distribution itl;
    Distribution tpot;
    Distribution e2e;
    Distribution lateness;
    std::uint64_t input_tokens = 0;
    std::uint64_t cached_tokens = 0;
    std::uint64_t output_tokens = 0;
    std::uint64_t lost_output_tokens = 0;
    std::uint64_t good = 0;
    std::uint64_t judged = 0;
    double first_start = 0;
    double last_start = 0;
    double last_end = 0;
    double busy_seconds = 0;
    TimelineRecorder timeline;
    std::vector<SamplePoint> samples;
    std::uint64_t sampled_from = 0;
    std::uint64_t random_state = 0;
    WorkerTally workers;
    std::vector<Series> series;
    std::deque<Remark> remarks;
    std::vector<std::string> warnings;
    bool series_dropped = false;

    void count_failure(const RequestRecord& record);
    void count_success(const RequestRecord& record);
    void count_times(const RequestRecord& record);
    void keep_sample(const RequestRecord& record);
    [[nodiscard]] bool meets_slo(const RequestRecord& record) const;
    [[nodiscard]] bool surely_misses(const RequestRecord& record) const;
    void fill_counts(Report& report) const;
    void fill_rates(Report& report) const;
    void fill_warnings(Report& report) const;
};

void Collector::Impl::count_failure(const RequestRecord& record) {
    lost_output_tokens += record.output_tokens;
    if (record.outcome == Outcome::kUnfinished) {
        if (surely_misses(record)) ++judged;
        return;
    }
    ++judged;
    timeline.failed(record.end);
    const auto find = [&](std::string_view reason) {
        return std::ranges::find_if(reasons, [&](const ReasonCount& known) {
            return known.outcome == record.outcome && known.reason == reason;
        });
    };
    std::string reason = kept_reason(record);
    auto known = find(reason);
    if (known == reasons.end() && reasons.size() + kOutcomes >= Report::kMaxReasons) {
        // The last places are for one sum per outcome.
        reason = "other reasons";
        known = find(reason);
    }
    if (known == reasons.end()) {
        reasons.push_back({record.outcome, std::move(reason), 1});
    } else {
        ++known->count;
    }
}

bool Collector::Impl::meets_slo(const RequestRecord& r) const {
    const Slo& slo = options.slo;
    if (slo.e2e_ms && (r.end - r.intended) * kMsPerSecond > *slo.e2e_ms) return false;
    if (slo.ttft_ms) {
        if (r.first_token < 0) return false;
        if ((r.first_token - r.intended) * kMsPerSecond > *slo.ttft_ms) return false;
    }
    if (!slo.itl_ms || r.output_tokens < 2 || r.first_token < 0) return true;
    if (slo.itl_rule == ItlRule::kMean) {
        const double mean_gap = (r.end - r.first_token) / (r.output_tokens - 1);
        return mean_gap * kMsPerSecond <= *slo.itl_ms;
    }
    // Nearest rank: the p99 is within the limit when at least 99 % of the gaps are.
    const auto limit = static_cast<float>(*slo.itl_ms / kMsPerSecond);
    const auto over = std::ranges::count_if(r.gaps, [limit](float gap) { return gap > limit; });
    return static_cast<std::uint64_t>(over) * 100 <= r.gaps.size();
}

bool Collector::Impl::surely_misses(const RequestRecord& r) const {
    const Slo& slo = options.slo;
    const double first = r.first_token >= 0 ? r.first_token : r.end;
    if (slo.ttft_ms && (first - r.intended) * kMsPerSecond > *slo.ttft_ms) return true;
    return slo.e2e_ms && (r.end - r.intended) * kMsPerSecond > *slo.e2e_ms;
}

void Collector::Impl::keep_sample(const RequestRecord& record) {
    ++sampled_from;
    std::size_t place = samples.size();
    if (place == Report::kMaxSamples) {
        // Algorithm R (Vitter 1985): every request ends up in the sample with the same chance.
        const std::uint64_t drawn = random_below(random_state, sampled_from);
        if (drawn >= Report::kMaxSamples) return;
        place = static_cast<std::size_t>(drawn);
    } else {
        samples.emplace_back();
    }
    samples[place] = {record.intended,
                      record.input_tokens,
                      record.cached_tokens,
                      record.output_tokens,
                      (record.first_token - record.intended) * kMsPerSecond,
                      (record.end - record.intended) * kMsPerSecond};
}

void Collector::Impl::count_success(const RequestRecord& record) {
    const double e2e_ms = (record.end - record.intended) * kMsPerSecond;
    e2e.add(e2e_ms);
    if (record.first_token >= 0) {
        const double ttft_ms = (record.first_token - record.intended) * kMsPerSecond;
        ttft.add(ttft_ms);
        timeline.ttft(record.intended, ttft_ms);
        if (record.output_tokens > 1) {
            tpot.add((e2e_ms - ttft_ms) / (record.output_tokens - 1));
        }
        keep_sample(record);
    }
    itl.add_many(record.gaps, kMsPerSecond);
    input_tokens += record.input_tokens;
    cached_tokens += std::min(record.cached_tokens, record.input_tokens);
    output_tokens += record.output_tokens;
    timeline.completed(record.end);
    ++judged;
    if (meets_slo(record)) ++good;
}

void Collector::Impl::count_times(const RequestRecord& record) {
    first_start = requests == 1 ? record.intended : std::min(first_start, record.intended);
    last_start = std::max(last_start, record.intended);
    last_end = std::max(last_end, record.end);
    timeline.offered(record.intended);
    if (record.sent < 0) return;
    lateness.add((record.sent - record.intended) * kMsPerSecond);
    busy_seconds += std::max(0.0, record.end - record.sent);
    timeline.under_way(record.sent, record.end);
    if (record.first_token >= 0) {
        timeline.tokens(record.first_token, record.end, record.gaps, record.output_tokens);
    }
}

Collector::Collector(CollectorOptions options) : impl_(std::make_unique<Impl>()) {
    if (options.facts.size() > Report::kMaxFacts) options.facts.resize(Report::kMaxFacts);
    impl_->random_state = options.seed;
    impl_->options = std::move(options);
}
Collector::~Collector() = default;
Collector::Collector(Collector&&) noexcept = default;
Collector& Collector::operator=(Collector&&) noexcept = default;

void Collector::add(const RequestRecord& record) {
    Impl& i = *impl_;
    ++i.requests;
    if (!possible(record)) {
        RequestRecord wrong;
        wrong.outcome = Outcome::kBadAnswer;
        wrong.reason = "impossible times";
        wrong.end = i.last_end;
        ++i.outcomes[static_cast<std::size_t>(wrong.outcome)];
        i.count_failure(wrong);
        return;
    }
    ++i.outcomes[static_cast<std::size_t>(record.outcome)];
    i.count_times(record);
    if (record.outcome == Outcome::kOk) {
        i.count_success(record);
    } else {
        i.count_failure(record);
    }
    if (i.options.per_worker) i.workers.add(record);
}

void Collector::note(std::string_view name, std::string_view unit, double time, double value,
                     std::string_view curve) {
    Impl& i = *impl_;
    if (!std::isfinite(time) || !std::isfinite(value)) return;
    auto series = std::ranges::find_if(
        i.series, [&](const Series& s) { return s.name == name && s.curve == curve; });
    if (series == i.series.end()) {
        if (i.series.size() == Report::kMaxSeries) {
            i.series_dropped = true;
            return;
        }
        i.series.push_back({std::string(name), std::string(curve), std::string(unit), {}});
        series = i.series.end() - 1;
    }
    std::vector<SeriesPoint>& points = series->points;
    if (points.size() == Report::kMaxSeriesPoints) {
        for (std::size_t p = 1; 2 * p < points.size(); ++p) points[p] = points[2 * p];
        points.resize(points.size() / 2);
    }
    points.push_back({time, value});
}

void Collector::remark(double time, std::string text) {
    if (!std::isfinite(time)) return;
    impl_->remarks.push_back({time, std::move(text)});
    if (impl_->remarks.size() > Report::kMaxRemarks) impl_->remarks.pop_front();
}

void Collector::warn(std::string sentence) {
    if (impl_->warnings.size() < Report::kMaxWarnings) {
        impl_->warnings.push_back(std::move(sentence));
    }
}

void Collector::set_fact(std::string_view key, std::string value) {
    auto& facts = impl_->options.facts;
    const auto known = std::ranges::find(facts, key, &Fact::key);
    if (known != facts.end()) {
        known->value = std::move(value);
    } else if (facts.size() < Report::kMaxFacts) {
        facts.push_back({std::string(key), std::move(value)});
    }
}

Snapshot Collector::snapshot() const {
    const Impl& i = *impl_;
    Snapshot s;
    s.ok = i.outcomes[static_cast<std::size_t>(Outcome::kOk)];
    s.ended = i.requests - i.outcomes[static_cast<std::size_t>(Outcome::kUnfinished)];
    s.failed = s.ended - s.ok;
    s.output_tokens = i.output_tokens;
    s.last_end = i.last_end;
    s.ttft_p50_ms = i.ttft.percentile(0.5);
    s.ttft_p99_ms = i.ttft.percentile(0.99);
    s.itl_mean_ms = i.itl.mean();
    s.itl_p99_ms = i.itl.percentile(0.99);
    const TimelineRecorder::Recent recent = i.timeline.recent(i.last_end);
    if (recent.seconds > 0) {
        s.recent_completed_rate = static_cast<double>(recent.completed) / recent.seconds;
        s.recent_output_rate = static_cast<double>(recent.output_tokens) / recent.seconds;
    }
    return s;
}

void Collector::Impl::fill_counts(Report& report) const {
    report.requests = requests;
    for (std::size_t o = 1; o < kOutcomes; ++o) {
        if (outcomes[o] > 0) report.outcomes.push_back({static_cast<Outcome>(o), outcomes[o]});
    }
    report.reasons = reasons;
    std::ranges::sort(report.reasons, [](const ReasonCount& a, const ReasonCount& b) {
        return std::tie(b.count, a.outcome, a.reason) < std::tie(a.count, b.outcome, b.reason);
    });
    report.input_tokens = input_tokens;
    report.cached_tokens = cached_tokens;
    report.output_tokens = output_tokens;
    report.lost_output_tokens = lost_output_tokens;
    if (input_tokens > 0) {
        report.cached_ratio =
            static_cast<double>(cached_tokens) / static_cast<double>(input_tokens);
    }
    if (judged > 0) report.good_share = static_cast<double>(good) / static_cast<double>(judged);
}

void Collector::Impl::fill_rates(Report& report) const {
    if (options.offered_rate) {
        report.offered_rate = *options.offered_rate;
    } else if (requests > 1 && last_start > first_start) {
        report.offered_rate = static_cast<double>(requests - 1) / (last_start - first_start);
    }
    if (!(report.seconds > 0)) return;
    const double ok = static_cast<double>(report.count(Outcome::kOk));
    report.achieved_rate = ok / report.seconds;
    report.output_rate = static_cast<double>(output_tokens) / report.seconds;
    report.total_rate = static_cast<double>(input_tokens + output_tokens) / report.seconds;
    report.goodput = static_cast<double>(good) / report.seconds;
    report.mean_in_flight = busy_seconds / report.seconds;
}

void Collector::Impl::fill_warnings(Report& report) const {
    report.warnings = warnings;
    const auto say = [&](std::string sentence) {
        if (report.warnings.size() < Report::kMaxWarnings) {
            report.warnings.push_back(std::move(sentence));
        }
    };
    const std::uint64_t ok = report.count(Outcome::kOk);
    if (requests > 0 && ok == 0) say("No request ended well, so there are no latencies.");
    if (series_dropped)
        say(fmt::format("Series beyond the first {} were dropped.", Report::kMaxSeries));
    if (workers.left_out() > 0) {
        say(
            fmt::format("{} requests ran on workers numbered {} or above and are missing from the "
                        "figures per worker.",
                        workers.left_out(), WorkerTally::kMaxWorkers));
    }
    if (lateness.count() > 0 && report.lateness.p99 > 10.0 &&
        report.lateness.p99 > 0.05 * report.ttft.p50) {
        say(
            fmt::format("Requests left late (p99 {:.0f} ms): the load generator itself was slow, "
                        "and its delay is part of the latencies.",
                        report.lateness.p99));
    }
    if (!options.closed_loop && ok >= 100) {
        // A queue that grows shows in the requests under way: later in the time of arrivals
        // against earlier.
        const std::vector<Interval>& all = report.timeline.intervals;
        const auto arrivals = std::min(
            all.size(), static_cast<std::size_t>(last_start / report.timeline.interval_seconds));
        const auto mean = [&](std::size_t begin, std::size_t end) {
            double sum = 0;
            for (std::size_t n = begin; n < end; ++n) sum += all[n].in_flight;
            return end > begin ? sum / static_cast<double>(end - begin) : 0.0;
        };
        const double early = mean(arrivals / 4, arrivals / 2);
        const double late = mean(arrivals - arrivals / 4, arrivals);
        if (arrivals >= 16 && late > 1.5 * early + 4) {
            say(
                fmt::format("Requests under way grew from {:.0f} to {:.0f} while requests arrived: "
                            "the server did not keep up, and latencies depend on how long the run "
                            "was.",
                            early, late));
        }
    }
}

Report Collector::finish(double seconds, bool partial) const {
    const Impl& i = *impl_;
    Report report;
    report.name = i.options.name;
    report.facts = i.options.facts;
    report.partial = partial;
    report.slo = i.options.slo;
    report.seconds = std::isfinite(seconds) ? std::max(seconds, i.last_end) : i.last_end;
    report.ttft = i.ttft.summary();
    report.itl = i.itl.summary();
    report.tpot = i.tpot.summary();
    report.e2e = i.e2e.summary();
    report.lateness = i.lateness.summary();
    i.fill_counts(report);
    i.fill_rates(report);
    report.timeline = i.timeline.finish(report.seconds);
    report.samples = i.samples;
    std::ranges::sort(report.samples, {}, [](const SamplePoint& s) {
        return std::tie(s.start, s.input_tokens, s.output_tokens, s.ttft_ms, s.e2e_ms,
                        s.cached_tokens);
    });
    report.series = i.series;
    report.remarks.assign(i.remarks.begin(), i.remarks.end());
    if (i.options.per_worker) report.workers = i.workers.summary();
    i.fill_warnings(report);
    return report;
}

}  // namespace stator::report
