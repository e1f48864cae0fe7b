// Real ZeroMQ sockets on loopback.
#include <gtest/gtest.h>
#include <zmq.h>

#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <random>
#include <thread>

#include "stator/base/clock.h"
#include "stator/events/kv_mirror.h"
#include "stator/events/publisher.h"
#include "stator/events/subscriber.h"

namespace stator::events {
namespace {

using namespace std::chrono_literals;
using protocol::Incarnation;
using protocol::KvEvent;

/// Waits for another thread's doing, to a bound far beyond what it takes.
template <typename F>
bool eventually(F&& f, std::chrono::milliseconds most = 8s) {
    const Deadline end = Deadline::after(Clock::real().now(), most);
    while (!f()) {
        if (end.reached(Clock::real().now())) return false;
        std::this_thread::sleep_for(2ms);
    }
    return true;
}

class Mirror final : public KvReceiver {
  public:
    void apply(std::uint32_t, const KvEvent& event) override {
        const std::scoped_lock lock(mutex_);
        state_.apply(event);
    }
    void reset(std::uint32_t) override {
        const std::scoped_lock lock(mutex_);
        state_.clear();
    }
    void live(std::uint32_t, bool is_live, std::uint64_t sequence) override {
        const std::scoped_lock lock(mutex_);
        live_ = is_live;
        sequence_ = sequence;
        ++told_;
    }
    [[nodiscard]] bool is(const KvMirror& wanted) const {
        const std::scoped_lock lock(mutex_);
        return live_ && state_ == wanted;
    }
    [[nodiscard]] bool live() const {
        const std::scoped_lock lock(mutex_);
        return live_;
    }
    [[nodiscard]] int told() const {
        const std::scoped_lock lock(mutex_);
        return told_;
    }

  private:
    mutable std::mutex mutex_;
    KvMirror state_;
    bool live_ = false;
    int told_ = 0;
    std::uint64_t sequence_ = 0;
};

KvEvent stored(std::uint64_t seq, std::uint64_t hash, std::size_t blocks = 1) {
    protocol::KvStored s;
    for (std::size_t i = 0; i < blocks; ++i) {
        s.blocks.push_back({tokens::BlockHash(hash ^ i), tokens::SequenceHash(hash + i), {}});
    }
    return {protocol::EventSeq(seq), s};
}

/// Answers fetches from whatever publisher stands there now, as a worker's link does.
class Worker {
  public:
    void set(std::shared_ptr<Publisher> p) {
        const std::scoped_lock lock(mutex_);
        publisher_ = std::move(p);
    }
    Fetcher fetcher() {
        return [this](bool snapshot, std::string topic, std::uint32_t rank, std::uint64_t from,
                      std::uint64_t to, std::function<void(Result<std::string>)> done) {
            const std::scoped_lock lock(mutex_);
            if (publisher_ == nullptr) {
                done(error(ErrorCode::kUnavailable, "no worker"));
                return;
            }
            const auto bytes = snapshot ? publisher_->snapshot(topic, rank)
                                        : publisher_->range(topic, rank, from, to);
            done(bytes ? Result<std::string>(**bytes) : tl::unexpected(bytes.error()));
        };
    }

