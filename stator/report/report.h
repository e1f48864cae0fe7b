#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/report/record.h"

namespace stator::report {

/// Which figure of a request the limit on the time between tokens binds.
enum class ItlRule : std::uint8_t {
    kMean = 1,  ///< the request's TPOT (`vllm bench serve --goodput tpot:…`, DistServe)
    kP99,       ///< the 99th percentile (nearest rank) of the request's own gaps
};
std::string_view to_string(ItlRule rule);

/// What a request must meet to count as good: all the limits that are set.
struct Slo {
    std::optional<double> ttft_ms = std::nullopt;
    std::optional<double> itl_ms = std::nullopt;
    ItlRule itl_rule = ItlRule::kMean;
    std::optional<double> e2e_ms = std::nullopt;

    [[nodiscard]] bool empty() const { return !ttft_ms && !itl_ms && !e2e_ms; }
    bool operator==(const Slo&) const = default;
};

/// A point of a distribution: the value below which `share` of the samples lie.
struct Quantile {
    double share = 0;  ///< 0 to 1
    double value = 0;
    bool operator==(const Quantile&) const = default;
};

/// A distribution in a few figures, all in milliseconds; zeros where nothing was counted. Mean,
/// least and greatest are exact, the others within 0.1 %. Percentiles interpolate linearly between
/// neighbouring samples, as numpy.percentile does and with it `vllm bench serve` and aiperf.
struct Summary {
    std::uint64_t count = 0;
    double mean = 0;
    double min = 0;
    double max = 0;
    double p50 = 0;
    double p90 = 0;
    double p95 = 0;
    double p99 = 0;
    double p999 = 0;
    /// For the plot: ascending, from share 0 (the least) to 1 (the greatest); at most
    /// kMaxQuantiles.
    std::vector<Quantile> quantiles;
    bool operator==(const Summary&) const = default;
};

/// A pair of text, such as {"model", "Qwen3-8B"}. Shown in the order given.
struct Fact {
    std::string key;
    std::string value;
    bool operator==(const Fact&) const = default;
};

struct OutcomeCount {
    Outcome outcome = Outcome::kOk;
    std::uint64_t count = 0;
    bool operator==(const OutcomeCount&) const = default;
};

struct ReasonCount {
    Outcome outcome = Outcome::kHttpError;
    std::string reason;
    std::uint64_t count = 0;
    bool operator==(const ReasonCount&) const = default;
};

/// What happened in one stretch of the run.
struct Interval {
    std::uint64_t offered = 0;    ///< requests whose fixed start lies here
    std::uint64_t completed = 0;  ///< requests that ended well here
    std::uint64_t failed = 0;     ///< requests that ended otherwise here, unfinished ones excepted
    std::uint64_t output_tokens = 0;  ///< tokens that came here, of whatever request
    double in_flight = 0;             ///< mean number of requests sent and not ended
    /// Of the requests whose fixed start lies here and that ended well; zero where there are none.
    std::uint64_t ttft_count = 0;
    double ttft_p50_ms = 0;
    double ttft_p99_ms = 0;
    bool operator==(const Interval&) const = default;
};

struct Timeline {
    double interval_seconds = 0;  ///< interval i is [i, i + 1) times this; the last may be cut
    std::vector<Interval> intervals;
    bool operator==(const Timeline&) const = default;
};

/// One request that ended well, for scatter plots.
struct SamplePoint {
    double start = 0;  ///< its fixed start, seconds since the run's begin
    std::uint32_t input_tokens = 0;
    std::uint32_t cached_tokens = 0;
    std::uint32_t output_tokens = 0;
    double ttft_ms = 0;
    double e2e_ms = 0;
    bool operator==(const SamplePoint&) const = default;
};

struct SeriesPoint {
    double time = 0;  ///< seconds since the run's begin
    double value = 0;
    bool operator==(const SeriesPoint&) const = default;
};

/// A named figure over time that is not of requests: workers, a planner's decisions.
struct Series {
    std::string name;   ///< of the figure: series of one name are drawn in one plot
    std::string curve;  ///< which of them; empty: there is one
    std::string unit;
    std::vector<SeriesPoint> points;  ///< in order of time
    bool operator==(const Series&) const = default;
};

/// Something that was decided or happened, for people.
struct Remark {
    double time = 0;  ///< seconds since the run's begin
    std::string text;
    bool operator==(const Remark&) const = default;
};

struct Spread {
    double min = 0;
    double mean = 0;
    double max = 0;
    bool operator==(const Spread&) const = default;
};

struct WorkerRow {
    std::uint32_t worker = 0;
    std::uint64_t requests = 0;  ///< that ended, well or not
    std::uint64_t failed = 0;
    std::uint64_t input_tokens = 0;
    std::uint64_t cached_tokens = 0;
    std::uint64_t output_tokens = 0;
    bool operator==(const WorkerRow&) const = default;
};

/// How the load spread over the workers; those that got no request are not known here.
struct WorkerSummary {
    std::uint64_t workers = 0;
    Spread requests;
    Spread output_tokens;
    Spread cached_ratio;
    std::vector<WorkerRow> rows;  ///< all of them, or those with most requests where there are more
    bool operator==(const WorkerSummary&) const = default;
};

/// A run in figures: plain data, equal for equal records in equal order. Latencies count from a
/// request's fixed start and take in only requests that ended well, as in the tools named below.
///
/// - TTFT: first token minus fixed start. E2E: last token minus fixed start.
/// - ITL: every gap between neighbouring tokens is one sample (`vllm bench serve`: ITL).
/// - TPOT: (E2E - TTFT) / (n - 1), one sample per request of n > 1 output tokens (`vllm bench
///   serve`: TPOT; genai-perf and aiperf call it inter token latency).
/// - Goodput: requests per second that meet all the SLO's limits (`vllm bench serve --goodput`,
///   aiperf). `good_share` is DistServe's attainment: its goodput is the highest rate at which that
///   is still 90 %, see knee.h.
/// - Total tokens are input and output together (`vllm bench serve`: total token throughput).
struct Report {
    static constexpr std::size_t kMaxQuantiles = 128;
    static constexpr std::size_t kMaxIntervals = 256;
    static constexpr std::size_t kMaxSamples = 1000;
    static constexpr std::size_t kMaxFacts = 64;
    static constexpr std::size_t kMaxReasons = 32;
    static constexpr std::size_t kMaxSeries = 32;
    static constexpr std::size_t kMaxSeriesPoints = 512;
    static constexpr std::size_t kMaxRemarks = 512;
    static constexpr std::size_t kMaxWorkerRows = 64;
    static constexpr std::size_t kMaxWarnings = 64;

