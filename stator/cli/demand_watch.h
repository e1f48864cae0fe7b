#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/control/planner/demand_feed.h"
#include "stator/discovery/source.h"
#include "stator/events/subscriber.h"
#include "stator/runtime/loop.h"

namespace stator::cli {

/// Hears what a fleet's frontends are asked for (topic "demand"), and tells a feed. Frontends are
/// found as they find each other: by their files in folders, or by the addresses of their
/// publishers.
class DemandWatch : public std::enable_shared_from_this<DemandWatch> {
  public:
    /// `feed` must outlive stop(). `own_key`: this process's public CURVE key, for publishers that
    /// no file tells the key of.
    [[nodiscard]] static Result<std::shared_ptr<DemandWatch>> start(
        const std::vector<std::string>& sources, const kube::AccessOptions& kube,
        events::SubscriberHostOptions options, runtime::Loop& loop, control::DemandFeed& feed);
    /// Not on the loop, which must still run.
    void stop();

  private:
    struct Place {
        std::shared_ptr<discovery::Source> source;
        std::vector<discovery::Candidate> candidates;
    };
    DemandWatch(std::string own_key, runtime::Loop& loop, control::DemandFeed& feed)
        : own_key_(std::move(own_key)), loop_(loop), feed_(feed) {}
    void on_candidates(std::size_t place, std::vector<discovery::Candidate> candidates);

    const std::string own_key_;
    runtime::Loop& loop_;
    control::DemandFeed& feed_;
    std::unique_ptr<events::SubscriberHost> host_;
    std::vector<Place> places_;  ///< of the loop, once started
    std::map<net::SocketAddress, std::unique_ptr<events::Subscription>> followed_;  ///< likewise
};

}  // namespace stator::cli
