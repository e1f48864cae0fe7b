#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace stator::report {

struct KneeOptions {
    double start_rate = 1.0;  ///< the first rate tried
    double min_rate = 0.01;   ///< nothing below is tried
    double max_rate = 1e6;    ///< nothing above is tried
    double growth = 2.0;      ///< step while no bound is known on one side; above 1
    double tolerance = 0.05;  ///< done when the bounds are this close, as a share of the upper one
    std::size_t max_runs = 20;
};

enum class KneeEnd : std::uint8_t {
    kSearching = 1,
    kConverged,  ///< the bounds are within the tolerance
    kAllMet,     ///< even max_rate meets the SLO
    kNoneMet,    ///< not even min_rate does
    kOutOfRuns,  ///< max_runs are used up; the bounds are what is known
};
std::string_view to_string(KneeEnd end);

struct KneeRun {
    double rate = 0;
    bool met = false;
    bool operator==(const KneeRun&) const = default;
};

struct KneeResult {
    KneeEnd end = KneeEnd::kSearching;
    std::optional<double> met;    ///< the highest rate that stands as meeting the SLO
    std::optional<double> unmet;  ///< the lowest rate above it that stands as missing it
    std::vector<KneeRun> runs;    ///< in order
    bool operator==(const KneeResult&) const = default;
};

/// Searches the highest rate that meets an SLO; runs nothing itself. DistServe calls that rate
/// goodput where "meets" means an attainment of 90 %.
///
///     while (auto rate = search.next()) search.tell(*rate, run_at(*rate));
///
/// Grows (or shrinks) geometrically until one rate meets and a higher one misses, then halves the
/// distance on a logarithmic scale. Near the knee a verdict is noise, so when the bounds are close
/// each is run again until two verdicts of it agree; a rate's verdict is that of most of its runs,
/// a draw is a miss. A bound that falls is searched for again from there: one wrong verdict,
/// wherever it comes, changes nothing but the number of runs.
class KneeSearch {
  public:
    explicit KneeSearch(KneeOptions options);

    /// The rate to try now; none: done. The same until tell() is called.
    [[nodiscard]] std::optional<double> next() const;
    /// What came of a run at `rate`, which is next() or any other (a run already made).
    void tell(double rate, bool met);
    [[nodiscard]] KneeResult result() const;

  private:
    struct Tried {
        double rate = 0;
        std::size_t met = 0;
        std::size_t missed = 0;
        [[nodiscard]] bool holds() const { return met > missed; }
        [[nodiscard]] bool settled() const { return met != missed && std::max(met, missed) >= 2; }
    };
    struct Plan {
        std::optional<double> rate;
        KneeEnd end = KneeEnd::kSearching;
    };
    [[nodiscard]] Plan plan() const;
    [[nodiscard]] const Tried* lowest_missed() const;
    [[nodiscard]] const Tried* highest_met_below(const Tried* limit) const;

    KneeOptions options_;
    std::vector<Tried> tried_;  // ascending
    std::vector<KneeRun> runs_;
};

}  // namespace stator::report
