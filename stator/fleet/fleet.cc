#include "stator/fleet/fleet.h"

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <set>
#include <utility>

#include "stator/base/check.h"
#include "stator/base/log.h"
#include "stator/discovery/source.h"
#include "stator/fleet/dialer.h"
#include "stator/fleet/roster.h"
#include "stator/runtime/asio.h"

namespace stator::fleet {
namespace {

constexpr std::chrono::seconds kLookEvery{1};

/// Runs `f` on the loop and waits for it. False once the loop is stopped.
bool on_loop(runtime::Loop& loop, const std::function<void()>& f) {
    std::promise<void> done;
    if (!loop.post([&] {
            f();
            done.set_value();
        })) {
        return false;
    }
    done.get_future().wait();
    return true;
}

/// What lives on the control loop: sources and the dialers they call for.
class Census : public std::enable_shared_from_this<Census> {
  public:
    Census(FleetOptions options, runtime::LoopPool& loops, metrics::Registry& registry,
           const Clock& clock)
        : options_(std::move(options)),
          loops_(loops),
          clock_(clock),
          roster_(std::make_shared<Roster>(loops.at(0), options_.remember_pools, registry, clock)),
          turned_away_(registry.counter("stator_fleet_addresses_turned_away_total",
                                        "Addresses beyond the most workers a fleet may have.")),
          timer_(runtime::asio_context(loops.at(0))) {}

    [[nodiscard]] const std::shared_ptr<Roster>& roster() const { return roster_; }
    [[nodiscard]] runtime::Loop& control() { return loops_.at(0); }

    // On the control loop.
    Result<void> start();
    void stop();

    std::vector<std::shared_ptr<Dialer>> take_dialers() {
        std::vector<std::shared_ptr<Dialer>> out;
        for (auto& [address, entry] : std::exchange(dialers_, {})) out.push_back(entry.dialer);
        return out;
    }

  private:
    struct Entry {
        std::shared_ptr<Dialer> dialer;
        bool wanted = true;
    };
    void take(std::size_t source, const discovery::Difference& difference);
    void want(const net::SocketAddress& address);
    void let_go(const net::SocketAddress& address);
    [[nodiscard]] bool is_named(const net::SocketAddress& address) const;
    void look_later();
    void look_at_sources();

