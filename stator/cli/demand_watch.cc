#include "stator/cli/demand_watch.h"

#include <algorithm>
#include <future>
#include <set>
#include <utility>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/cli/frontend_peers.h"
#include "stator/events/demand_payload.h"

namespace stator::cli {
namespace {

constexpr std::size_t kExpectedFrontends = 64;
constexpr std::size_t kMostFrontends = 1024;
constexpr std::string_view kTopic = "demand";

}  // namespace

Result<std::shared_ptr<DemandWatch>> DemandWatch::start(const std::vector<std::string>& sources,
                                                        events::SubscriberHostOptions options,
                                                        runtime::Loop& loop,
                                                        control::DemandFeed& feed) {
    std::shared_ptr<DemandWatch> made(new DemandWatch(options.curve.public_key, loop, feed));
    auto host = events::start_subscribers(std::move(options), kExpectedFrontends);
    if (!host) return tl::unexpected(host.error());
    made->host_ = std::move(*host);
    made->places_.resize(sources.size());
    for (std::size_t i = 0; i < sources.size(); ++i) {
        auto source = discovery::make_source(
            sources[i], loop,
            [weak = made->weak_from_this(), i](std::vector<discovery::Candidate> candidates) {
                if (const auto self = weak.lock()) self->on_candidates(i, std::move(candidates));
            },
            discovery::FileKind::kFrontend);
        if (!source) {
            made->stop();
            return tl::unexpected(source.error());
        }
        (void)loop.post(
            [made, i, source = std::move(*source)] { made->places_[i].source = source; });
    }
    return made;
}

void DemandWatch::on_candidates(std::size_t place, std::vector<discovery::Candidate> candidates) {
    if (!host_) return;
    places_[place].candidates = std::move(candidates);
    std::set<net::SocketAddress> there;
    for (const Place& p : places_) {
        for (const discovery::Candidate& c : p.candidates) {
            if (!there.insert(c.address).second || followed_.contains(c.address)) continue;
            if (followed_.size() >= kMostFrontends) continue;
            auto made = host_->listen(publisher_of(c, own_key_), {std::string(kTopic)},
                                      [&feed = feed_](const events::Message& m) {
                                          if (m.heartbeat || m.topic != kTopic) return;
                                          if (auto totals = events::decode_demand(m.payload)) {
                                              feed.tell(m.incarnation.value, std::move(*totals),
                                                        Clock::real().now());
                                          }
                                      });
            if (!made) {
                log_warn("What a frontend is asked for can't be followed.",
                         {{"address", to_string(c.address)}, {"reason", made.error().message}});
                continue;
            }
            log_info("A frontend's demand is followed.", {{"address", to_string(c.address)}});
            followed_.emplace(c.address, std::move(*made));
        }
    }
    std::erase_if(followed_, [&](const auto& f) { return !there.contains(f.first); });
}

void DemandWatch::stop() {
    auto done = std::make_shared<std::promise<void>>();
    const bool posted = loop_.post([self = shared_from_this(), done] {
        for (Place& p : self->places_) {
            if (p.source) p.source->stop();
        }
        self->followed_.clear();
        self->host_.reset();
        done->set_value();
    });
    if (posted) done->get_future().wait();
}

}  // namespace stator::cli
