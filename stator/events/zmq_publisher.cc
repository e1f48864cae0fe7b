#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <variant>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/events/event_log.h"
#include "stator/events/publisher.h"
#include "stator/events/socket_thread.h"
#include "stator/events/zmq_socket.h"

namespace stator::events {
namespace {

constexpr std::size_t kMaxPublishers = 16'384;
constexpr int kLingerMs = 500;  // for the last messages of a publisher that closes
constexpr const char* kZapAddress = "inproc://zeromq.zap.01";

TimePoint now() { return Clock::real().now(); }

/// Says who may subscribe, where there is a list (ZeroMQ's RFC 27).
class ZapDoor {
  public:
    ZapDoor(ZmqSocket socket, std::vector<std::string> allowed)
        : socket_(std::move(socket)), allowed_(std::move(allowed)) {}

    [[nodiscard]] int fd() const { return socket_.fd(); }

    bool serve() {
        while (socket_.readable()) {
            std::vector<std::string> frames;
            do {
                if (!frame_.receive(socket_)) return false;
                frames.emplace_back(frame_.bytes());
            } while (frame_.more());
            answer(frames);
        }
        return false;
    }

  private:
    /// version, request, domain, address, identity, mechanism, the client's key
    void answer(const std::vector<std::string>& f) {
        const std::string key = f.size() == 7 && f[5] == "CURVE" ? curve_key_text(f[6]) : "";
        const bool allowed = !key.empty() && std::ranges::find(allowed_, key) != allowed_.end();
        if (!allowed) {
            log_warn("A subscriber was refused: its key is not on the list.",
                     {{"from", f.size() > 3 ? f[3] : "?"}, {"key", key}});
        }
        socket_.send("1.0", true);
        socket_.send(f.size() > 1 ? f[1] : "", true);
        socket_.send(allowed ? "200" : "400", true);
        socket_.send(allowed ? "OK" : "this key may not subscribe", true);
        socket_.send(key, true);
        socket_.send("");
    }

    ZmqSocket socket_;
    ZmqFrame frame_;
    std::vector<std::string> allowed_;
};

struct KvBatch {
    std::uint32_t rank = 0;
    std::vector<protocol::KvEvent> events;
};
struct OtherMessage {
    std::string topic;
    std::uint32_t rank = 0;
    std::string payload;
};
using Queued = std::variant<KvBatch, OtherMessage>;

/// One publisher. What callers give is queued; numbering, encoding and sending happen on the host's
/// thread, so that an engine pays for a push only.
class Outlet : public std::enable_shared_from_this<Outlet> {
  public:
    Outlet(ZmqSocket socket, EventLog log, std::size_t max_queued)
        : socket_(std::move(socket)), log_(std::move(log)), max_queued_(max_queued) {}

    [[nodiscard]] ZmqSocket& socket() { return socket_; }

    /// True: the caller must see to it that drain() runs.
    bool push(Queued item, bool wait) {
        std::unique_lock lock(queue_mutex_);
        if (!wait && queue_.size() >= max_queued_) {
            if (dropped_++ == 0) {
                log_warn("Messages of other topics are dropped: a publisher's queue is full.",
                         {{"queued", queue_.size()}});
            }
            return false;
        }
        room_.wait(lock, [&] { return queue_.size() < max_queued_; });
        queue_.push_back(std::move(item));
        return !std::exchange(scheduled_, true);
    }

    /// Sends what is queued now; true: more came meanwhile, call again after the others. On the
    /// host's thread.
    bool drain() {
        std::deque<Queued> items;
        {
            const std::scoped_lock lock(queue_mutex_);
            items.swap(queue_);
        }
        room_.notify_all();
        for (const Queued& item : items) send(item);
        const std::scoped_lock lock(queue_mutex_);
        scheduled_ = !queue_.empty();
        return scheduled_;
    }

    [[nodiscard]] std::uint64_t dropped() {
        const std::scoped_lock lock(queue_mutex_);
        return dropped_;
    }

    void heartbeats(bool at_once) {
        {
            const std::scoped_lock lock(log_mutex_);
            log_.heartbeats(now(), at_once, out_);
        }
        flush();
    }

    /// A subscriber that has just come learns at once where each stream stands.
    bool hear_subscriptions() {
        bool came = false;
        while (socket_.readable() && frame_.receive(socket_)) {
            came = came || frame_.bytes().starts_with('\1');
        }
        if (came) heartbeats(true);
        return socket_.readable();
    }

