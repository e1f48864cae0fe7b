#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "stator/engine/mock/core.h"
#include "stator/engine/mock/faults.h"
#include "stator/sim/replicas.h"
#include "stator/sim/scenario.h"

namespace stator::sim {

/// One simulated worker.
struct SimWorker {
    std::unique_ptr<engine::mock::Core> core;
    engine::mock::FaultPlan faults;
    std::uint32_t group = 0;
    double speed = 1.0;            ///< of its group, and its own factor
    Replicas::Seen seen{};         ///< the last bookings that came to it: its reports say so
    engine::mock::StepShape step;  ///< under way
    Nanos step_length{0};
    bool up = false;         ///< takes requests
    bool draining = false;   ///< takes none any more, ends what it has
    bool ended = false;      ///< was drained, and has ended; another one may take its place
    std::uint32_t life = 0;  ///< how many have had this place before
    double busy_s = 0;       ///< of all steps
    bool was_up = false;
    bool gone = false;  ///< crashed
    bool in_step = false;
    std::uint64_t wake_up = 0;  ///< number of the last one ordered: earlier ones do not count
};

/// The workers of a scenario. Not thread-safe.
class Fleet {
  public:
    static constexpr std::uint32_t kNobody = ~std::uint32_t{0};

    Fleet(const Scenario& scenario, std::uint64_t seed);

    [[nodiscard]] SimWorker& worker(std::uint32_t i) { return workers_[i]; }
    [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(workers_.size()); }
    [[nodiscard]] const Group& group_of(std::uint32_t worker) const {
        return scenario_.groups[workers_[worker].group];
    }
    [[nodiscard]] bool has(protocol::Role role) const;
    [[nodiscard]] std::uint32_t up(std::size_t group) const;
    [[nodiscard]] bool anybody_up(protocol::Role role) const;

    [[nodiscard]] const std::vector<std::uint32_t>& of_role(protocol::Role role) const {
        return by_role_[std::to_underlying(role)];
    }
    /// Makes workers until the group has so many that are up or on their way: these are returned,
    /// not yet up. Takes the last ones down where there are more; they end what they have.
    [[nodiscard]] std::vector<std::uint32_t> resize(std::size_t group, std::uint32_t workers);

    /// One more, not yet up: in the place of one that has ended, or in a new one.
    [[nodiscard]] std::uint32_t start(std::size_t group);
    /// No new requests; whoever looks after it notes that it has ended.
    void drain(std::uint32_t worker);

  private:
    std::uint32_t make(std::size_t group);

    const Scenario& scenario_;
    std::uint64_t seed_;
    std::mt19937_64 random_;  ///< of the workers' speeds
    std::vector<SimWorker> workers_;
    std::array<std::vector<std::uint32_t>, 5> by_role_;
};

}  // namespace stator::sim