    const FleetOptions options_;
    runtime::LoopPool& loops_;
    const Clock& clock_;
    const std::shared_ptr<Roster> roster_;
    metrics::Counter& turned_away_;
    boost::asio::steady_timer timer_;
    std::vector<std::shared_ptr<discovery::Source>> sources_;
    std::vector<std::set<net::SocketAddress>> named_;  ///< by source
    /// Those not wanted any more stay as long as they have a worker: an address that comes back
    /// finds it.
    std::map<net::SocketAddress, Entry> dialers_;
    std::set<net::SocketAddress> leaving_;      ///< of dialers_: not wanted any more
    std::set<net::SocketAddress> turned_back_;  ///< named, but there was no room for them
    std::size_t next_loop_ = 0;
    bool stopped_ = false;
};

Result<void> Census::start() {
    named_.resize(options_.sources.size());
    for (std::size_t i = 0; i < options_.sources.size(); ++i) {
        auto source = discovery::make_source(
            options_.sources[i], control(),
            [weak = weak_from_this(), i](const discovery::Difference& difference) {
                if (const auto self = weak.lock()) self->take(i, difference);
            },
            {.of = discovery::FileKind::kWorker, .kube = options_.kube});
        if (!source) return tl::unexpected(std::move(source.error()));
        sources_.push_back(std::move(*source));
    }
    look_later();
    return {};
}

void Census::stop() {
    stopped_ = true;
    timer_.cancel();
    for (const auto& s : sources_) s->stop();
}

/// Costs what has changed, not what there is.
void Census::take(std::size_t source, const discovery::Difference& difference) {
    if (stopped_) return;
    std::erase_if(leaving_, [&](const net::SocketAddress& address) {
        const auto entry = dialers_.find(address);
        if (!entry->second.dialer->idle()) return false;
        dialers_.erase(entry);
        return true;
    });
    for (const auto& address : difference.gone) {
        named_[source].erase(address);
        if (!is_named(address)) let_go(address);
    }
    for (const auto& c : difference.put) {
        if (named_[source].insert(c.address).second) want(c.address);
    }
    // Where others have left there is room for those who were turned away.
    while (!turned_back_.empty() && dialers_.size() < options_.max_workers) {
        const net::SocketAddress address = *turned_back_.begin();
        turned_back_.erase(turned_back_.begin());
        want(address);
    }
}

bool Census::is_named(const net::SocketAddress& address) const {
    return std::ranges::any_of(named_, [&](const auto& set) { return set.contains(address); });
}

void Census::let_go(const net::SocketAddress& address) {
    turned_back_.erase(address);
    const auto entry = dialers_.find(address);
    if (entry == dialers_.end() || !std::exchange(entry->second.wanted, false)) return;
    leaving_.insert(address);
    entry->second.dialer->loop().post(
        [dialer = entry->second.dialer] { dialer->set_wanted(false); });
}

void Census::want(const net::SocketAddress& address) {
    if (const auto entry = dialers_.find(address); entry != dialers_.end()) {
        if (std::exchange(entry->second.wanted, true)) return;
        leaving_.erase(address);
        entry->second.dialer->loop().post(
            [dialer = entry->second.dialer] { dialer->set_wanted(true); });
        return;
    }
    if (dialers_.size() >= options_.max_workers) {
        if (!turned_back_.insert(address).second) return;
        turned_away_.add();
        log_warn("An address is turned away: there are as many workers as there may be.",
                 {{"address", net::to_string(address)}, {"max_workers", options_.max_workers}});
        return;
    }
    runtime::Loop& loop = loops_.at(next_loop_++ % loops_.size());
    const auto dialer = std::make_shared<Dialer>(options_, address, loop, roster_,
                                                 options_.random_seed * 7919 + next_loop_, clock_);
    dialers_.emplace(address, Entry{.dialer = dialer});
    // The census keeps the options that the dialer refers to.
    loop.post([dialer, self = shared_from_this()] { dialer->set_wanted(true); });
}

void Census::look_later() {
    timer_.expires_after(kLookEvery);
    timer_.async_wait([weak = weak_from_this()](const auto& ec) {
        const auto self = weak.lock();
        if (ec || !self || self->stopped_) return;
        self->look_at_sources();
        self->roster_->look();
        self->look_later();
    });
}

void Census::look_at_sources() {
    std::map<std::string, std::string> failing;
    for (const auto& s : sources_) {
        std::string reason;
        if (!s->healthy(reason)) failing.emplace(s->name(), std::move(reason));
    }
    roster_->set_failing_sources(std::move(failing));
}

class LinkFleet final : public Fleet {
  public:
    explicit LinkFleet(std::shared_ptr<Census> census) : census_(std::move(census)) {}
    ~LinkFleet() override { STATOR_CHECK(stopped_, "a fleet is destroyed without stop()"); }

    [[nodiscard]] std::shared_ptr<const FleetView> view() const override {
        return census_->roster()->view();
    }
    void watch(std::function<void(std::shared_ptr<const FleetView>)> changed) override {
        census_->roster()->watch(std::move(changed));
    }
    void stop() override {
        if (std::exchange(stopped_, true)) return;
        std::vector<std::shared_ptr<Dialer>> dialers;
        on_loop(census_->control(), [&] {
            census_->stop();
            dialers = census_->take_dialers();
        });
        for (const auto& d : dialers) on_loop(d->loop(), [&] { d->shut(); });
        on_loop(census_->control(), [&] { census_->roster()->close(); });
        // Links close at the end of the turn that shut them: behind it nothing refers to options.
        for (const auto& d : dialers) on_loop(d->loop(), [] {});
    }

  private:
    std::shared_ptr<Census> census_;
    bool stopped_ = false;
};

}  // namespace

Result<std::unique_ptr<Fleet>> start_fleet(FleetOptions options, runtime::LoopPool& loops,
                                           metrics::Registry& registry, const Clock& clock) {
    for (const std::string& s : options.sources) {
        if (auto ok = discovery::check_source(s); !ok) return tl::unexpected(ok.error());
    }
    auto census = std::make_shared<Census>(std::move(options), loops, registry, clock);
    Result<void> started = error(ErrorCode::kUnavailable, "the loops are stopped");
    on_loop(loops.at(0), [&] { started = census->start(); });
    auto fleet = std::make_unique<LinkFleet>(std::move(census));
    if (!started) {
        fleet->stop();
        return tl::unexpected(std::move(started.error()));
    }
    return fleet;
}

}  // namespace stator::fleet
