#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/requests/link.h"
#include "stator/requests/link_timer.h"

namespace stator::requests {
namespace {

class Server;
class SocketServerLink;

/// Bulk lanes: bytes on the way from the lane's loop to the link's beyond which reading pauses.
constexpr std::size_t kMaxInFlightBytes = 1024 * 1024;

std::uint64_t random_number() {
    std::random_device device;
    return (std::uint64_t{device()} << 32) | device();
}

/// What all connections and links of a server share.
struct Registry {
    std::mutex mutex;
    std::condition_variable gone;
    std::map<LinkId, std::shared_ptr<SocketServerLink>> links;
    std::size_t connections = 0;
    std::vector<std::weak_ptr<class ServerLane>> lanes;
    bool stopping = false;
    std::atomic<std::uint64_t> accepted{0};
    std::atomic<std::uint64_t> refused{0};
};

/// What never changes after listen_links().
struct Shared {
    LinkServerOptions options;
    ServerLinkAccept accept;
    const Clock& clock;
    Registry registry;
};

/// One accepted connection: greeted on the loop it was accepted on. A control lane makes its link,
/// which lives on that loop. A bulk lane may have come to another loop than its link: bytes cross
/// by post, in either direction, so that the link's state is touched on its own loop only.
class ServerLane final : public net::StreamHandler,
                         public std::enable_shared_from_this<ServerLane> {
  public:
    ServerLane(std::shared_ptr<Shared> shared, std::shared_ptr<net::StreamSocket> socket,
               runtime::Loop& own_loop)
        : loop(own_loop),
          socket(std::move(socket)),
          shared_(std::move(shared)),
          timer_(own_loop, shared_->clock),
          greeter_(std::make_unique<LaneGreeter>(
              shared_->options.secret ? shared_->options.secret() : shared_->options.session.secret,
              random_number(), shared_->clock.now(), shared_->options.session.handshake_within)) {}

    void on_open() override { timer_.want(greeter_->next_timer(), shared_from_this()); }
    void on_bytes(std::string_view bytes) override;
    void on_drained() override;
    void on_closed(const Error& why) override;
    void on_timer() {
        if (greeter_)
            refuse(error(ErrorCode::kDeadlineExceeded, "the handshake took too long").value());
    }
    /// On the lane's loop.
    void send(std::string bytes);
    void taken(std::size_t bytes);
    void abort() { socket->abort(); }

    runtime::Loop& loop;
    std::shared_ptr<net::StreamSocket> socket;
    // On the link's loop:
    LaneId lane;
    std::string out;  // of a bulk lane, before it crosses

  private:
    void refuse(const Error& why);
    void greeted(LaneGreeter::Greeted&& greeted);
    void make_link(const Hello& client);
    void join_link(const Hello& client);
    void cross(std::string_view bytes);
    void tell_drained();

    std::shared_ptr<Shared> shared_;
    LinkTimer timer_;
    std::unique_ptr<LaneGreeter> greeter_;
    std::shared_ptr<SocketServerLink> link_;
    bool control_ = false;
    std::size_t in_flight_ = 0;
};

class SocketServerLink final : public ServerLink,
                               public WorkerSessionEvents,
                               public std::enable_shared_from_this<SocketServerLink> {
  public:
    SocketServerLink(std::shared_ptr<Shared> shared, std::shared_ptr<ServerLane> control,
                     const Hello& client)
        : shared_(std::move(shared)),
          control_(std::move(control)),
          id_(client.link),
          peer_(client.name + " at " + control_->socket->peer()),
          timer_(control_->loop, shared_->clock),
          session_(shared_->options.session, client, *this, shared_->clock.now()) {}

    /// False: the owner wants no such link.
    bool start() {
        events_ = shared_->accept(shared_from_this());
        if (!events_) return false;
        static_cast<void>(
            session_.add_lane(LaneId(0), &control_->socket->out(), shared_->clock.now()));
        after_input();
        return true;
    }

    WorkerSession& session() override { return session_; }
    void flush() override { after_input(); }
    runtime::Loop& loop() override { return control_->loop; }
    const std::string& peer() const override { return peer_; }
    void close() override {
        lane_lost(LaneId(0), error(ErrorCode::kCancelled, "the link was closed here").value());
    }
    std::uint64_t sends() const override { return control_->socket->sends() + bulk_sends_; }

    void add_bulk(const std::shared_ptr<ServerLane>& lane) {
        lane->lane = LaneId(next_lane_++);
        auto added = over_ ? error(ErrorCode::kUnavailable, "the link is over")
                           : session_.add_lane(lane->lane, &lane->out, shared_->clock.now());
        if (!added) {
            log_warn("A bulk connection was refused.",
                     {{"link", peer_}, {"why", added.error().message}});
            shared_->registry.refused += 1;
            lane->loop.post([lane] { lane->socket->close(); });
            return;
        }
        bulk_.push_back(lane);
        after_input();
    }
    void bytes(LaneId lane, std::string_view bytes) {
        session_.set_unsent(over_ ? 0 : control_->socket->unsent());
        session_.received(lane, bytes, shared_->clock.now());
        after_input();
    }
    void drained(LaneId lane) {
        session_.lane_drained(lane, shared_->clock.now());
        after_input();
    }
    void lane_lost(LaneId lane, const Error& why) {
        session_.lane_lost(lane, why, shared_->clock.now());
        std::erase_if(bulk_, [&](const auto& l) { return l->lane == lane; });
        after_input();
    }
    void on_timer() {
        session_.tick(shared_->clock.now());
        after_input();
    }

    void on_ready(const Hello& client) override { events_->on_ready(client); }
    Result<void> on_open(StreamId stream, std::uint32_t rank, std::uint64_t booking,
                         protocol::GenerateRequest&& request) override {
        return events_->on_open(stream, rank, booking, std::move(request));
    }
    void on_cancel(StreamId stream) override { events_->on_cancel(stream); }
    void on_late_cancel(StreamId stream) override { events_->on_late_cancel(stream); }
    void on_fetch(std::uint64_t fetch, const Fetch& what) override {
        events_->on_fetch(fetch, what);
    }
    void on_lane_unwanted(LaneId lane, const Error& why) override {
        for (const auto& l : bulk_) {
            if (l->lane == lane) l->loop.post([l] { l->socket->close(); });
        }
        std::erase_if(bulk_, [&](const auto& l) { return l->lane == lane; });
        events_->on_lane_unwanted(lane, why);
    }
    void on_lost(const Error& why) override {
        if (std::exchange(over_, true)) return;
        log_info("A link has ended.", {{"link", peer_}, {"why", why.message}});
        timer_.cancel();
        const auto self = shared_from_this();
        control_->socket->flush_later();
        control_->socket->close();
        for (const auto& l : std::exchange(bulk_, {})) {
            l->loop.post([l] { l->socket->close(); });
        }
        std::exchange(events_, nullptr)->on_lost(why);
        {
            const std::scoped_lock lock(shared_->registry.mutex);
            shared_->registry.links.erase(id_);
        }
        shared_->registry.gone.notify_all();
    }

  private:
    void after_input() {
        if (over_) return;
        if (session_.take_output_flag(LaneId(0))) control_->socket->flush_later();
        session_.set_unsent(control_->socket->unsent());
        for (const auto& l : bulk_) {
            if (!session_.take_output_flag(l->lane)) continue;
            bulk_sends_ += 1;
            l->loop.post(
                [l, bytes = std::exchange(l->out, {})]() mutable { l->send(std::move(bytes)); });
        }
        timer_.want(session_.next_timer(), shared_from_this());
    }

    std::shared_ptr<Shared> shared_;
    std::shared_ptr<ServerLane> control_;
    LinkId id_;
    std::string peer_;
    LinkTimer timer_;
    WorkerSession session_;
    std::shared_ptr<WorkerSessionEvents> events_;
    std::vector<std::shared_ptr<ServerLane>> bulk_;
    std::uint32_t next_lane_ = 1;
    std::uint64_t bulk_sends_ = 0;
    bool over_ = false;
};

void ServerLane::refuse(const Error& why) {
    log_warn("A connection was refused.", {{"peer", socket->peer()}, {"why", why.message}});
    shared_->registry.refused += 1;
    greeter_.reset();
    timer_.cancel();
    socket->flush_later();
    socket->close();
}

void ServerLane::on_bytes(std::string_view bytes) {
    if (link_) {
        if (control_) return link_->bytes(LaneId(0), bytes);
        return cross(bytes);
    }
    if (!greeter_) return;
    auto done = greeter_->received(bytes, shared_->clock.now(), socket->out());
    if (!done) return refuse(done.error());
    socket->flush_later();
    if (*done) greeted(std::move(**done));
}

void ServerLane::greeted(LaneGreeter::Greeted&& greeted) {
    greeter_.reset();
    timer_.cancel();
    if (greeted.client.lane == LaneKind::kControl) {
        make_link(greeted.client);
    } else {
        join_link(greeted.client);
    }
    if (link_ && !greeted.rest.empty()) on_bytes(greeted.rest);
}

void ServerLane::make_link(const Hello& client) {
    auto link = std::make_shared<SocketServerLink>(shared_, shared_from_this(), client);
    Result<void> ok;
    {
        const std::scoped_lock lock(shared_->registry.mutex);
        auto& links = shared_->registry.links;
        if (shared_->registry.stopping) {
            ok = error(ErrorCode::kUnavailable, "the server stops");
        } else if (links.size() >= shared_->options.max_links) {
            ok = error(ErrorCode::kOverloaded, "{} links are open", links.size());
        } else if (!links.emplace(client.link, link).second) {
            ok = error(ErrorCode::kUnauthenticated, "a link with this id is there already");
        }
    }
    if (!ok) return refuse(ok.error());
    link_ = link;
    control_ = true;
    if (link->start()) {
        shared_->registry.accepted += 1;
        return;
    }
    {
        const std::scoped_lock lock(shared_->registry.mutex);
        shared_->registry.links.erase(client.link);
    }
    link_.reset();
    refuse(error(ErrorCode::kUnavailable, "the worker takes no link").value());
}

void ServerLane::join_link(const Hello& client) {
    std::shared_ptr<SocketServerLink> link;
    {
        const std::scoped_lock lock(shared_->registry.mutex);
        const auto at = shared_->registry.links.find(client.link);
        if (at != shared_->registry.links.end()) link = at->second;
    }
    if (!link)
        return refuse(error(ErrorCode::kNotFound, "a lane of a link that is not here").value());
    link_ = link;
    link->loop().post([link, self = shared_from_this()] { link->add_bulk(self); });
}

void ServerLane::cross(std::string_view bytes) {
    in_flight_ += bytes.size();
    if (in_flight_ > kMaxInFlightBytes) socket->pause_reading(true);
    link_->loop().post([link = link_, self = shared_from_this(), bytes = std::string(bytes)] {
        link->bytes(self->lane, bytes);
        self->loop.post([self, n = bytes.size()] { self->taken(n); });
    });
}

void ServerLane::taken(std::size_t bytes) {
    in_flight_ -= bytes;
    if (in_flight_ <= kMaxInFlightBytes) socket->pause_reading(false);
}

void ServerLane::send(std::string bytes) {
    socket->out().append(bytes);
    socket->flush_later();
    loop.at_turn_end([self = shared_from_this()] {
        if (self->socket->unsent() == 0) self->tell_drained();
    });
}

void ServerLane::tell_drained() {
    if (!link_) return;
    link_->loop().post([link = link_, self = shared_from_this()] { link->drained(self->lane); });
}

void ServerLane::on_drained() {
    if (!link_) return;
    if (control_) return link_->drained(LaneId(0));
    tell_drained();
}

void ServerLane::on_closed(const Error& why) {
    timer_.cancel();
    greeter_.reset();
    if (const auto link = std::exchange(link_, nullptr)) {
        if (control_) {
            link->lane_lost(LaneId(0), why);
        } else {
            link->loop().post([link, self = shared_from_this(), why] {
                if (self->lane.value != 0) link->lane_lost(self->lane, why);
            });
        }
    }
    {
        const std::scoped_lock lock(shared_->registry.mutex);
        shared_->registry.connections -= 1;
    }
    shared_->registry.gone.notify_all();
}

class Server final : public LinkServer {
  public:
    Server(std::shared_ptr<Shared> shared, std::unique_ptr<net::StreamListener> listener)
        : shared_(std::move(shared)), listener_(std::move(listener)) {}
    ~Server() override { stop(); }

