#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/events/kv_follower.h"
#include "stator/events/socket_thread.h"
#include "stator/events/subscriber.h"
#include "stator/events/zmq_socket.h"

namespace stator::events {
namespace {

constexpr std::size_t kDescriptorsEach = 2;  // the socket's mailbox and its connection
constexpr std::size_t kDescriptorsBeside = 256;
constexpr std::size_t kMessagesPerTurn = 512;  // of one publisher before the others' turn
constexpr std::chrono::milliseconds kTick{20};

TimePoint now() { return Clock::real().now(); }

/// One publisher's socket and what is done with its messages. On the host's thread, but for
/// stats().
class Inlet {
  public:
    explicit Inlet(ZmqSocket socket) : socket_(std::move(socket)) {}
    virtual ~Inlet() = default;

    [[nodiscard]] ZmqSocket& socket() { return socket_; }
    [[nodiscard]] SubscriptionStats stats() const {
        const std::scoped_lock lock(stats_mutex_);
        return stats_;
    }

    /// Takes what has come, to a bound; true: there is more.
    bool drain() {
        std::size_t left = kMessagesPerTurn;
        // The descriptor speaks up only for changes, so everything is taken until nothing is left.
        while (left > 0 && !gone && frame_.receive(socket_)) {
            take(frame_.bytes(), frame_.more());
            --left;
        }
        if (gone) return false;
        after();
        return left == 0 || socket_.readable();
    }

    virtual void on_time() {}
    virtual void on_answer(std::uint64_t /*ticket*/, const Result<std::string>& /*answer*/) {}

    std::uint64_t id = 0;
    std::uint64_t watch_id = 0;
    bool gone = false;

  protected:
    virtual void take(std::string_view bytes, bool more) = 0;
    virtual void after() = 0;
    void show(const SubscriptionStats& stats) {
        const std::scoped_lock lock(stats_mutex_);
        stats_ = stats;
    }

  private:
    ZmqSocket socket_;
    ZmqFrame frame_;
    mutable std::mutex stats_mutex_;
    SubscriptionStats stats_;
};

struct HostCore {
    explicit HostCore(SubscriberHostOptions o, std::size_t sockets)
        : options(std::move(o)), context(sockets) {}

    SubscriberHostOptions options;
    ZmqContext context;
    std::unordered_map<std::uint64_t, std::shared_ptr<Inlet>> inlets;  // host thread
    std::uint64_t ids = 0;                                             // host thread
    std::unique_ptr<SocketThread> thread;

    void tick() {
        std::vector<std::shared_ptr<Inlet>> all;
        all.reserve(inlets.size());
        for (const auto& [id, inlet] : inlets) all.push_back(inlet);
        for (const auto& inlet : all) {
            if (!inlet->gone) inlet->on_time();
        }
    }
};

class FollowInlet final : public Inlet {
  public:
    FollowInlet(ZmqSocket socket, HostCore& host, protocol::Incarnation incarnation,
                std::uint32_t ranks, Fetcher fetch, std::shared_ptr<KvReceiver> receiver)
        : Inlet(std::move(socket)),
          host_(host),
          fetch_(std::move(fetch)),
          receiver_(std::move(receiver)),
          follower_(incarnation, ranks, {.silent_after = host.options.silent_after}, *receiver_,
                    now()) {}

    void on_time() override {
        follower_.on_time(now(), wanted_);
        after();
    }

    void on_answer(std::uint64_t ticket, const Result<std::string>& answer) override {
        follower_.on_answer(ticket, answer, now(), wanted_);
        after();
    }

  protected:
    void take(std::string_view bytes, bool more) override {
        // A message of several frames is not ours; its parts count as one bad message each.
        follower_.on_message(more ? std::string_view{} : bytes, now(), wanted_);
    }

    void after() override {
        show(follower_.stats());
        std::vector<Fetch> wanted;
        wanted.swap(wanted_);
        for (const Fetch& f : wanted) {
            auto done = [inbox = host_.thread->inbox(), host = &host_, id = id,
                         ticket = f.ticket](Result<std::string> answer) {
                // A stopped host drops the task, so `host` is there when it runs.
                std::ignore = inbox->post([host, id, ticket, answer = std::move(answer)] {
                    const auto found = host->inlets.find(id);
                    if (found == host->inlets.end()) return;
                    const auto inlet = found->second;
                    inlet->on_answer(ticket, answer);
                });
            };
            fetch_(f.snapshot, std::string(kTopicKv), f.rank, f.from, f.to, std::move(done));
        }
    }

  private:
    HostCore& host_;
    Fetcher fetch_;
    std::shared_ptr<KvReceiver> receiver_;
    KvFollower follower_;
    std::vector<Fetch> wanted_;
};

class ListenInlet final : public Inlet {
  public:
    ListenInlet(ZmqSocket socket, std::function<void(const Message&)> take)
        : Inlet(std::move(socket)), take_(std::move(take)) {}

  protected:
    void take(std::string_view bytes, bool more) override {
        const auto m = parse_message(more ? std::string_view{} : bytes);
        if (!m) {
            ++stats_.rejected;
            return;
        }
        ++stats_.batches;
        take_(*m);
    }

    void after() override { show(stats_); }

  private:
    std::function<void(const Message&)> take_;
    SubscriptionStats stats_;
};

class ZmqSubscription final : public Subscription {
  public:
    ZmqSubscription(HostCore& host, std::shared_ptr<Inlet> inlet)
        : host_(host), inlet_(std::move(inlet)) {}