    template <typename F>
    auto with_log(F&& f) {
        const std::scoped_lock lock(log_mutex_);
        return f(log_);
    }

    std::uint64_t watch_id = 0;  // of the host's thread

  private:
    void send(const Queued& item) {
        Result<void> ok;
        {
            const std::scoped_lock lock(log_mutex_);
            if (const auto* kv = std::get_if<KvBatch>(&item)) {
                ok = log_.append_kv(kv->rank, kv->events, now(), out_);
            } else {
                const auto& m = std::get<OtherMessage>(item);
                ok = log_.append(m.topic, m.rank, m.payload, now(), out_);
            }
        }
        if (!ok) log_error("An event was not published.", {{"why", ok.error().message}});
        flush();
    }

    void flush() {
        for (const auto& bytes : out_) socket_.send(*bytes);
        out_.clear();
    }

    ZmqSocket socket_;
    ZmqFrame frame_;
    EventLog::Out out_;

    std::mutex log_mutex_;
    EventLog log_;

    std::mutex queue_mutex_;
    std::condition_variable room_;
    std::deque<Queued> queue_;
    std::size_t max_queued_;
    std::uint64_t dropped_ = 0;
    bool scheduled_ = false;
};

/// What publishers and their host share.
struct HostCore {
    explicit HostCore(PublisherHostOptions o) : options(std::move(o)) {}

    PublisherHostOptions options;
    ZmqContext context{kMaxPublishers};
    std::unique_ptr<ZapDoor> door;                                 // host thread
    std::unordered_map<Outlet*, std::shared_ptr<Outlet>> outlets;  // host thread
    std::unique_ptr<SocketThread> thread;

    void tick() {
        for (const auto& [raw, outlet] : outlets) {
            outlet->heartbeats(false);
            // Sending may have swallowed the descriptor's signal of a subscription.
            if (outlet->socket().readable()) outlet->hear_subscriptions();
        }
    }
};

class ZmqPublisher final : public Publisher {
  public:
    ZmqPublisher(HostCore& host, std::shared_ptr<Outlet> outlet, protocol::EventEndpoint endpoint)
        : host_(host), outlet_(std::move(outlet)), endpoint_(std::move(endpoint)) {}

    ~ZmqPublisher() override {
        host_.thread->run([this] {
            while (outlet_->drain()) {
            }
            host_.thread->unwatch(outlet_->watch_id, outlet_->socket().fd());
            host_.outlets.erase(outlet_.get());
            // ZeroMQ closes the socket on its own thread later; until then it is this thread's.
            outlet_.reset();
        });
    }

    [[nodiscard]] const protocol::EventEndpoint& endpoint() const override { return endpoint_; }

    void publish_kv(std::uint32_t rank, std::vector<protocol::KvEvent> events) override {
        if (events.empty()) return;
        push(KvBatch{rank, std::move(events)}, true);
    }

    void publish(std::string_view topic, std::uint32_t rank, std::string payload) override {
        push(OtherMessage{std::string(topic), rank, std::move(payload)}, false);
    }

    [[nodiscard]] std::uint64_t dropped() const override { return outlet_->dropped(); }

    [[nodiscard]] Result<std::shared_ptr<const std::string>> snapshot(std::string_view topic,
                                                                      std::uint32_t rank) override {
        return outlet_->with_log([&](const EventLog& log) { return log.snapshot(topic, rank); });
    }

    [[nodiscard]] Result<std::shared_ptr<const std::string>> range(std::string_view topic,
                                                                   std::uint32_t rank,
                                                                   std::uint64_t from,
                                                                   std::uint64_t to) override {
        return outlet_->with_log(
            [&](const EventLog& log) { return log.range(topic, rank, from, to); });
    }

  private:
    void push(Queued item, bool wait) {
        if (outlet_->push(std::move(item), wait)) schedule(host_, outlet_.get());
    }

    static void schedule(HostCore& host, Outlet* outlet) {
        host.thread->inbox()->post([outlet, &host] {
            // The publisher may have gone meanwhile, and drained before it went.
            const auto found = host.outlets.find(outlet);
            if (found == host.outlets.end()) return;
            if (outlet->drain()) schedule(host, outlet);
            if (outlet->socket().readable()) host.thread->again(outlet->watch_id);
        });
    }

    HostCore& host_;
    std::shared_ptr<Outlet> outlet_;
    protocol::EventEndpoint endpoint_;
};

class ZmqPublisherHost final : public PublisherHost {
  public:
    explicit ZmqPublisherHost(PublisherHostOptions options) : core_(std::move(options)) {}

