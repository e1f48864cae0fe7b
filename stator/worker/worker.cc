#include "stator/worker/worker.h"

#include <sys/random.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "stator/base/check.h"
#include "stator/base/log.h"
#include "stator/base/version.h"
#include "stator/discovery/source.h"
#include "stator/requests/link.h"
#include "stator/worker/event_outlet.h"
#include "stator/worker/load_watch.h"
#include "stator/worker/station.h"
#include "stator/worker/worker_link.h"

namespace stator::worker {
namespace {

constexpr std::size_t kMaxNameBytes = 256;
constexpr std::size_t kMaxLabels = 64;
constexpr std::uint32_t kMaxRanks = 1024;
/// How often a drain asks whether clients have taken what was generated for them.
constexpr auto kUnsentEvery = std::chrono::milliseconds(10);
/// A client fetches a snapshot when it joins; more than so many at once wait at the client, which
/// asks again.
constexpr std::size_t kMaxQueuedFetches = 256;
/// After its deadline a drain waits so long for the loops to carry out the end of what is left.
constexpr auto kEndWithin = std::chrono::milliseconds(1'000);

protocol::Incarnation random_incarnation() {
    std::uint64_t n = 0;
    STATOR_CHECK(getrandom(&n, sizeof n, 0) == static_cast<ssize_t>(sizeof n),
                 "the kernel has random numbers");
    return protocol::Incarnation(n | 1);  // never 0
}

Result<void> check_options(const WorkerOptions& o) {
    if (o.name.empty() || o.name.size() > kMaxNameBytes) {
        return error(ErrorCode::kInvalidArgument,
                     "a worker's name has 1 to {} bytes, this one has {}", kMaxNameBytes,
                     o.name.size());
    }
    if (o.labels.size() > kMaxLabels) {
        return error(ErrorCode::kInvalidArgument, "a worker has at most {} labels, not {}",
                     kMaxLabels, o.labels.size());
    }
    if (o.ranks == 0 || o.ranks > kMaxRanks) {
        return error(ErrorCode::kInvalidArgument, "a worker has 1 to {} ranks, not {}", kMaxRanks,
                     o.ranks);
    }
    if (o.roles.empty()) return error(ErrorCode::kInvalidArgument, "a worker has a role");
    const bool hands_kv = o.transfer || !o.kv_method.empty();
    if (std::ranges::any_of(o.roles, [&](protocol::Role role) {
            return (role == protocol::Role::kPrefill && !hands_kv) ||
                   (role == protocol::Role::kEncode && !o.transfer && !o.media_objects);
        })) {
        return error(ErrorCode::kInvalidArgument,
                     "a worker with the role prefill or encode needs a transfer plane");
    }
    if (o.claim_within.count() <= 0) {
        return error(ErrorCode::kInvalidArgument, "claim_within is {} ms; it must be at least 1",
                     o.claim_within.count());
    }
    if (o.load_every.count() <= 0) {
        return error(ErrorCode::kInvalidArgument, "load_every is {} ms; it must be at least 1",
                     o.load_every.count());
    }
    return {};
}

protocol::WorkerInfo first_info(const WorkerOptions& o, protocol::ModelCard card) {
    protocol::WorkerInfo info;
    info.name = o.name;
    info.incarnation = random_incarnation();
    info.version = version();
    info.roles = o.roles;
    info.card = std::move(card);
    for (std::uint32_t rank = 0; rank < o.ranks; ++rank) info.ranks.push_back({.rank = rank});
    info.loading = true;
    if (o.transfer) info.transfer_methods = o.transfer->methods();
    if (!o.kv_method.empty()) {
        info.transfer_methods.insert(info.transfer_methods.begin(), o.kv_method);
    }
    info.labels = o.labels;
    return info;
}

Result<net::SocketAddress> advertised(const WorkerOptions& o, const net::SocketAddress& bound) {
    if (o.advertise.empty()) return bound;
    auto address = net::parse_socket_address(o.advertise);
    if (address && address->kind == net::SocketAddress::Kind::kTcp && address->port == 0) {
        address->port = bound.port;
    }
    return address;
}

void warn_if_open_to_all(const WorkerOptions& o) {
    const bool guarded =
        (o.secret && !o.secret().empty()) || !o.session.secret.empty() || (o.tls && o.tls());
    if (net::is_local(o.listen) || guarded) return;
    log_warn(
        "This worker listens on a network with neither a secret nor TLS: whoever reaches the port "
        "can use it.",
        {{"address", net::to_string(o.listen)}});
}

class WorkerImpl final : public Worker {
  public:
    WorkerImpl(WorkerOptions options, std::shared_ptr<Station> station, runtime::LoopPool& loops)
        : options_(std::move(options)),
          station_(std::move(station)),
          watch_(std::make_shared<LoadWatch>(loops.at(0), station_)) {
        // Not owning: the watch holds the station.
        station_->on_work = [watch = std::weak_ptr(watch_)] {
            if (const auto w = watch.lock()) w->wake();
        };
    }
    ~WorkerImpl() override { stop(); }

    [[nodiscard]] Result<void> start(runtime::LoopPool& loops, const Clock& clock);
    [[nodiscard]] const net::SocketAddress& address() const override { return server_->address(); }
    [[nodiscard]] protocol::WorkerInfo info() const override { return station_->state()->info; }
    [[nodiscard]] engine::KvEventSink kv_sink(std::uint32_t rank) override;
    void set_loading(std::uint32_t ready_in_ms) override;
    void set_ready(protocol::ModelCard card, ArtifactStore artifacts,
                   std::vector<engine::Engine*> engines) override;
    void set_available(bool available) override;
    void drain(Deadline deadline) override;
    void begin_drain(Deadline deadline) override;
    void vanish() override;
    void stop() override;

  private:
    [[nodiscard]] std::size_t unsent_streams() const;
    void wait_until_sent(Deadline deadline) const;
    void end_open_requests();

    WorkerOptions options_;
    std::shared_ptr<Station> station_;
    std::shared_ptr<LoadWatch> watch_;
    std::unique_ptr<requests::LinkServer> server_;
    std::mutex mutex_;  ///< drain() and stop() may come from different threads
    std::unique_ptr<discovery::Announcement> announcement_;
    bool draining_ = false;
    bool vanished_ = false;
    bool stopped_ = false;
};

Result<void> WorkerImpl::start(runtime::LoopPool& loops, const Clock& clock) {
    requests::LinkServerOptions o;
    o.address = options_.listen;
    o.session = options_.session;
    o.secret = options_.secret;
    o.tls = options_.tls;
    auto server = requests::listen_links(
        loops, std::move(o),
        [station = station_](std::shared_ptr<requests::ServerLink> link) {
            return WorkerLink::make(station, std::move(link));
        },
        clock);
    if (!server) return tl::unexpected(std::move(server.error()));
    server_ = std::move(*server);
    warn_if_open_to_all(options_);

    auto address = advertised(options_, server_->address());
    if (!address) return tl::unexpected(std::move(address.error()));
    if (!options_.announce_folder.empty()) {
        auto written = discovery::Announcement::write(options_.announce_folder, options_.name,
                                                      {*address, options_.labels});
        if (!written) return tl::unexpected(std::move(written.error()));
        announcement_ = std::move(*written);
    }
    station_->events->lifecycle(events::LifecycleState::kLoading, options_.name);
    log_info("The worker listens.", {{"name", options_.name},
                                     {"address", net::to_string(server_->address())},
                                     {"announced_as", net::to_string(*address)},
                                     {"incarnation", station_->state()->info.incarnation.value}});
    return {};
}

engine::KvEventSink WorkerImpl::kv_sink(std::uint32_t rank) {
    STATOR_CHECK(rank < options_.ranks, "a rank of this worker");
    return [events = station_->events, rank](const std::vector<protocol::KvEvent>& changes) {
        events->kv(rank, changes);
    };
}

void WorkerImpl::set_loading(std::uint32_t ready_in_ms) {
    station_->change([&](WorkerState& state) {
        if (state.info.loading) state.info.ready_in_ms = ready_in_ms;
    });
}

void WorkerImpl::set_ready(protocol::ModelCard card, ArtifactStore artifacts,
                           std::vector<engine::Engine*> engines) {
    STATOR_CHECK(engines.size() == options_.ranks, "one engine for each rank");
    station_->change([&](WorkerState& state) {
        state.info.loading = false;
        state.info.ready_in_ms = 0;
        state.info.card = std::move(card);
        state.info.engine = engines.front()->info().kind;
        // Then routers go by what they have sent.
        if (!engines.front()->info().kv_events) state.info.events.reset();
        state.info.decode_only = !engines.front()->info().computes_prompts;
        for (std::size_t rank = 0; rank < engines.size(); ++rank) {
            const engine::EngineInfo& engine = engines[rank]->info();
            state.info.ranks[rank].max_running = engine.max_running;
            state.info.ranks[rank].max_waiting = engine.max_waiting;
            state.info.ranks[rank].kv_total_tokens = engines[rank]->load().kv_total_tokens;
        }
        state.artifacts = std::make_shared<const ArtifactStore>(std::move(artifacts));
        state.engines = std::move(engines);
    });
    station_->events->lifecycle(events::LifecycleState::kReady, options_.name);
    watch_->wake();  // the first look tells everybody the load at rest
    log_info("The worker is ready.", {{"name", options_.name}});
}

void WorkerImpl::set_available(bool available) {
    STATOR_CHECK(!station_->state()->engines.empty(), "set_ready() comes first");
    station_->change([&](WorkerState& state) { state.info.loading = !available; });
    station_->events->lifecycle(
        available ? events::LifecycleState::kReady : events::LifecycleState::kLoading,
        options_.name);
    log_info(available ? "The worker takes requests again." : "The worker takes no requests now.",
             {{"name", options_.name}});
}

void WorkerImpl::begin_drain(Deadline deadline) {
    {
        const std::scoped_lock lock(mutex_);
        if (vanished_ || std::exchange(draining_, true)) return;
        announcement_.reset();
    }
    station_->open.close();
    station_->change([](WorkerState& state) { state.info.draining = true; });
    const auto left = deadline.left(station_->clock.now());
    const auto left_ms = std::chrono::duration_cast<std::chrono::milliseconds>(left).count();
    requests::GoAway go_away;
    go_away.reason = "draining";
    go_away.grace_ms = static_cast<std::uint32_t>(std::min<std::int64_t>(left_ms, UINT32_MAX));
    for (const auto& link : station_->links()) link->say_go_away(go_away);
    station_->events->lifecycle(events::LifecycleState::kDraining, options_.name);
    log_info("The worker drains: it takes no new requests.",
             {{"name", options_.name}, {"requests", station_->open.count()}});
}

void WorkerImpl::drain(Deadline deadline) {
    begin_drain(deadline);
    if (!station_->open.wait_empty(deadline, station_->clock)) {
        log_warn("The grace time is over; what still runs is ended.",
                 {{"requests", station_->open.count()}});
        return end_open_requests();
    }
    wait_until_sent(deadline);
}

void WorkerImpl::end_open_requests() {
    Error why;
    why.code = ErrorCode::kUnavailable;
    why.message = "this worker stops before the request was done";
    why.retryable = true;
    for (const auto& link : station_->links()) link->end_all(why);
    const TimePoint now = station_->clock.now();
    if (!station_->open.wait_empty(Deadline::after(now, kEndWithin), station_->clock)) {
        log_error("Requests are still open after they were ended.",
                  {{"requests", station_->open.count()}});
    }
}

std::size_t WorkerImpl::unsent_streams() const {
    struct Tally {
        std::mutex mutex;
        std::condition_variable all;
        std::size_t missing = 0;
        std::size_t streams = 0;
    };
    const auto links = station_->links();
    const auto tally = std::make_shared<Tally>();
    tally->missing = links.size();
    for (const auto& link : links) {
        link->count_unsent([tally](std::size_t streams) {
            const std::scoped_lock lock(tally->mutex);
            tally->streams += streams;
            if (--tally->missing == 0) tally->all.notify_all();
        });
    }
    std::unique_lock lock(tally->mutex);
    tally->all.wait(lock, [&] { return tally->missing == 0; });
    return tally->streams;
}

/// The engines are done, but a slow client may not have granted the credit for all of it.
void WorkerImpl::wait_until_sent(Deadline deadline) const {
    std::mutex mutex;
    std::condition_variable nobody;
    std::unique_lock lock(mutex);
    while (unsent_streams() > 0 && !deadline.reached(station_->clock.now())) {
        nobody.wait_for(lock, kUnsentEvery);
    }
}

void WorkerImpl::vanish() {
    {
        const std::scoped_lock lock(mutex_);
        if (stopped_ || std::exchange(vanished_, true)) return;
    }
    log_warn("The worker vanishes.", {{"name", options_.name}});
    watch_->stop();
    server_->cut();
    station_->events->close();
    station_->open.close();
    if (!options_.services) station_->fetches->stop();
}

void WorkerImpl::stop() {
    {
        const std::scoped_lock lock(mutex_);
        if (std::exchange(stopped_, true)) return;
        announcement_.reset();
        if (vanished_) return;
    }
    station_->open.close();
    if (station_->events)
        station_->events->lifecycle(events::LifecycleState::kStopped, options_.name);
    watch_->stop();
    if (server_) server_->stop();
    if (!options_.services) station_->fetches->stop();
    if (station_->events) station_->events->close();
    log_info("The worker has stopped.", {{"name", options_.name}});
}

}  // namespace

Result<WorkerServices> start_worker_services(std::optional<events::PublisherHostOptions> events) {
    WorkerServices out;
    if (events) {
        auto host = events::start_publishers(std::move(*events));
        if (!host) return tl::unexpected(std::move(host.error()));
        out.events = std::move(*host);
    }
    out.fetches = std::make_shared<runtime::CpuPool>(1, kMaxQueuedFetches, "fetch");
    return out;
}

Result<std::unique_ptr<Worker>> start_worker(WorkerOptions options,
                                             protocol::ModelCard card_while_loading,
                                             runtime::LoopPool& loops, metrics::Registry& registry,
                                             const Clock& clock) {
    if (auto sound = check_options(options); !sound) {
        return tl::unexpected(std::move(sound.error()));
    }
    WorkerState state;
    state.info = first_info(options, std::move(card_while_loading));
    WorkerServices services;
    if (options.services) {
        services = *options.services;
    } else {
        auto own = start_worker_services(
            options.events_address.empty() ? std::nullopt : std::optional(options.events));
        if (!own) return tl::unexpected(std::move(own.error()));
        services = std::move(*own);
    }
    const auto station = std::make_shared<Station>(clock, options.load_every, registry,
                                                   services.fetches, std::move(state));
    station->transfer = options.transfer;
    station->claim_within = options.claim_within;
    EventOutlet::Options o;
    o.address = options.events_address;
    o.advertise = options.events_advertise;
    o.host = services.events;
    o.incarnation = station->state()->info.incarnation;
    o.ranks = options.ranks;
    auto events = EventOutlet::open(std::move(o), station->metrics);
    if (!events) return tl::unexpected(std::move(events.error()));
    station->events = std::move(*events);
    station->change([&](WorkerState& s) { s.info.events = station->events->endpoint(); });

    auto worker = std::make_unique<WorkerImpl>(std::move(options), station, loops);
    if (auto started = worker->start(loops, clock); !started) {
        return tl::unexpected(std::move(started.error()));
    }
    return worker;
}

}  // namespace stator::worker
