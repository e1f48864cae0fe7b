#include "stator/worker/event_outlet.h"

#include <mutex>
#include <utility>

#include "stator/base/clock.h"

namespace stator::worker {
namespace {

/// "tcp://10.0.0.7:*" with the port of "tcp://0.0.0.0:40123" is "tcp://10.0.0.7:40123".
std::string with_bound_port(std::string advertise, std::string_view bound) {
    const auto colon = advertise.rfind(':');
    const auto bound_colon = bound.rfind(':');
    if (!advertise.starts_with("tcp://") || bound_colon == std::string_view::npos) return advertise;
    const std::string_view port = std::string_view(advertise).substr(colon + 1);
    if (port != "*" && port != "0") return advertise;
    return advertise.replace(colon + 1, std::string::npos, bound.substr(bound_colon + 1));
}

}  // namespace

Result<std::shared_ptr<EventOutlet>> EventOutlet::open(Options options,
                                                       const WorkerMetrics& metrics) {
    const std::shared_ptr<EventOutlet> outlet(new EventOutlet(metrics));
    outlet->ranks_ = options.ranks;
    if (options.address.empty()) return outlet;
    outlet->configured_ = true;
    outlet->host_ = std::move(options.host);
    auto publisher = outlet->host_->bind(options.address, options.incarnation, options.ranks);
    if (!publisher) return tl::unexpected(std::move(publisher.error()));
    outlet->publisher_ = std::move(*publisher);
    outlet->endpoint_ = outlet->publisher_->endpoint();
    if (!options.advertise.empty()) {
        outlet->endpoint_->address =
            with_bound_port(std::move(options.advertise), outlet->endpoint_->address);
    }
    return outlet;
}

EventOutlet::~EventOutlet() { close(); }

void EventOutlet::kv(std::uint32_t rank, const std::vector<protocol::KvEvent>& events) {
    if (!configured_) return;
    const std::shared_lock lock(mutex_);
    if (!publisher_) return metrics_.dropped(events.size());
    publisher_->publish_kv(rank, events);
    metrics_.published("kv", events.size());
}

void EventOutlet::publish(std::string_view topic, std::uint32_t rank, std::string payload) {
    const std::shared_lock lock(mutex_);
    if (!publisher_) return;
    publisher_->publish(topic, rank, std::move(payload));
    metrics_.published(topic, 1);
}

void EventOutlet::load(std::uint32_t rank, const protocol::LoadReport& load,
                       const protocol::ForwardPassMetrics& passes) {
    if (configured_) publish("load", rank, events::encode_load({load, passes}));
}

void EventOutlet::lifecycle(events::LifecycleState state, const std::string& name) {
    if (!configured_) return;
    publish("lifecycle", 0,
            events::encode_lifecycle({.state = state,
                                      .worker = name,
                                      .reason = {},
                                      .unix_s = Clock::real().unix_seconds()}));
}

Result<std::shared_ptr<const std::string>> EventOutlet::fetch(const requests::Fetch& what) {
    if (!configured_) {
        return error(ErrorCode::kUnsupported, "this worker has no event plane, so it has no {}",
                     what.kind == requests::Fetch::Kind::kSnapshot ? "snapshots" : "ranges");
    }
    if (what.rank >= ranks_) {
        return param_error("rank", "rank {} is not here: this worker has {}", what.rank, ranks_);
    }
    std::shared_ptr<events::Publisher> publisher;
    {
        const std::shared_lock lock(mutex_);
        publisher = publisher_;
    }
    if (!publisher) return error(ErrorCode::kUnavailable, "this worker is stopping");
    if (what.kind == requests::Fetch::Kind::kSnapshot) {
        return publisher->snapshot(what.topic, what.rank);
    }
    return publisher->range(what.topic, what.rank, what.from, what.to);
}

void EventOutlet::close() {
    const std::unique_lock lock(mutex_);
    publisher_.reset();
    host_.reset();
}

}  // namespace stator::worker