    ~ZmqPublisherHost() override {
        core_.thread->run([this] { core_.door.reset(); });
        core_.thread->stop();
    }

    Result<void> start() {
        const auto tick = std::clamp(core_.options.heartbeat / 4, std::chrono::milliseconds(5),
                                     std::chrono::milliseconds(500));
        auto thread = SocketThread::start("events-pub", tick, [this] { core_.tick(); });
        if (!thread) return tl::unexpected(thread.error());
        core_.thread = *std::move(thread);
        Result<void> ok;
        if (!core_.options.allowed_clients.empty()) core_.thread->run([&] { ok = open_door(); });
        return ok;
    }

    [[nodiscard]] Result<std::shared_ptr<Publisher>> bind(const std::string& address,
                                                          protocol::Incarnation incarnation,
                                                          std::uint32_t ranks) override {
        Result<std::shared_ptr<Publisher>> out;
        core_.thread->run([&] { out = bind_here(address, incarnation, ranks); });
        return out;
    }

  private:
    Result<void> open_door() {
        auto socket = ZmqSocket::open(core_.context, ZmqKind::kRep, 0);
        if (!socket) return tl::unexpected(socket.error());
        if (auto ok = socket->bind(kZapAddress); !ok) return ok;
        core_.door = std::make_unique<ZapDoor>(*std::move(socket), core_.options.allowed_clients);
        std::ignore = core_.thread->watch(
            core_.door->fd(), [this] { return core_.door != nullptr && core_.door->serve(); });
        return {};
    }

    Result<std::shared_ptr<Publisher>> bind_here(const std::string& address,
                                                 protocol::Incarnation incarnation,
                                                 std::uint32_t ranks) {
        const PublisherHostOptions& o = core_.options;
        auto socket = ZmqSocket::open(core_.context, ZmqKind::kXpub, kLingerMs);
        if (!socket) return tl::unexpected(socket.error());
        socket->set_high_water_marks(o.send_high_water_mark, 1'000);
        socket->set_limits(64 * 1024);  // what subscribers send are prefixes
        socket->tell_every_subscription();
        if (!o.curve.secret_key.empty()) {
            auto ok = socket->serve_curve(o.curve, !o.allowed_clients.empty());
            if (!ok) return tl::unexpected(ok.error());
        }
        if (auto ok = socket->bind(address); !ok) return tl::unexpected(ok.error());
        protocol::EventEndpoint endpoint{socket->bound_address(), o.curve.public_key};
        auto outlet = std::make_shared<Outlet>(
            *std::move(socket),
            EventLog(incarnation, ranks, {o.heartbeat, o.ring_batches, o.ring_bytes, kBatchBytes}),
            o.max_queued_batches);
        outlet->watch_id = core_.thread->watch(
            outlet->socket().fd(), [raw = outlet.get()] { return raw->hear_subscriptions(); });
        core_.outlets.emplace(outlet.get(), outlet);
        return std::make_shared<ZmqPublisher>(core_, std::move(outlet), std::move(endpoint));
    }

    HostCore core_;
};

Result<void> check(const PublisherHostOptions& o) {
    const bool keys = !o.curve.secret_key.empty();
    if (keys != !o.curve.public_key.empty() ||
        (keys && (!is_curve_key(o.curve.secret_key) || !is_curve_key(o.curve.public_key)))) {
        return error(ErrorCode::kInvalidArgument,
                     "CURVE needs a public and a secret key, each Z85 text of 40 characters");
    }
    if (!keys && !o.allowed_clients.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "a list of subscribers' keys needs CURVE keys of the publisher's own");
    }
    for (const std::string& key : o.allowed_clients) {
        if (is_curve_key(key)) continue;
        return error(ErrorCode::kInvalidArgument,
                     "a subscriber's key on the list is no Z85 text of 40 characters: {}", key);
    }
    if (o.heartbeat <= std::chrono::milliseconds::zero() || o.max_queued_batches == 0) {
        return error(ErrorCode::kInvalidArgument,
                     "the heartbeat and the queue of a publisher must be above 0");
    }
    return {};
}

}  // namespace

Result<std::unique_ptr<PublisherHost>> start_publishers(PublisherHostOptions options) {
    if (auto ok = check(options); !ok) return tl::unexpected(ok.error());
    auto host = std::make_unique<ZmqPublisherHost>(std::move(options));
    if (auto ok = host->start(); !ok) return tl::unexpected(ok.error());
    return host;
}

}  // namespace stator::events
