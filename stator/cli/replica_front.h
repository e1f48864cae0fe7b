#pragma once

#include <memory>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/config/settings.h"
#include "stator/discovery/source.h"
#include "stator/metrics/registry.h"
#include "stator/protocol/worker_info.h"
#include "stator/routing/replica_plane.h"
#include "stator/runtime/loop.h"

namespace stator::cli {

/// This frontend among others of the same fleet: its publisher of bookings, its file in each folder
/// in which workers are looked for, and the others found there or named by --router-peers.
class ReplicaFront : public std::enable_shared_from_this<ReplicaFront> {
  public:
    /// `port`: the one it serves on, of which its file's name is made. Null where there is nowhere
    /// to find others, or it is switched off, or it can't be had (which is logged: requests are
    /// served all the same). Errors are wrong settings.
    [[nodiscard]] static Result<std::shared_ptr<ReplicaFront>> start(
        const config::Settings& settings, std::uint16_t port, protocol::Incarnation incarnation,
        runtime::Loop& loop, metrics::Registry& registry);

    [[nodiscard]] const std::shared_ptr<routing::ReplicaPlane>& plane() const { return plane_; }
    /// Not on the loop, which must still run.
    void stop();

  private:
    struct Place {
        std::string folder;  ///< empty: not a folder, nothing is announced there
        std::shared_ptr<discovery::Source> source;
        std::vector<discovery::Candidate> candidates;
        std::unique_ptr<discovery::Announcement> announcement;
        bool failed = false;
        std::size_t written = 0;
    };

    ReplicaFront(std::string name, std::string own_key, runtime::Loop& loop)
        : name_(std::move(name)), own_key_(std::move(own_key)), loop_(loop) {}
    void on_candidates(std::size_t place, std::vector<discovery::Candidate> candidates);
    void announce(Place& place);

    const std::string name_;
    const std::string own_key_;
    runtime::Loop& loop_;
    discovery::Candidate own_;
    std::shared_ptr<routing::ReplicaPlane> plane_;
    std::vector<Place> places_;  ///< of the loop, once started
};

}  // namespace stator::cli
