#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "stator/router/active_prefixes.h"
#include "stator/router/policy.h"
#include "stator/router/rank_table.h"
#include "stator/router/route.h"

namespace stator::router {

/// Why a rank is no candidate.
enum class Exclusion : std::uint8_t {
    kNone,
    kOtherRole,  ///< or gone, or not open
    kFull,
    kTried,
    kNotPinned,
    kLabel,  ///< lacks one that is required
    kTaint,  ///< bears one that is not tolerated
    kNoWay,  ///< could not take its media over
};

/// Scores every rank for one request: columns, index = rank. Holds memory from one request to the
/// next; the results hold until the next one. Not thread-safe.
class Scorer {
  public:
    /// Who may take it, and what of its prefix is where. `exact`: bookings' blocks are known one by
    /// one (dynamo).
    void prepare(const RankTable& table, ActivePrefixes& active, const RouteRequest& request);
    /// Costs of all ranks by this policy, lower is better; kNever where excluded. `turn` is what
    /// round-robin goes on from.
    void score(const RankTable& table, const ActivePrefixes& active, const PolicyOptions& options,
               const RouteRequest& request, double now_s, std::uint64_t turn,
               std::minstd_rand& random);

    static constexpr double kNever = 1e300;
    [[nodiscard]] const std::vector<double>& costs() const { return cost_; }
    [[nodiscard]] std::vector<double>& costs() { return cost_; }
    [[nodiscard]] Exclusion exclusion(RankIndex rank) const {
        return static_cast<Exclusion>(excluded_[rank]);
    }
    /// After prepare(): tokens of the prompt that are there already.
    [[nodiscard]] double cached_tokens(RankIndex rank) const {
        return static_cast<double>(cached_[rank]);
    }
    /// After prepare(), before score().
    void exclude(RankIndex rank, Exclusion why) {
        if (excluded_[rank] == 0) excluded_[rank] = static_cast<std::uint8_t>(why);
    }
    [[nodiscard]] double std_s(const RankTable& table, const Candidate& candidate) const;
    /// After score(), of whole requests that could be split: what they cost the sequences that
    /// decode on each rank, by that option's weight.
    void add_split_harm(const RankTable& table, const PolicyOptions& options,
                        const RouteRequest& request);
    /// One rank's seconds, part by part.
    [[nodiscard]] Candidate candidate(const RankTable& table, const PolicyOptions& options,
                                      const RouteRequest& request, RankIndex rank,
                                      double now_s) const;
    /// Uncached prefill tokens of our bookings without a first token, by rank: kept by the router,
    /// read by dynamo's cost.
    std::vector<float> prefill_tokens;
    /// Requests a second that a rank gets on average: kept by the router, read by expected-ttft.
    double arrivals_per_rank_s = 0;

  private:
    void expected_ttft(const RankTable::Columns& c, const PolicyOptions& options,
                       const RouteRequest& request, double now_s);
    void encode(const RankTable::Columns& c, const RouteRequest& request);
    void dynamo(const ActivePrefixes& active, const PolicyOptions& options,
                const RouteRequest& request);
    /// What split_itl_weight charges more than itl_weight.
    [[nodiscard]] double split_harm_s(const RankTable& table, const PolicyOptions& options,
                                      const RouteRequest& request, RankIndex rank) const;
    void constrain(const RankTable& table, const RouteRequest& request);
    [[nodiscard]] double preference_s(const RankTable& table, const PolicyOptions& options,
                                      const RouteRequest& request, RankIndex rank) const;
    [[nodiscard]] double adapter_s(const RankTable& table, const RouteRequest& request,
                                   RankIndex rank) const;

    std::vector<double> cost_;
    std::vector<std::uint8_t> excluded_;
    std::vector<float> device_;                ///< tokens of the prefix in device memory, by events
    std::vector<float> host_;                  ///< behind it, by events
    std::vector<float> cached_;                ///< in any memory, or on the way by a booking
    std::vector<float> slow_;                  ///< of these, to be copied to the device
    std::vector<std::uint32_t> active_depth_;  ///< blocks shared with bookings
};

}  // namespace stator::router
