#pragma once

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <vector>

#include "stator/protocol/load.h"
#include "stator/runtime/loop.h"
#include "stator/worker/station.h"

namespace stator::worker {

/// Looks at the engines' load every load_every while there is work, and tells all links and the
/// event plane of what changed; sleeps when nothing changes and nothing is in work, so that an idle
/// worker costs nothing. The clients whose requests the steps carry hear of it with those, too (see
/// WorkerLink).
class LoadWatch : public std::enable_shared_from_this<LoadWatch> {
  public:
    LoadWatch(runtime::Loop& loop, std::shared_ptr<Station> station);

    /// There is work, or something else that changes the load. Any thread; cheap while awake.
    void wake();
    /// Returns when the engines are looked at no more. Not on the loop; the loop runs or has ended.
    void stop();

  private:
    struct Seen {
        protocol::LoadReport load;
        std::uint64_t steps = 0;
        bool operator==(const Seen&) const = default;
    };
    void arm();
    void tick();
    /// True where something differs from the last look; tells who is to know.
    bool look(bool& has_work);

    runtime::Loop& loop_;
    std::shared_ptr<Station> station_;
    std::atomic<bool> awake_{false};
    // The loop's.
    boost::asio::steady_timer timer_;
    std::vector<Seen> seen_;
    bool stopped_ = false;
};

}  // namespace stator::worker