  private:
    std::mutex mutex_;
    std::shared_ptr<Publisher> publisher_;
};

PublisherHostOptions quick() {
    PublisherHostOptions o;
    o.heartbeat = 50ms;
    return o;
}

std::shared_ptr<Publisher> bound(PublisherHost& host, const std::string& address, Incarnation i) {
    std::shared_ptr<Publisher> out;
    std::string why;
    // A port just left is free only once ZeroMQ's own thread has closed it.
    EXPECT_TRUE(eventually([&] {
        auto p = host.bind(address, i, 1);
        if (p) {
            out = *p;
        } else {
            why = p.error().message;
        }
        return out != nullptr;
    })) << why;
    return out;
}

TEST(Events, AFreshPublisherIsFollowedWithoutASnapshot) {
    auto host = *start_publishers(quick());
    auto publisher = bound(*host, "tcp://127.0.0.1:*", Incarnation(7));
    Worker worker;
    worker.set(publisher);
    auto subscribers = *start_subscribers({}, 1);
    auto mirror = std::make_shared<Mirror>();
    auto subscription =
        *subscribers->follow_kv(publisher->endpoint(), Incarnation(7), 1, worker.fetcher(), mirror);
    ASSERT_TRUE(eventually([&] { return mirror->live(); }));
    KvMirror wanted;
    for (std::uint64_t i = 1; i <= 500; ++i) {
        const KvEvent e = stored(i, i * 1000, 3);
        wanted.apply(e);
        publisher->publish_kv(0, {e});
    }
    EXPECT_TRUE(eventually([&] { return mirror->is(wanted); }));
    EXPECT_TRUE(eventually([&] { return subscription->stats().block_events == 1500; }));
    EXPECT_EQ(subscription->stats().snapshots, 0U);
}

TEST(Events, ALateJoinerTakesASnapshot) {
    auto host = *start_publishers(quick());
    auto publisher = bound(*host, "tcp://127.0.0.1:*", Incarnation(7));
    KvMirror wanted;
    const KvEvent big = stored(1, 5, 50'000);  // cut into several messages
    wanted.apply(big);
    publisher->publish_kv(0, {big});
    ASSERT_TRUE(eventually([&] { return publisher->range("kv", 0, 1, 7).has_value(); }));
    Worker worker;
    worker.set(publisher);
    auto subscribers = *start_subscribers({}, 1);
    auto mirror = std::make_shared<Mirror>();
    auto subscription =
        *subscribers->follow_kv(publisher->endpoint(), Incarnation(7), 1, worker.fetcher(), mirror);
    EXPECT_TRUE(eventually([&] { return mirror->is(wanted); }));
    EXPECT_TRUE(eventually([&] { return subscription->stats().snapshots == 1; }));
}

TEST(Events, LossByHighWaterMarksAndRestartsOnTheSamePort) {
    const auto seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 rng(seed);
    auto options = quick();
    options.send_high_water_mark = 2;
    options.ring_batches = 50;
    auto host = *start_publishers(options);
    auto publisher = bound(*host, "tcp://127.0.0.1:*", Incarnation(100));
    const auto endpoint = publisher->endpoint();
    Worker worker;
    worker.set(publisher);
    SubscriberHostOptions so;
    so.receive_high_water_mark = 2;
    auto subscribers = *start_subscribers(so, 1);
    auto mirror = std::make_shared<Mirror>();
    auto subscription =
        *subscribers->follow_kv(endpoint, Incarnation(100), 1, worker.fetcher(), mirror);
    for (std::uint64_t life = 0; life < 4; ++life) {
        if (life > 0) {
            worker.set(nullptr);
            publisher.reset();
            publisher = bound(*host, endpoint.address, Incarnation(100 + life));
            worker.set(publisher);
        }
        KvMirror wanted;
        for (std::uint64_t i = 1; i <= 3000; ++i) {
            KvEvent e = stored(i, rng(), 1 + rng() % 40);
            wanted.apply(e);
            publisher->publish_kv(0, {std::move(e)});
        }
        ASSERT_TRUE(eventually([&] { return mirror->is(wanted); })) << "life " << life;
    }
    EXPECT_GT(subscription->stats().gaps + subscription->stats().snapshots, 0U);
    EXPECT_EQ(subscription->stats().rejected, 0U);
}

TEST(Events, SilenceIsToldAndEnds) {
    auto host = *start_publishers(quick());
    auto publisher = bound(*host, "tcp://127.0.0.1:*", Incarnation(1));
    const auto endpoint = publisher->endpoint();
    SubscriberHostOptions so;
    so.silent_after = 300ms;
    auto subscribers = *start_subscribers(so, 1);
    auto mirror = std::make_shared<Mirror>();
    Worker worker;
    auto subscription =
        *subscribers->follow_kv(endpoint, Incarnation(1), 1, worker.fetcher(), mirror);
    ASSERT_TRUE(eventually([&] { return mirror->live(); }));
    publisher.reset();
    EXPECT_TRUE(eventually([&] { return !mirror->live(); }));
    publisher = bound(*host, endpoint.address, Incarnation(1));
    EXPECT_TRUE(eventually([&] { return mirror->live(); }));
}

/// Whether a subscriber with these keys gets to see the publisher's state.
bool can_follow(const protocol::EventEndpoint& endpoint, CurveKeys own,
                std::chrono::milliseconds most) {
    SubscriberHostOptions so;
    so.curve = std::move(own);
    auto subscribers = *start_subscribers(so, 1);
    auto mirror = std::make_shared<Mirror>();
    Worker worker;
    auto subscription =
        *subscribers->follow_kv(endpoint, Incarnation(1), 1, worker.fetcher(), mirror);
    return eventually([&] { return mirror->live(); }, most);
}

TEST(Events, CurveLetsInWhoHasTheKeyAndIsOnTheList) {
    const CurveKeys listed = make_curve_keys();
    const CurveKeys unlisted = make_curve_keys();
    auto options = quick();
    options.curve = make_curve_keys();
    options.allowed_clients = {listed.public_key};
    auto host = *start_publishers(options);
    auto publisher = bound(*host, "tcp://127.0.0.1:*", Incarnation(1));
    auto endpoint = publisher->endpoint();
    EXPECT_EQ(endpoint.curve_public_key, options.curve.public_key);
    EXPECT_TRUE(can_follow(endpoint, listed, 8s));
    EXPECT_FALSE(can_follow(endpoint, unlisted, 400ms)) << "not on the list";
    auto wrong = endpoint;
    wrong.curve_public_key = make_curve_keys().public_key;
    EXPECT_FALSE(can_follow(wrong, listed, 400ms)) << "another publisher's key";
    wrong.curve_public_key.clear();
    EXPECT_FALSE(can_follow(wrong, {}, 400ms)) << "no encryption at all";
    EXPECT_TRUE(can_follow(endpoint, listed, 8s)) << "the refused ones did no harm";
}

TEST(Events, CurveWithoutAListLetsInWhoKnowsThePublishersKey) {
    auto options = quick();
    options.curve = make_curve_keys();
    auto host = *start_publishers(options);
    auto publisher = bound(*host, "tcp://127.0.0.1:*", Incarnation(1));
    EXPECT_TRUE(can_follow(publisher->endpoint(), {}, 8s));
}

TEST(Events, GarbageIsRejectedAndCounted) {
    void* context = zmq_ctx_new();
    void* socket = zmq_socket(context, ZMQ_PUB);
    ASSERT_EQ(zmq_bind(socket, "tcp://127.0.0.1:*"), 0);
    char address[128];
    std::size_t size = sizeof(address);
    zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, address, &size);
    auto subscribers = *start_subscribers({}, 1);
    auto mirror = std::make_shared<Mirror>();
    Worker worker;
    auto subscription =
        *subscribers->follow_kv({address, ""}, Incarnation(1), 1, worker.fetcher(), mirror);
    std::mt19937_64 rng(1);
    EXPECT_TRUE(eventually([&] {
        std::string garbage("kv\0", 3);
        for (std::size_t n = rng() % 60; n > 0; --n) garbage += static_cast<char>(rng());
        zmq_send(socket, garbage.data(), garbage.size(), rng() % 4 == 0 ? ZMQ_SNDMORE : 0);
        return subscription->stats().rejected > 200;
    }));
    EXPECT_FALSE(mirror->live());
    int linger = 0;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_close(socket);
    zmq_ctx_term(context);
}

TEST(Events, ListenSeesOtherTopics) {
    auto host = *start_publishers(quick());
    auto publisher = bound(*host, "tcp://127.0.0.1:*", Incarnation(3));
    auto subscribers = *start_subscribers({}, 1);
    std::atomic<int> load = 0;
    std::atomic<int> beats = 0;
    auto subscription =
        *subscribers->listen(publisher->endpoint(), {"load"}, [&](const Message& m) {
            EXPECT_EQ(m.topic, "load");
            EXPECT_EQ(m.incarnation, Incarnation(3));
            (m.heartbeat ? beats : load) += 1;
        });
    EXPECT_TRUE(eventually([&] {
        publisher->publish("load", 0, "\x80");
        publisher->publish("lifecycle", 0, "\x80");
        return load > 3;
    }));
    EXPECT_TRUE(eventually([&] { return beats > 1; }));
}

TEST(Events, AFullQueueHoldsUpKvAndDropsTheRest) {
    auto options = quick();
    options.max_queued_batches = 1;
    auto host = *start_publishers(options);
    auto publisher = bound(*host, "tcp://127.0.0.1:*", Incarnation(1));
    EXPECT_TRUE(eventually([&] {
        for (int i = 0; i < 1000; ++i) publisher->publish("load", 0, "\x80");
        return publisher->dropped() > 0;
    }));
    for (std::uint64_t i = 1; i <= 2000; ++i) publisher->publish_kv(0, {stored(i, i * 1000)});
    EXPECT_TRUE(eventually([&] { return publisher->range("kv", 0, 1, 2000).has_value(); }));
}

TEST(Events, RefusalsSayWhy) {
    auto host = *start_publishers(quick());
    const auto bad = host->bind("tcp://nowhere:x", Incarnation(1), 1);
    ASSERT_FALSE(bad);
    EXPECT_NE(bad.error().message.find("tcp://nowhere:x"), std::string::npos);
    const auto many = start_subscribers({}, 64'000);
    if (!many) {
        EXPECT_EQ(many.error().code, ErrorCode::kExhausted);
        EXPECT_NE(many.error().message.find("open files"), std::string::npos);
    }
    EXPECT_FALSE(start_subscribers({}, 70'000));
    PublisherHostOptions keyless;
    keyless.allowed_clients = {"x"};
    EXPECT_FALSE(start_publishers(keyless));
}

}  // namespace
}  // namespace stator::events