    const net::SocketAddress& address() const override { return listener_->address(); }
    void stop_accepting() override { listener_->stop(); }
    void stop() override { end(false); }
    void cut() override { end(true); }
    Stats stats() const override {
        Registry& r = shared_->registry;
        const std::scoped_lock lock(r.mutex);
        return {.links = r.links.size(), .accepted = r.accepted, .refused = r.refused};
    }

  private:
    void end(bool at_once) {
        listener_->stop();
        Registry& r = shared_->registry;
        std::unique_lock lock(r.mutex);
        r.stopping = true;
        if (at_once) {
            for (const auto& weak : r.lanes) {
                if (const auto lane = weak.lock()) lane->loop.post([lane] { lane->abort(); });
            }
        }
        for (const auto& [id, link] : r.links) {
            link->loop().post([link] { link->close(); });
        }
        for (const auto& weak : r.lanes) {
            if (const auto lane = weak.lock()) {
                // After the close above, which is given a moment to send its last words.
                lane->loop.post([lane] { lane->socket->close(); });
            }
        }
        r.gone.wait(lock, [&] { return r.links.empty() && r.connections == 0; });
    }

    std::shared_ptr<Shared> shared_;
    std::unique_ptr<net::StreamListener> listener_;
};

runtime::Loop& current_loop(runtime::LoopPool& loops) {
    for (std::size_t i = 0; i + 1 < loops.size(); ++i) {
        if (loops.at(i).on_this_thread()) return loops.at(i);
    }
    return loops.at(loops.size() - 1);
}

}  // namespace

Result<std::unique_ptr<LinkServer>> listen_links(runtime::LoopPool& loops,
                                                 LinkServerOptions options, ServerLinkAccept accept,
                                                 const Clock& clock) {
    const net::SocketAddress address = options.address;
    net::ListenOptions listen = options.listen;
    if (options.tls) listen.tls = options.tls;
    auto shared = std::shared_ptr<Shared>(new Shared{.options = std::move(options),
                                                     .accept = std::move(accept),
                                                     .clock = clock,
                                                     .registry = {}});
    auto listener = net::listen_stream(
        loops, address, listen,
        [shared,
         &loops](std::shared_ptr<net::StreamSocket> socket) -> std::shared_ptr<net::StreamHandler> {
            auto lane =
                std::make_shared<ServerLane>(shared, std::move(socket), current_loop(loops));
            const std::scoped_lock lock(shared->registry.mutex);
            Registry& r = shared->registry;
            if (r.stopping) return nullptr;
            std::erase_if(r.lanes, [](const auto& weak) { return weak.expired(); });
            r.lanes.push_back(lane);
            r.connections += 1;
            return lane;
        });
    if (!listener) return tl::unexpected(std::move(listener.error()));
    return std::make_unique<Server>(std::move(shared), std::move(*listener));
}

}  // namespace stator::requests
