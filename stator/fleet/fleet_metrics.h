#pragma once

#include <array>
#include <cstddef>

#include "stator/fleet/membership.h"
#include "stator/metrics/registry.h"

namespace stator::fleet {

/// All metrics of the room. Thread-safe.
class FleetMetrics {
  public:
    explicit FleetMetrics(metrics::Registry& registry);

    void moved(MemberState from, MemberState to) { at(from, to)->add(); }
    void members(MemberState state, std::size_t count) {
        members_[static_cast<std::size_t>(state)]->set(static_cast<double>(count));
    }
    void dialled() { dials_->add(); }
    void refused() { refused_->add(); }
    void canary_sent() { canaries_->add(); }
    void canary_lost() { canaries_lost_->add(); }
    void streams_lost(std::size_t count) { streams_lost_->add(count); }

  private:
    static constexpr std::size_t kStates = 5;
    [[nodiscard]] metrics::Counter* at(MemberState from, MemberState to) const {
        return moves_[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)];
    }

    std::array<std::array<metrics::Counter*, kStates>, kStates> moves_{};
    std::array<metrics::Gauge*, kStates> members_{};
    metrics::Counter* dials_;
    metrics::Counter* refused_;
    metrics::Counter* canaries_;
    metrics::Counter* canaries_lost_;
    metrics::Counter* streams_lost_;
};

}  // namespace stator::fleet
