#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/engine/mock/core.h"
#include "stator/router/router.h"
#include "stator/sim/fleet.h"
#include "stator/sim/replicas.h"
#include "stator/sim/scenario.h"
#include "stator/workload/request_spec.h"

namespace stator::sim {

[[nodiscard]] protocol::Role role_of(engine::mock::Leg leg);

/// Something that the router hears from a worker.
struct Notice {
    enum class Kind : std::uint8_t { kReport, kPromptDone, kEnded };
    Kind kind = Kind::kReport;
    std::uint32_t worker = 0;
    router::BookingId booking;
    Replicas::Seen seen{};  ///< kReport: what the worker has seen
    std::uint32_t cached_tokens = 0;
    protocol::LoadReport load;
};

/// The router of a simulated fleet, or several: the same class as with real traffic. Here is what
/// it is told: ranks, loads, how far a prefix is where (asked of the workers' caches), and what
/// became of its predictions. Rank r is worker r. Not thread-safe.
class Routing {
  public:
    Routing(const Scenario& scenario, Fleet& fleet, std::uint64_t seed);

    /// Workers that the fleet has made since.
    void add_workers();
    void set_open(std::uint32_t worker, bool open) {
        routers_.for_each([&](router::Router& r) { r.set_open(worker, open); });
    }
    [[nodiscard]] Replicas& routers() { return routers_; }

    /// Who gets this leg of a request.
    [[nodiscard]] Result<router::Decision> book(const workload::RequestSpec& spec,
                                                const engine::mock::CoreRequest& request,
                                                std::span<const router::RankIndex> tried,
                                                std::optional<double> most_queue_s, Nanos now);
    void hear(const Notice& notice, Nanos now);
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

  private:
    [[nodiscard]] bool reads_caches() const {
        return scenario_.router.policy == router::Policy::kExpectedTtft ||
               scenario_.router.policy == router::Policy::kDynamo;
    }
    void look_up(protocol::Role role, const engine::mock::CoreRequest& request,
                 std::uint32_t block_tokens);

    const Scenario& scenario_;
    Fleet& fleet_;
    Replicas routers_;
    std::vector<router::Overlap> overlaps_;
    std::vector<std::uint64_t> blocks_;
    std::vector<float> errors_;  ///< (predicted - real) / real
};

}  // namespace stator::sim
