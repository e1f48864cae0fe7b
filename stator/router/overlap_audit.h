#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "stator/router/route.h"

namespace stator::router {

/// What a request's prefix was thought to be on its rank, and what the engine says it found.
struct AuditSample {
    std::uint32_t predicted_tokens = 0;  ///< by the rank's events alone, when it was booked
    std::uint32_t cached_tokens = 0;     ///< reported by the engine
    std::uint32_t block_tokens = 16;
    /// As predicted with what is under way to the rank; 0: nothing is known to be.
    std::uint32_t expected_tokens = 0;
    std::uint32_t prompt_tokens = 0;  ///< 0: not known
    /// AuditVerdict::resyncs_done when it was booked: samples from before a snapshot don't count.
    std::uint32_t resyncs_done = 0;
};

/// What is to be done about a rank.
enum class Trust : std::uint8_t {
    kTrusted,
    kResync,      ///< a snapshot of its cache is to come; until then its overlaps count
    kDistrusted,  ///< a snapshot did not help: see AuditVerdict::believed
};
enum class AuditFinding : std::uint8_t {
    kNone,
    kFoundMore,  ///< the engine has blocks that we don't know of: lost "stored" events
    kFoundLess,  ///< it lacks blocks that we think it has: lost "removed" events
    kOrphans,    ///< it stores blocks after others that it never told of: lost "stored" events
    kUnrelated,  ///< it reuses prefixes and we know of none: another hash seed, block size,
                 ///< template
};
[[nodiscard]] std::string_view to_string(Trust trust);
/// A sentence's part: "…".
[[nodiscard]] std::string_view to_string(AuditFinding finding);

struct AuditVerdict {
    Trust trust = Trust::kTrusted;
    AuditFinding finding = AuditFinding::kNone;
    double mismatch_rate = 0;  ///< recent, of the requests where something was cached
    std::uint64_t samples = 0;
    std::uint32_t resyncs = 0;  ///< asked for so far
    std::uint32_t resyncs_done = 0;
    bool wants_snapshot = false;  ///< until on_resynced()
    /// Its overlaps count. Not where it is distrusted and reuses prefixes of which we know nothing,
    /// or most predictions are wrong. A cache that is small for its load loses blocks between
    /// decision and start; that is no reason to believe nothing of it.
    bool believed = true;
    bool operator==(const AuditVerdict&) const = default;
};

struct AuditOptions {
    /// Share of requests whose prediction may be off by more than a block on a healthy rank:
    /// blocks go between decision and start, siblings run in one step.
    double usual_rate = 0.015;
    /// The share that must be noticed.
    double faulty_rate = 0.08;
    /// How sure to be: exp(this) to one.
    double evidence = 7;
    /// What one event counts that stores blocks after others that nobody was told of. It has few
    /// innocent causes.
    double orphan_evidence = 2.5;
    /// How sure to be that a distrusted rank is healthy again.
    double recovery_evidence = 4;
    /// After a snapshot, a rank that is found faulty again within so many samples is distrusted.
    std::uint32_t probation = 400;
    /// A distrusted rank is asked for another snapshot after so many samples.
    std::uint32_t retry = 200;
    /// A faulty rank whose last so many reuses were all of prefixes that we know nothing of gives
    /// them other names.
    std::uint32_t unrelated_in_a_row = 4;
    /// Share of requests off their prediction at which a distrusted rank's events are worth
    /// nothing.
    double hopeless_rate = 0.5;
};

/// Compares predicted and reported overlap, rank by rank, for as long as a router runs: lost
/// events, wrong templates and changed hashes all show here, whatever their cause. A sequential
/// test (CUSUM of the log-likelihood ratio of "off by more than a block" under the faulty and the
/// usual rate) for each rank, the same turned around to trust it again. Events that contradict
/// themselves count as well. Some 100 bytes a rank. Pure; not thread-safe.
class OverlapAudit {
  public:
    explicit OverlapAudit(AuditOptions options = {});

    /// True: the rank's verdict has changed. Samples with no more than a block predicted and found
    /// say nothing and are passed over.
    bool observe(RankIndex rank, const AuditSample& sample);
    /// So many more events of the rank stored blocks after others that were never announced
    /// (PrefixIndex::orphans_of). True: its verdict has changed.
    bool observe_orphans(RankIndex rank, std::uint64_t events);
    [[nodiscard]] AuditVerdict verdict(RankIndex rank) const;
    /// Its snapshot was taken over: samples from requests booked since count anew. While it is
    /// distrusted, it is asked for another one after every `retry` samples: what was wrong may be
    /// mended by then.
    void on_resynced(RankIndex rank);
    /// Another rank has its place.
    void reset(RankIndex rank);

  private:
    struct State {
        AuditVerdict verdict;
        double faulty = 0;   ///< evidence that it is
        double healthy = 0;  ///< evidence that it is, while it is distrusted
        double hope = 0;     ///< evidence that not everything is wrong, while it is not believed
        std::uint32_t since_resync = ~std::uint32_t{0};
        std::uint32_t unrelated = 0;  ///< in a row
        double more = 0;              ///< recent mismatches by their direction
        double less = 0;
    };
    [[nodiscard]] bool accuse(State& state, AuditFinding finding) const;
    void weigh_belief(State& state, bool off) const;
    [[nodiscard]] bool judge(State& state, double ratio, bool orphan) const;

    AuditOptions options_;
    double for_mismatch_;  ///< log-likelihood ratios
    double for_match_;
    std::vector<State> ranks_;
};

}  // namespace stator::router
