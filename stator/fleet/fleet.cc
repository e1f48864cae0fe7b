#include "stator/fleet/fleet.h"

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <utility>

#include "stator/base/log.h"
#include "stator/discovery/source.h"
#include "stator/fleet/member.h"
#include "stator/runtime/asio.h"

namespace stator::fleet {
namespace {

/// An address that discovery names, and who is dialled there. Of the home loop.
struct Place {
    bool named = true;
    std::shared_ptr<Member> member;
    std::chrono::milliseconds wait{0};  ///< before the next dial
    std::uint64_t dial = 0;             ///< counts up, so that an old timer can be told
    std::string last_reason;
};

/// A pool as long as it is remembered.
struct Pool {
    std::shared_ptr<const protocol::ModelCard> card;
    std::uint64_t opened = 0;
    std::optional<TimePoint> empty_since;
};

class FleetCore;

/// What members hold: outlives the fleet where a member does.
class FleetCore final : public MemberOwner, public std::enable_shared_from_this<FleetCore> {
  public:
    FleetCore(FleetOptions options, runtime::LoopPool& loops, metrics::Registry& registry,
              const Clock& clock)
        : options_(std::move(options)),
          loops_(loops),
          home_(loops.at(0)),
          clock_(clock),
          metrics_(registry),
          view_(std::make_shared<FleetView>()),
          random_(options_.random_seed) {}

    Result<void> start();
    void stop();

    [[nodiscard]] std::shared_ptr<const FleetView> view() const {
        const std::scoped_lock lock(mutex_);
        return view_;
    }
    void watch(std::function<void(std::shared_ptr<const FleetView>)> changed);

    // MemberOwner
    bool claim(protocol::Incarnation incarnation, const net::SocketAddress& address,
               std::string& held_by) override;
    void release(protocol::Incarnation incarnation, const net::SocketAddress& address) override;
    void changed() override;
    void gone(const std::shared_ptr<Member>& member, bool sent_away) override;

  private:
    void take_candidates(std::size_t source, std::vector<discovery::Candidate> candidates);
    void reconcile();
    void dial(const net::SocketAddress& address, Place& place);
    void dial_later(const net::SocketAddress& address, Place& place, bool sent_away);
    void member_gone(const std::shared_ptr<Member>& member, bool sent_away);
    void rebuild();
    void add_to_pools(FleetView& next, const std::shared_ptr<Member>& member);
    void forget_pools(FleetView& next);
    void check_members();
    void arm_check();
    [[nodiscard]] std::chrono::milliseconds with_jitter(std::chrono::milliseconds wait);

    FleetOptions options_;
    runtime::LoopPool& loops_;
    runtime::Loop& home_;
    const Clock& clock_;
    FleetMetrics metrics_;

    mutable std::mutex mutex_;  ///< view_ and claims_
    std::shared_ptr<const FleetView> view_;
    std::map<std::uint64_t, net::SocketAddress> claims_;
    std::condition_variable all_gone_;
    std::size_t alive_ = 0;  ///< members whose gone() has not come