    ~ZmqSubscription() override {
        host_.thread->run([this] {
            inlet_->gone = true;
            host_.thread->unwatch(inlet_->watch_id, inlet_->socket().fd());
            host_.inlets.erase(inlet_->id);
            inlet_.reset();
        });
    }

    [[nodiscard]] SubscriptionStats stats() const override { return inlet_->stats(); }

  private:
    HostCore& host_;
    std::shared_ptr<Inlet> inlet_;
};

class ZmqSubscriberHost final : public SubscriberHost {
  public:
    ZmqSubscriberHost(SubscriberHostOptions options, std::size_t publishers)
        : core_(std::move(options), publishers + 64) {}

    ~ZmqSubscriberHost() override { core_.thread->stop(); }

    Result<void> start() {
        if (core_.options.curve.public_key.empty()) core_.options.curve = make_curve_keys();
        auto thread = SocketThread::start("events-sub", kTick, [this] { core_.tick(); });
        if (!thread) return tl::unexpected(thread.error());
        core_.thread = *std::move(thread);
        return {};
    }

    [[nodiscard]] Result<std::unique_ptr<Subscription>> follow_kv(
        const protocol::EventEndpoint& endpoint, protocol::Incarnation incarnation,
        std::uint32_t ranks, Fetcher fetch, std::shared_ptr<KvReceiver> receiver) override {
        return open(endpoint, {std::string(kTopicKv)}, [&](ZmqSocket socket) {
            return std::make_shared<FollowInlet>(std::move(socket), core_, incarnation, ranks,
                                                 std::move(fetch), std::move(receiver));
        });
    }

    [[nodiscard]] Result<std::unique_ptr<Subscription>> listen(
        const protocol::EventEndpoint& endpoint, std::vector<std::string> topics,
        std::function<void(const Message&)> take) override {
        return open(endpoint, topics, [&](ZmqSocket socket) {
            return std::make_shared<ListenInlet>(std::move(socket), std::move(take));
        });
    }

  private:
    template <typename Make>
    Result<std::unique_ptr<Subscription>> open(const protocol::EventEndpoint& endpoint,
                                               const std::vector<std::string>& topics, Make make) {
        Result<std::unique_ptr<Subscription>> out;
        core_.thread->run([&] {
            auto socket = connect(endpoint, topics);
            if (!socket) {
                out = tl::unexpected(socket.error());
                return;
            }
            std::shared_ptr<Inlet> inlet = make(*std::move(socket));
            inlet->id = ++core_.ids;
            core_.inlets.emplace(inlet->id, inlet);
            inlet->watch_id =
                core_.thread->watch(inlet->socket().fd(), [weak = std::weak_ptr(inlet)] {
                    const auto here = weak.lock();
                    return here != nullptr && here->drain();
                });
            out = std::make_unique<ZmqSubscription>(core_, std::move(inlet));
        });
        return out;
    }

    Result<ZmqSocket> connect(const protocol::EventEndpoint& endpoint,
                              const std::vector<std::string>& topics) {
        for (const std::string& topic : topics) {
            if (is_topic(topic)) continue;
            return error(ErrorCode::kInvalidArgument,
                         "a topic is 1 to {} of [a-z0-9_-], found {} bytes that are not",
                         kMaxTopicBytes, topic.size());
        }
        auto socket = ZmqSocket::open(core_.context, ZmqKind::kSub, 0);
        if (!socket) return socket;
        socket->set_high_water_marks(1'000, core_.options.receive_high_water_mark);
        socket->set_limits(kMaxMessageBytes);
        if (!endpoint.curve_public_key.empty()) {
            auto ok = socket->use_curve(core_.options.curve, endpoint.curve_public_key);
            if (!ok) return tl::unexpected(ok.error());
        }
        if (topics.empty()) socket->subscribe({});
        for (const std::string& topic : topics) socket->subscribe(topic + '\0');
        if (auto ok = socket->connect(endpoint.address); !ok) return tl::unexpected(ok.error());
        return socket;
    }

    HostCore core_;
};

/// Raises this process's own limit as far as the system lets it.
Result<void> make_room_for_descriptors(std::size_t publishers) {
    const std::size_t need = publishers * kDescriptorsEach + kDescriptorsBeside;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= need) return {};
    if (limit.rlim_max < need) {
        return error(ErrorCode::kExhausted,
                     "{} publishers need {} open files, and this process may have {} at most: "
                     "raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd)",
                     publishers, need, limit.rlim_max);
    }
    limit.rlim_cur = std::max<rlim_t>(need, std::min<rlim_t>(limit.rlim_max, 2 * need));
    if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return {};
    return error(ErrorCode::kExhausted,
                 "{} publishers need {} open files; raise the limit with ulimit -n {}", publishers,
                 need, need);
}

}  // namespace

Result<std::unique_ptr<SubscriberHost>> start_subscribers(SubscriberHostOptions options,
                                                          std::size_t expected_publishers) {
    constexpr std::size_t kMostSockets = 65'000;  // libzmq counts them in 16 bits
    if (expected_publishers > kMostSockets) {
        return error(ErrorCode::kExhausted, "ZeroMQ has at most {} sockets, {} are wanted",
                     kMostSockets, expected_publishers);
    }
    if (auto ok = make_room_for_descriptors(expected_publishers); !ok) {
        return tl::unexpected(ok.error());
    }
    auto host = std::make_unique<ZmqSubscriberHost>(std::move(options), expected_publishers);
    if (auto ok = host->start(); !ok) return tl::unexpected(ok.error());
    return host;
}

}  // namespace stator::events
