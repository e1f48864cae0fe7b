#include "stator/worker/load_watch.h"

#include <future>
#include <utility>

#include "stator/runtime/asio.h"
#include "stator/worker/worker_link.h"

namespace stator::worker {

LoadWatch::LoadWatch(runtime::Loop& loop, std::shared_ptr<Station> station)
    : loop_(loop), station_(std::move(station)), timer_(runtime::asio_context(loop)) {}

void LoadWatch::wake() {
    // The plain read first: it is shared by all loops while awake, where an exchange would take the
    // cache line for each request.
    if (awake_.load() || awake_.exchange(true)) return;
    loop_.post([self = shared_from_this()] { self->arm(); });
}

void LoadWatch::arm() {
    if (stopped_) return;
    timer_.expires_after(station_->load_every);
    timer_.async_wait([self = shared_from_this()](const boost::system::error_code& ec) {
        if (!ec) self->tick();
    });
}

void LoadWatch::tick() {
    if (stopped_) return;
    bool has_work = false;
    const bool changed = look(has_work);
    if (changed || has_work || station_->open.count() > 0) return arm();
    awake_.store(false);
    // Who entered before the store found it awake and relies on us.
    if (station_->open.count() > 0) wake();
}

bool LoadWatch::look(bool& has_work) {
    station_->metrics.looked();
    const auto state = station_->state();
    auto loads = std::make_shared<std::vector<requests::LoadMessage>>();
    bool changed = false;
    seen_.resize(state->engines.size());
    for (std::uint32_t rank = 0; rank < state->engines.size(); ++rank) {
        const engine::Engine& engine = *state->engines[rank];
        const protocol::ForwardPassMetrics passes = engine.forward_pass_metrics();
        const requests::LoadMessage message = load_of(rank, engine, station_->transfer.get());
        const Seen now{message.load, passes.steps};
        // A handoff that expires changes the load without any work.
        has_work |= now.load.running + now.load.waiting + now.load.unclaimed_handoffs > 0;
        if (seen_[rank] == now) continue;
        seen_[rank] = now;
        changed = true;
        station_->events->load(rank, now.load, passes);
        loads->push_back({.rank = rank, .load = now.load, .steps = now.steps});
    }
    if (changed) {
        for (const auto& link : station_->links()) link->tell_load(loads);
    }
    return changed;
}

void LoadWatch::stop() {
    auto done = std::make_shared<std::promise<void>>();
    const bool posted = loop_.post([self = shared_from_this(), done] {
        self->stopped_ = true;
        self->timer_.cancel();
        done->set_value();
    });
    if (posted) done->get_future().wait();
}

}  // namespace stator::worker
