#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/report/record.h"
#include "stator/report/report.h"

namespace stator::report {

struct CollectorOptions {
    std::string name;
    std::vector<Fact> facts;  ///< the first kMaxFacts are kept
    Slo slo;
    /// Requests/s the run asks for; none: what the fixed starts amount to (a trace, closed loop).
    std::optional<double> offered_rate;
    /// A closed loop has no rate to fall behind, so nothing warns of a low one.
    bool closed_loop = false;
    /// Keep figures per worker (RequestRecord::worker): simulations.
    bool per_worker = false;
    /// For the sample of requests, and nothing else.
    std::uint64_t seed = 1;
};

/// Figures so far, for a line of progress.
struct Snapshot {
    std::uint64_t ended = 0;   ///< records but unfinished ones
    std::uint64_t ok = 0;      ///< of those, well
    std::uint64_t failed = 0;  ///< of those, otherwise
    std::uint64_t output_tokens = 0;
    double last_end = 0;  ///< seconds since the run's begin
    double ttft_p50_ms = 0;
    double ttft_p99_ms = 0;
    double itl_mean_ms = 0;
    double itl_p99_ms = 0;
    /// Of the last few seconds of the run (whole intervals of the timeline).
    double recent_completed_rate = 0;
    double recent_output_rate = 0;
};

/// Turns records into a Report. Takes some 5 ns per gap and some 100 ns per request; holds no
/// record, only figures: at most some 15 MB however long the run is. Not thread-safe.
class Collector {
  public:
    explicit Collector(CollectorOptions options);
    ~Collector();
    Collector(Collector&&) noexcept;
    Collector& operator=(Collector&&) noexcept;

    /// Once per request, in any order (the sample and the last bits of means depend on it). A
    /// record whose times run backwards or are not finite is counted as kBadAnswer of reason
    /// "impossible times". Of its reason the first 80 bytes are kept; when their
    /// list is full, others count as "other reasons".
    void add(const RequestRecord& record);

    /// Notes a value of a series that is not of requests; times ascend within a series. Beyond
    /// kMaxSeriesPoints every second point is dropped, beyond kMaxSeries new names are, with a
    /// warning.
    /// `curve`: which of several series of that name.
    void note(std::string_view series, std::string_view unit, double time, double value,
              std::string_view curve = {});

    /// Something that was decided or happened; times ascend. The last kMaxRemarks are kept.
    void remark(double time, std::string text);

    /// A sentence for the report. The first kMaxWarnings are kept.
    void warn(std::string sentence);

    /// A fact known only later, such as the server's version; replaces the one of equal key.
    void set_fact(std::string_view key, std::string value);

    /// Some 20 us: for every second, not for every record.
    [[nodiscard]] Snapshot snapshot() const;

    /// The run's figures, `seconds` after its begin (at least the last end counts). `partial`: it
    /// was stopped early. May be called again after more records.
    [[nodiscard]] Report finish(double seconds, bool partial) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::report