    std::string name;         ///< short, for legends: "round robin", "8 req/s"
    std::vector<Fact> facts;  ///< what was run: model, server, workload, seed, version
    bool partial = false;     ///< stopped before its end
    double seconds = 0;       ///< how long it ran
    Slo slo;

    std::uint64_t requests = 0;          ///< all records
    std::vector<OutcomeCount> outcomes;  ///< those that occurred, in the enum's order
    std::vector<ReasonCount> reasons;    ///< of what failed, most frequent first

    Summary ttft;
    Summary itl;
    Summary tpot;
    Summary e2e;
    Summary lateness;  ///< sent minus fixed start, of all that were sent: the generator's own delay

    double offered_rate = 0;   ///< requests/s: as given, else fixed starts per second of the run
    double achieved_rate = 0;  ///< requests/s that ended well
    double output_rate = 0;    ///< output tokens/s of requests that ended well
    double total_rate = 0;     ///< input and output tokens/s of requests that ended well
    double goodput = 0;        ///< requests/s that met the SLO; without one, that ended well
    /// Good ones among the requests that count: all that ended, and unfinished ones that are
    /// already over a limit. 0 where none counts.
    double good_share = 0;
    double mean_in_flight = 0;

    std::uint64_t input_tokens = 0;  ///< of requests that ended well, as are the next two
    std::uint64_t cached_tokens = 0;
    std::uint64_t output_tokens = 0;
    std::uint64_t lost_output_tokens = 0;  ///< of the others
    double cached_ratio = 0;               ///< cached_tokens / input_tokens

    Timeline timeline;
    std::vector<SamplePoint> samples;  ///< a uniform sample of the requests that ended well
    std::vector<Series> series;
    std::vector<Remark> remarks;  ///< in order of time; the last ones where there are more
    WorkerSummary workers;        ///< empty but for simulations
    std::vector<std::string> warnings;

    [[nodiscard]] std::uint64_t count(Outcome outcome) const;
    /// All that ended, but not well.
    [[nodiscard]] std::uint64_t failed() const;
    bool operator==(const Report&) const = default;
};

}  // namespace stator::report
