#include "stator/routing/kv_feed.h"

#include <utility>

namespace stator::routing {

Result<std::shared_ptr<KvFeed>> KvFeed::start(events::SubscriberHostOptions options,
                                              std::size_t expected_workers) {
    auto host = events::start_subscribers(std::move(options), expected_workers);
    if (!host) return tl::unexpected(std::move(host.error()));
    return std::shared_ptr<KvFeed>(new KvFeed(std::move(*host)));
}

Result<std::unique_ptr<events::Subscription>> KvFeed::follow(
    const std::shared_ptr<fleet::Worker>& worker, std::shared_ptr<events::KvReceiver> receiver) {
    const auto info = worker->info();
    if (!info->events) {
        return error(ErrorCode::kNotFound, "worker {} publishes no events", info->name);
    }
    // The worker may be gone when an answer is wanted: that is an answer, too.
    auto fetch = [weak = std::weak_ptr(worker)](
                     bool snapshot, std::string topic, std::uint32_t rank, std::uint64_t from,
                     std::uint64_t to, std::function<void(Result<std::string>)> done) {
        const auto w = weak.lock();
        requests::Fetch what;
        what.kind =
            snapshot ? requests::Fetch::Kind::kSnapshot : requests::Fetch::Kind::kEventRange;
        what.topic = std::move(topic);
        what.rank = rank;
        what.from = from;
        what.to = to;
        const auto shared = std::make_shared<decltype(done)>(std::move(done));
        const bool posted = w && w->loop().post([w, what, shared] { w->fetch(what, *shared); });
        if (!posted) (*shared)(error(ErrorCode::kUnavailable, "the worker is gone"));
    };
    return host_->follow_kv(*info->events, info->incarnation,
                            static_cast<std::uint32_t>(info->ranks.size()), std::move(fetch),
                            std::move(receiver));
}

}  // namespace stator::routing