    // Of the home loop.
    std::minstd_rand random_;
    std::vector<std::shared_ptr<discovery::Source>> sources_;
    std::vector<std::vector<discovery::Candidate>> candidates_;
    std::map<net::SocketAddress, Place> places_;
    std::map<std::string, Pool> pools_;
    std::vector<std::function<void(std::shared_ptr<const FleetView>)>> watchers_;
    std::unique_ptr<boost::asio::steady_timer> check_timer_;
    std::uint64_t next_member_ = 1;
    std::uint64_t next_pool_ = 1;
    bool rebuild_wanted_ = false;
    bool stopped_ = false;
};

Result<void> FleetCore::start() {
    for (const std::string& text : options_.sources) {
        if (auto ok = discovery::check_source(text); !ok) return ok;
    }
    check_timer_ = std::make_unique<boost::asio::steady_timer>(runtime::asio_context(home_));
    candidates_.resize(options_.sources.size());
    home_.post([self = shared_from_this()] {
        for (std::size_t i = 0; i < self->options_.sources.size(); ++i) {
            auto source = discovery::make_source(
                self->options_.sources[i], self->home_,
                [weak = std::weak_ptr(self), i](std::vector<discovery::Candidate> found) {
                    if (const auto core = weak.lock()) core->take_candidates(i, std::move(found));
                });
            if (source) {
                self->sources_.push_back(std::move(*source));
            } else {
                log_error(
                    "A source of workers can't be used.",
                    {{"source", self->options_.sources[i]}, {"reason", source.error().message}});
            }
        }
        self->arm_check();
    });
    return {};
}

void FleetCore::take_candidates(std::size_t source, std::vector<discovery::Candidate> candidates) {
    if (stopped_) return;
    candidates_[source] = std::move(candidates);
    reconcile();
}

/// Dials what is new, lets go what is named no more.
void FleetCore::reconcile() {
    for (auto& [address, place] : places_) place.named = false;
    for (const auto& found : candidates_) {
        for (const discovery::Candidate& candidate : found) {
            const auto at = places_.find(candidate.address);
            if (at != places_.end()) {
                at->second.named = true;
            } else if (places_.size() < options_.max_workers) {
                Place& place = places_[candidate.address];
                dial(candidate.address, place);
            } else {
                log_warn("There are more addresses than workers may be; one is left out.",
                         {{"address", net::to_string(candidate.address)},
                          {"max_workers", options_.max_workers}});
            }
        }
    }
    for (auto at = places_.begin(); at != places_.end();) {
        Place& place = at->second;
        if (!place.named && place.member) {
            place.member->loop().post([member = place.member] { member->leave(); });
        }
        at = !place.named && !place.member ? places_.erase(at) : std::next(at);
    }
    changed();
}

void FleetCore::dial(const net::SocketAddress& address, Place& place) {
    Member::Options o;
    o.link.address = address;
    o.link.link = options_.link;
    if (options_.secret) o.link.link.secret = options_.secret();
    if (options_.tls) o.link.stream.tls = options_.tls();
    o.canary_after = options_.canary_after;
    o.canary_within = options_.canary_within;
    const std::uint64_t id = next_member_++;
    runtime::Loop& loop = loops_.at(id % loops_.size());
    place.member =
        std::make_shared<Member>(id, loop, std::move(o), weak_from_this(), metrics_, clock_);
    {
        const std::scoped_lock lock(mutex_);
        ++alive_;
    }
    loop.post([member = place.member] { member->start(); });
}

std::chrono::milliseconds FleetCore::with_jitter(std::chrono::milliseconds wait) {
    // Half of it at least, so that many frontends do not dial a worker all at once.
    const auto half = wait.count() / 2;
    return std::chrono::milliseconds(half + static_cast<std::int64_t>(random_() % (half + 1)));
}

void FleetCore::dial_later(const net::SocketAddress& address, Place& place, bool sent_away) {
    place.wait = sent_away
                     ? options_.dial_again_max
                     : std::clamp(place.wait * 2, options_.dial_again_min, options_.dial_again_max);
    const std::uint64_t dial = ++place.dial;
    auto timer = std::make_shared<boost::asio::steady_timer>(runtime::asio_context(home_));
    timer->expires_after(with_jitter(place.wait));
    timer->async_wait([weak = weak_from_this(), timer, address, dial](const auto& ec) {
        const auto self = weak.lock();
        if (ec || !self || self->stopped_) return;
        const auto at = self->places_.find(address);
        if (at == self->places_.end() || at->second.dial != dial || at->second.member) return;
        self->dial(address, at->second);
    });
}

bool FleetCore::claim(protocol::Incarnation incarnation, const net::SocketAddress& address,
                      std::string& held_by) {
    const std::scoped_lock lock(mutex_);
    const auto [at, fresh] = claims_.emplace(incarnation.value, address);
    if (!fresh) held_by = net::to_string(at->second);
    return fresh;
}

void FleetCore::release(protocol::Incarnation incarnation, const net::SocketAddress& address) {
    const std::scoped_lock lock(mutex_);
    const auto at = claims_.find(incarnation.value);
    if (at != claims_.end() && at->second == address) claims_.erase(at);
}

void FleetCore::gone(const std::shared_ptr<Member>& member, bool sent_away) {
    {
        const std::scoped_lock lock(mutex_);
        --alive_;
    }
    all_gone_.notify_all();
    home_.post(
        [self = shared_from_this(), member, sent_away] { self->member_gone(member, sent_away); });
}

void FleetCore::member_gone(const std::shared_ptr<Member>& member, bool sent_away) {
    const auto at = places_.find(member->address());
    if (at == places_.end() || at->second.member != member || stopped_) return;
    Place& place = at->second;
    place.last_reason = member->reason();
    place.member.reset();
    if (!place.named) {
        places_.erase(at);
    } else {
        // Somebody was there: its successor may be, too.
        if (member->introduced() && !sent_away) place.wait = std::chrono::milliseconds(0);
        dial_later(member->address(), place, sent_away);
    }
    changed();
}

void FleetCore::changed() {
    home_.post([self = shared_from_this()] {
        if (std::exchange(self->rebuild_wanted_, true)) return;
        self->home_.at_turn_end([self] { self->rebuild(); });
    });
}

void FleetCore::rebuild() {
    rebuild_wanted_ = false;
    if (stopped_) return;
    auto next = std::make_shared<FleetView>();
    next->version = view()->version + 1;
    std::array<std::size_t, 5> counts{};
    for (const auto& [address, place] : places_) {
        WorkerView& worker = next->workers.emplace_back();
        worker.address = address;
        worker.state = MemberState::kGone;
        worker.reason = place.last_reason;
        if (place.member) {
            worker.state = place.member->state();
            worker.info = place.member->info();
            worker.reason = place.member->reason();
            if (worker.info) {
                worker.worker = place.member;
                worker.pool = protocol::pool_id(worker.info->card);
                add_to_pools(*next, place.member);
            } else if (!place.last_reason.empty()) {
                worker.reason = place.last_reason;
            }
        }
        ++counts[static_cast<std::size_t>(worker.state)];
    }
    forget_pools(*next);
    for (const auto& source : sources_) {
        std::string reason;
        if (!source->healthy(reason)) next->failing_sources[source->name()] = reason;
    }
    for (std::size_t i = 0; i < counts.size(); ++i) {
        metrics_.members(static_cast<MemberState>(i), counts[i]);
    }
    {
        const std::scoped_lock lock(mutex_);
        view_ = next;
    }
    for (const auto& watcher : watchers_) watcher(next);
}

void FleetCore::add_to_pools(FleetView& next, const std::shared_ptr<Member>& member) {
    const auto info = member->info();
    // Whose card is not known yet belongs nowhere.
    if (info->loading) return;
    const std::string id = protocol::pool_id(info->card);
    const auto [at, fresh] = pools_.try_emplace(id);
    if (fresh) {
        at->second.card = std::make_shared<const protocol::ModelCard>(info->card);
        at->second.opened = next_pool_++;
        log_info(
            "A pool of workers is new.",
            {{"pool", id}, {"model", info->card.name}, {"weights", info->card.weights_digest}});
    }
    auto view = std::ranges::find(next.pools, id, &PoolView::id);
    if (view == next.pools.end()) {
        PoolView& added = next.pools.emplace_back();
        added.id = id;
        added.card = at->second.card;
        added.opened = at->second.opened;
        view = std::prev(next.pools.end());
    }
    if (member->state() == MemberState::kGone) return;
    ++view->workers;
    if (member->state() == MemberState::kReady) view->ready.push_back(member);
}

/// Pools without workers stay in the view until their time is over.
void FleetCore::forget_pools(FleetView& next) {
    const TimePoint now = clock_.now();
    for (auto at = pools_.begin(); at != pools_.end();) {
        Pool& pool = at->second;
        const auto view = std::ranges::find(next.pools, at->first, &PoolView::id);
        const bool empty = view == next.pools.end() || view->workers == 0;
        if (!empty) {
            pool.empty_since.reset();
        } else if (!pool.empty_since) {
            pool.empty_since = now;
        }
        if (empty && now - *pool.empty_since >= options_.remember_pools) {
            if (view != next.pools.end()) next.pools.erase(view);
            at = pools_.erase(at);
            continue;
        }
        if (view == next.pools.end()) {
            PoolView& kept = next.pools.emplace_back();
            kept.id = at->first;
            kept.card = pool.card;
            kept.opened = pool.opened;
        }
        ++at;
    }
}

void FleetCore::arm_check() {
    using std::chrono::milliseconds;
    const auto every = std::clamp(options_.canary_after / 4, milliseconds(50), milliseconds(2'000));
    check_timer_->expires_after(every);
    check_timer_->async_wait([weak = weak_from_this()](const auto& ec) {
        const auto self = weak.lock();
        if (ec || !self || self->stopped_) return;
        self->check_members();
        self->arm_check();
    });
}

void FleetCore::check_members() {
    for (const auto& [address, place] : places_) {
        if (!place.member) continue;
        const bool busy =
            place.member->open_streams() > 0 || place.member->state() == MemberState::kSuspect;
        if (!busy) continue;
        place.member->loop().post([member = place.member] { member->check_progress(); });
    }
    const TimePoint now = clock_.now();
    const bool forget = std::ranges::any_of(pools_, [&](const auto& entry) {
        const auto& since = entry.second.empty_since;
        return since && now - *since >= options_.remember_pools;
    });
    if (forget) changed();
}

void FleetCore::watch(std::function<void(std::shared_ptr<const FleetView>)> changed) {
    home_.post([self = shared_from_this(), changed = std::move(changed)] {
        changed(self->view());
        self->watchers_.push_back(changed);
    });
}

void FleetCore::stop() {
    home_.post([self = shared_from_this()] {
        self->stopped_ = true;
        self->check_timer_->cancel();
        for (const auto& source : self->sources_) source->stop();
        self->sources_.clear();
        self->watchers_.clear();
        const Error why = error(ErrorCode::kCancelled, "this server is stopping").value();
        for (auto& [address, place] : self->places_) {
            if (!place.member) continue;
            place.member->loop().post([member = place.member, why] { member->end(why); });
        }
        self->places_.clear();
    });
    std::unique_lock lock(mutex_);
    // Members that were never started end by their loop's next turn, the others by end().
    all_gone_.wait(lock, [this] { return alive_ == 0; });
}

class StartedFleet final : public Fleet {
  public:
    explicit StartedFleet(std::shared_ptr<FleetCore> core) : core_(std::move(core)) {}
    [[nodiscard]] std::shared_ptr<const FleetView> view() const override { return core_->view(); }
    void watch(std::function<void(std::shared_ptr<const FleetView>)> changed) override {
        core_->watch(std::move(changed));
    }
    void stop() override { core_->stop(); }

  private:
    std::shared_ptr<FleetCore> core_;
};

}  // namespace

Result<std::unique_ptr<Fleet>> start_fleet(FleetOptions options, runtime::LoopPool& loops,
                                           metrics::Registry& registry, const Clock& clock) {
    auto core = std::make_shared<FleetCore>(std::move(options), loops, registry, clock);
    if (auto ok = core->start(); !ok) return tl::unexpected(ok.error());
    return std::make_unique<StartedFleet>(std::move(core));
}

}  // namespace stator::fleet
