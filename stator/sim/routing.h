#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/error.h"
#include "stator/engine/mock/core.h"
#include "stator/router/embedding_holders.h"
#include "stator/router/overlap_audit.h"
#include "stator/router/router.h"
#include "stator/sim/cache_index.h"
#include "stator/sim/fleet.h"
#include "stator/sim/replicas.h"
#include "stator/sim/scenario.h"
#include "stator/workload/request_spec.h"

namespace stator::sim {

[[nodiscard]] protocol::Role role_of(engine::mock::Leg leg);

/// Something that the router hears from a worker.
struct Notice {
    enum class Kind : std::uint8_t { kReport, kPromptDone, kHandedOver, kEnded };
    Kind kind = Kind::kReport;
    std::uint32_t worker = 0;
    router::BookingId booking;
    Replicas::Seen seen{};  ///< kReport: what the worker has seen
    std::uint32_t cached_tokens = 0;
    /// kPromptDone of a prompt whose prefix was looked up: what is to be audited.
    std::optional<router::AuditSample> sample;
    protocol::LoadReport load;
};

/// The router of a simulated fleet, or several: the same class as with real traffic. Here is what
/// it is told: ranks, loads, how far a prefix is where (by an index of the workers' KV events), and
/// what became of its predictions: an audit compares them with what the caches gave. Rank r is
/// worker r. Not thread-safe.
class Routing {
  public:
    Routing(const Scenario& scenario, Fleet& fleet, std::uint64_t seed);

    /// Workers that the fleet has made since.
    void add_workers();
    void set_open(std::uint32_t worker, bool open);
    /// Something may have changed in the worker's cache.
    void cache_changed(std::uint32_t worker, Nanos now);
    [[nodiscard]] Replicas& routers() { return routers_; }

    /// Who gets this leg of a request. `may_split`: a whole leg's prompt may be computed by another
    /// worker, where the scenario has it so.
    [[nodiscard]] Result<router::Decision> book(const workload::RequestSpec& spec,
                                                const engine::mock::CoreRequest& request,
                                                bool may_split,
                                                std::span<const router::RankIndex> tried,
                                                std::optional<double> most_queue_s, Nanos now);
    /// What is to be audited of the last booking; none: it goes where no events come from.
    [[nodiscard]] std::optional<router::AuditSample> sample_of(
        const router::Decision& decision) const;
    void hear(const Notice& notice, Nanos now);
    /// It has these images' embeddings from now on.
    void encoded(std::uint32_t worker, std::span<const engine::mock::CoreImage> images);
    void step_ended(std::uint32_t worker, Nanos length, const engine::mock::StepShape& shape);
    /// A first token came after `real_s`, of which a decision said `predicted_s`.
    void note_prediction(double predicted_s, double real_s);

    /// Prefill and decode ranks are chosen together.
    [[nodiscard]] bool pairs() const {
        return scenario_.router.policy == router::Policy::kExpectedTtft;
    }
    /// In percent of the real time; none: nothing was predicted.
    [[nodiscard]] std::optional<double> median_error_percent();
    [[nodiscard]] std::optional<double> median_bias_percent();
    [[nodiscard]] bool reads_caches() const {
        return scenario_.router.policy == router::Policy::kExpectedTtft ||
               scenario_.router.policy == router::Policy::kDynamo;
    }
    /// What the audit found, as facts of a report: key and text.
    [[nodiscard]] std::vector<std::pair<std::string, std::string>> audit_facts() const;

  private:
    /// What the audit thought of a worker, and when.
    struct Turn {
        Nanos at{0};
        std::uint64_t heard = 0;  ///< prompts of it since something began to be wrong with it
        router::AuditVerdict verdict;
    };
    struct Audited {
        std::uint64_t heard = 0;
        bool asked = false;  ///< for a snapshot
        std::vector<Turn> turns;
    };

    void find_embeddings(const engine::mock::CoreRequest& request, router::RouteRequest& r);
    [[nodiscard]] std::uint32_t block_tokens_of(protocol::Role role) const;
    void audit(std::uint32_t worker, const router::AuditSample& sample, Nanos now);
    void note_turn(std::uint32_t worker, Nanos now);
    void take_over_snapshots(Nanos now);

    const Scenario& scenario_;
    Fleet& fleet_;
    Replicas routers_;
    std::optional<CacheIndex> index_;  ///< none: the policy reads no caches
    router::OverlapAudit audit_;
    std::vector<Audited> audited_;  ///< by worker
    std::uint64_t alarms_ = 0;
    std::uint64_t block_tokens_ = 1;  ///< of the last booking
    std::uint32_t prompt_tokens_ = 0;
    std::vector<engine::mock::KvChange> ignored_;
    std::vector<router::Overlap> overlaps_;
    router::EmbeddingHolders embeddings_;
    std::vector<router::Overlap> holders_;
    std::vector<std::uint64_t> blocks_;
    std::vector<float> errors_;  ///< (predicted - real) / real
};

}  // namespace stator::sim
