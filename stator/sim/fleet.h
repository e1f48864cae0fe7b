#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "stator/engine/mock/core.h"
#include "stator/engine/mock/faults.h"
#include "stator/protocol/load.h"
#include "stator/sim/scenario.h"

namespace stator::sim {

/// One simulated worker.
struct SimWorker {
    std::unique_ptr<engine::mock::Core> core;
    engine::mock::FaultPlan faults;
    std::uint32_t group = 0;
    bool up = false;    ///< takes requests
    bool gone = false;  ///< crashed
    bool in_step = false;
    std::uint64_t wake_up = 0;  ///< number of the last one ordered: earlier ones do not count
};

/// The workers of a scenario, their loads, and the choice among them. Not thread-safe.
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

    /// Who should get a request, by the scenario's policy; kNobody: all are full or away.
    [[nodiscard]] std::uint32_t choose(protocol::Role role);
    /// The worker's load has changed.
    void note_load(std::uint32_t worker) { loads_[worker] = workers_[worker].core->load(); }
    /// Makes workers until the group has so many that are up or on their way: these are returned,
    /// not yet up. Takes the last ones down where there are more; they end what they have.
    [[nodiscard]] std::vector<std::uint32_t> resize(std::size_t group, std::uint32_t workers);

  private:
    std::uint32_t make(std::size_t group);

    const Scenario& scenario_;
    std::uint64_t seed_;
    std::minstd_rand random_;
    std::vector<SimWorker> workers_;
    std::vector<protocol::LoadReport> loads_;  ///< side by side: every choice reads them all
    std::array<std::vector<std::uint32_t>, 5> by_role_;
    std::array<std::size_t, 5> turn_{};
};

}  // namespace stator::sim
