#include "stator/worker/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <future>
#include <set>
#include <thread>

#include "stator/engine/echo/echo_engine.h"
#include "stator/events/payloads.h"
#include "stator/events/subscriber.h"
#include "stator/requests/link.h"
#include "stator/worker/fake_engine.h"
#include "stator/worker/fake_transfer.h"
#include "stator/worker/recording_client.h"

namespace stator::worker {
namespace {

using namespace std::chrono_literals;
using protocol::FinishReason;
using requests::StreamId;

TimePoint now() { return Clock::real().now(); }

/// A client process with one link: its own loop, so that it can be made to hang without others.
class Client final : public RecordingClient {
  public:
    explicit Client(const net::SocketAddress& address, std::uint32_t credit = 4096) {
        loop_.start();
        requests::LinkOptions options;
        options.address = address;
        options.link.name = "frontend";
        options.link.credit_tokens = credit;
        on_loop([&] { link_ = requests::connect_link(loop_, options, *this); });
    }
    ~Client() override {
        leave();
        loop_.stop();
    }

    /// Returns when the link's sockets are gone: they hold it until then.
    void leave() {
        std::weak_ptr<requests::Link> gone;
        on_loop([&] {
            gone = link_;
            if (link_) link_->close();
            link_.reset();
        });
        for (int i = 0; i < 500 && !gone.expired(); ++i) std::this_thread::sleep_for(10ms);
        EXPECT_TRUE(gone.expired());
    }
    [[nodiscard]] bool ready() {
        return wait_info([](const auto& info) { return !info.loading; });
    }
    StreamId open(std::vector<protocol::TokenId> prompt, std::uint32_t max_tokens,
                  const std::function<void(protocol::GenerateRequest&)>& change = {},
                  std::uint32_t rank = 0) {
        return open_many(1, std::move(prompt), max_tokens, change, rank).front();
    }
    /// All of them in one turn of the loop, and so in one write.
    std::vector<StreamId> open_many(
        std::size_t count, std::vector<protocol::TokenId> prompt, std::uint32_t max_tokens,
        const std::function<void(protocol::GenerateRequest&)>& change = {},
        std::uint32_t rank = 0) {
        auto request = std::make_shared<protocol::GenerateRequest>();
        request->prompt = std::move(prompt);
        request->max_tokens = max_tokens;
        if (change) change(*request);
        std::vector<StreamId> ids(count);
        on_loop([&] {
            for (StreamId& id : ids) {
                auto opened = link_->open(request, rank, ++booking_);
                ASSERT_TRUE(opened) << opened.error().message;
                id = *opened;
            }
        });
        return ids;
    }
    void cancel(StreamId stream) {
        on_loop([&] { link_->cancel(stream); });
    }
    Result<std::string> fetch(const requests::Fetch& what) {
        std::uint64_t id = 0;
        on_loop([&] { id = link_->fetch(what).value(); });
        if (!wait([&](const Seen& s) { return s.fetched.contains(id) || s.lost; })) {
            return error(ErrorCode::kDeadlineExceeded, "no answer");
        }
        const auto all = seen();
        if (all.lost) return tl::unexpected(*all.lost);
        return all.fetched.at(id);
    }
    /// The loop's thread stands still, so nothing is read, until `until` is ready.
    void hang(std::shared_future<void> until) {
        loop_.post([until] { until.wait(); });
    }

  private:
    void on_loop(const std::function<void()>& f) {
        std::promise<void> done;
        loop_.post([&] {
            f();
            done.set_value();
        });
        done.get_future().wait();
    }

    runtime::Loop loop_{"client"};
    std::shared_ptr<requests::Link> link_;
    std::uint64_t booking_ = 0;
};

/// A worker with echo engines on loopback.
class WorkerTest : public testing::Test {
  protected:
    void SetUp() override {
        folder = std::filesystem::temp_directory_path() /
                 ("stator_worker_test." + std::to_string(getpid()));
        std::filesystem::remove_all(folder);
        loops.start();
        options.name = "worker-1";
        options.listen.host = "127.0.0.1";
        options.announce_folder = folder / "announced";
        options.load_every = 5ms;
        options.labels = {{"zone", "a"}};
    }
    void TearDown() override {
        if (worker) {
            worker->stop();
            EXPECT_EQ(metric("stator_worker_links_open"), 0.0);
            EXPECT_EQ(metric("stator_worker_requests_open"), 0.0);
        }
        worker.reset();
        for (auto& engine : engines) engine->stop(Deadline::at({}));
        loops.stop();
        std::filesystem::remove_all(folder);
    }

    static protocol::ModelCard card() {
        protocol::ModelCard c;
        c.name = "echo";
        c.weights_digest = "sha256-sample:" + std::string(64, '0');
        c.tokenizer = {"byte-tokenizer", std::string(64, 'a'), 1};
        c.context_tokens = 131'072;
        return c;
    }
    void start() {
        auto started = start_worker(options, card(), loops, registry);
        ASSERT_TRUE(started) << started.error().message;
        worker = std::move(*started);
    }
    void make_ready(const engine::EchoOptions& echo, ArtifactStore artifacts = {}) {
        std::vector<engine::Engine*> all;
        for (std::uint32_t rank = 0; rank < options.ranks; ++rank) {
            engines.push_back(engine::make_echo_engine(echo));
            all.push_back(engines.back().get());
        }
        worker->set_ready(card(), std::move(artifacts), all);
    }
    void start_ready(const engine::EchoOptions& echo) {
        start();
        make_ready(echo);
    }
    bool engines_are_empty() {
        // The engine's thread takes a cancellation in with its next step.
        for (int i = 0; i < 1000; ++i) {
            std::uint32_t left = 0;
            for (auto& e : engines) left += e->load().running + e->load().waiting;
            if (left == 0) return true;
            std::this_thread::sleep_for(10ms);
        }
        return false;
    }
    /// The sum over all label sets.
    double metric(const std::string& name) {
        std::istringstream text(registry.render());
        double sum = 0;
        for (std::string line; std::getline(text, line);) {
            if (line.starts_with(name + " ") || line.starts_with(name + "{")) {
                sum += std::stod(line.substr(line.rfind(' ')));
            }
        }
        return sum;
    }

    std::filesystem::path folder;
    metrics::Registry registry;
    runtime::LoopPool loops{2, "worker"};
    WorkerOptions options;
    std::vector<std::unique_ptr<engine::Engine>> engines;
    std::unique_ptr<Worker> worker;
};

TEST_F(WorkerTest, AClientSeesLoadingReadyAndDraining) {
    options.ranks = 2;
    start();
    Client client(worker->address());
    ASSERT_TRUE(client.wait_info([](const auto& i) { return i.loading; }));
    worker->set_loading(1234);
    ASSERT_TRUE(client.wait_info([](const auto& i) { return i.ready_in_ms == 1234; }));
    const auto early = client.open({1}, 1);
    ASSERT_TRUE(client.wait_end(early));
    EXPECT_EQ(client.stream(early).end->error->code, ErrorCode::kUnavailable);

    make_ready({.max_running = 7});
    ASSERT_TRUE(client.ready());
    const auto info = client.seen().infos.back();
    EXPECT_EQ(info.name, "worker-1");
    EXPECT_EQ(info.engine, "echo");
    EXPECT_NE(info.incarnation.value, 0U);
    EXPECT_EQ(info.labels.at("zone"), "a");
    ASSERT_EQ(info.ranks.size(), 2U);
    EXPECT_EQ(info.ranks[1].max_running, 7U);
    EXPECT_EQ(info, worker->info());

    EXPECT_TRUE(std::filesystem::exists(folder / "announced" / "worker-1.worker"));
    worker->drain(Deadline::after(now(), 10s));
    EXPECT_FALSE(std::filesystem::exists(folder / "announced" / "worker-1.worker"));
    ASSERT_TRUE(client.wait_info([](const auto& i) { return i.draining; }));
    ASSERT_TRUE(client.wait([](const auto& s) { return !s.go_aways.empty(); }));
    Client late(worker->address());
    ASSERT_TRUE(late.wait_info([](const auto& i) { return i.draining; }));
    const auto refused = late.open({1}, 1);
    ASSERT_TRUE(late.wait_end(refused));
    EXPECT_EQ(late.stream(refused).end->error->code, ErrorCode::kUnavailable);
    EXPECT_TRUE(late.stream(refused).end->error->retryable);
}

TEST_F(WorkerTest, TwoClientsAndTwoRanksGetTheirOwnTokens) {
    options.ranks = 2;
    start_ready({.max_running = 64, .max_waiting = 1000});
    Client a(worker->address());
    Client b(worker->address());
    ASSERT_TRUE(a.ready());
    ASSERT_TRUE(b.ready());
    std::vector<std::pair<Client*, StreamId>> streams;
    for (std::uint32_t i = 0; i < 200; ++i) {
        Client* client = i % 2 == 0 ? &a : &b;
        streams.emplace_back(client, client->open({i, i + 1, i + 2}, 1 + i, {}, i / 2 % 2));
    }
    std::uint64_t tokens = 0;
    for (std::uint32_t i = 0; i < 200; ++i) {
        const auto [client, id] = streams[i];
        ASSERT_TRUE(client->wait_end(id)) << i;
        const auto stream = client->stream(id);
        EXPECT_EQ(stream.ends, 1);
        EXPECT_EQ(stream.end->finish, FinishReason::kLength);
        ASSERT_EQ(stream.tokens.size(), 1 + i);
        for (std::uint32_t k = 0; k <= i; ++k) EXPECT_EQ(stream.tokens[k], i + k % 3);
        tokens += stream.tokens.size();
    }
    EXPECT_GT(engines[0]->forward_pass_metrics().decode_tokens, 0U);
    EXPECT_GT(engines[1]->forward_pass_metrics().decode_tokens, 0U);
    EXPECT_EQ(metric("stator_worker_requests_accepted_total"), 200.0);
    EXPECT_EQ(metric("stator_worker_tokens_sent_total"), static_cast<double>(tokens));
}

TEST_F(WorkerTest, CancelAndDeadlineReachTheEngine) {
    start_ready({.step = 1ms});
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    const auto cancelled = client.open({1}, 100'000);
    const auto expiring =
        client.open({2}, 100'000, [](auto& r) { r.deadline = Deadline::after(now(), 50ms); });
    ASSERT_TRUE(client.wait_tokens(cancelled, 3));
    client.cancel(cancelled);
    ASSERT_TRUE(client.wait_end(expiring));
    EXPECT_EQ(client.stream(expiring).end->finish, FinishReason::kCancelled);
    EXPECT_EQ(client.stream(cancelled).ends, 0);
    EXPECT_TRUE(engines_are_empty());
}

TEST_F(WorkerTest, AFullEngineRefusesWithItsLoad) {
    start_ready({.max_running = 1, .max_waiting = 1, .step = 1h});
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    const auto runs = client.open({1}, 2);
    const auto waits = client.open({1}, 2);
    const auto refused = client.open({1}, 2);
    ASSERT_TRUE(client.wait_end(refused));
    const auto seen = client.seen();
    EXPECT_EQ(seen.streams.at(refused.value).end->error->code, ErrorCode::kOverloaded);
    EXPECT_GT(seen.streams.at(refused.value).end->error->retry_after_ms, 0U);
    ASSERT_FALSE(seen.loads.empty());
    EXPECT_EQ(seen.loads.back().load.running + seen.loads.back().load.waiting, 2U);
    EXPECT_EQ(seen.loads.back().booking, 3U);
    EXPECT_FALSE(seen.streams.contains(runs.value));
    EXPECT_FALSE(seen.streams.contains(waits.value));
}

TEST_F(WorkerTest, ADrainLetsOpenRequestsEnd) {
    start_ready({.max_running = 32, .step = 2ms});
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    std::vector<StreamId> ids;
    for (std::uint32_t i = 0; i < 20; ++i) ids.push_back(client.open({i}, 60));
    ASSERT_TRUE(client.wait_tokens(ids.back(), 1));
    worker->drain(Deadline::after(now(), 30s));
    EXPECT_EQ(engines[0]->load().running, 0U);
    worker->stop();
    for (const StreamId id : ids) {
        ASSERT_TRUE(client.wait_end(id));
        EXPECT_EQ(client.stream(id).tokens.size(), 60U);
        EXPECT_EQ(client.stream(id).end->finish, FinishReason::kLength);
    }
}

TEST_F(WorkerTest, ADrainsDeadlineEndsTheRestSoThatItCanGoOnElsewhere) {
    start_ready({.step = 1ms});
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    const auto id = client.open({1}, 100'000);
    ASSERT_TRUE(client.wait_tokens(id, 1));
    worker->drain(Deadline::after(now(), 50ms));
    worker->stop();
    ASSERT_TRUE(client.wait_end(id));
    const auto stream = client.stream(id);
    ASSERT_TRUE(stream.end->error);
    EXPECT_EQ(stream.end->error->code, ErrorCode::kUnavailable);
    EXPECT_TRUE(stream.end->error->retryable);
    EXPECT_TRUE(engines_are_empty());
}

TEST_F(WorkerTest, OneThatVanishesSaysNothing) {
    options.events_address = "tcp://127.0.0.1:*";
    start_ready({.step = 1ms});
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    const auto id = client.open({1}, 100'000);
    ASSERT_TRUE(client.wait_tokens(id, 1));
    worker->vanish();
    ASSERT_TRUE(client.wait([](const auto& s) { return s.lost.has_value(); }));
    EXPECT_TRUE(client.seen().go_aways.empty());
    EXPECT_FALSE(client.seen().infos.back().draining);
    EXPECT_TRUE(std::filesystem::exists(folder / "announced" / "worker-1.worker"));
    EXPECT_TRUE(engines_are_empty());
    Client late(worker->address());
    ASSERT_TRUE(late.wait([](const auto& s) { return s.lost.has_value(); }));
    EXPECT_TRUE(late.seen().infos.empty());
    worker->drain(Deadline::after(now(), 10s));
    worker->stop();
    EXPECT_FALSE(std::filesystem::exists(folder / "announced" / "worker-1.worker"));
}

TEST_F(WorkerTest, AClientThatStopsReadingIsLostAndOthersGoOn) {
    options.session.max_unsent_bytes = 256 * 1024;
    start_ready({.max_running = 64, .step = 1ms, .tokens_per_step = 10});
    Client slow(worker->address(), 100'000'000);
    Client other(worker->address());
    ASSERT_TRUE(slow.ready());
    ASSERT_TRUE(other.ready());
    std::promise<void> go_on;
    slow.open_many(16, {1}, 120'000, [](auto& r) { r.top_logprobs = 20; });
    // In a later turn: this one has still to send.
    ASSERT_TRUE(slow.wait([](const auto& seen) { return !seen.streams.empty(); }));
    slow.hang(go_on.get_future().share());
    // 16 streams of 120,000 tokens with 20 alternatives each would be over 300 MB.
    EXPECT_TRUE(engines_are_empty());
    const auto id = other.open({5, 6}, 10);
    EXPECT_TRUE(other.wait_end(id));
    EXPECT_EQ(other.stream(id).tokens.size(), 10U);
    EXPECT_EQ(metric("stator_worker_links_lost_total{reason=\"exhausted\"}"), 1.0)
        << registry.render();
    EXPECT_LT(metric("stator_worker_tokens_sent_total"), 16 * 120'000.0);
    go_on.set_value();
    EXPECT_TRUE(slow.wait([](const auto& s) { return s.lost.has_value(); }));
}

TEST_F(WorkerTest, AThousandOpensAndADisconnectLeaveNothing) {
    start_ready({.max_running = 16, .max_waiting = 2000, .step = 1ms});
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    client.open_many(1000, {1, 2, 3}, 100'000);
    ASSERT_TRUE(client.wait([](const auto& s) { return !s.streams.empty(); }));
    client.leave();
    EXPECT_TRUE(engines_are_empty());
    const auto load = engines[0]->load();
    EXPECT_EQ(load.waiting_tokens + load.kv_used_tokens, 0U);
}

TEST_F(WorkerTest, ALargeArtifactComesWhileTokensFlow) {
    ArtifactStore artifacts;
    std::string bytes(5'000'000, 'x');
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 + i / 253);
    const auto artifact = artifacts.add("gguf-vocabulary", bytes);
    start();
    make_ready({.step = 1ms}, std::move(artifacts));
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    const auto id = client.open({1, 2, 3, 4, 5}, 400);
    ASSERT_TRUE(client.wait_tokens(id, 1));
    requests::Fetch fetch;
    fetch.sha256 = artifact.sha256;
    const auto body = client.fetch(fetch);
    ASSERT_TRUE(body) << body.error().message;
    EXPECT_TRUE(*body == bytes);
    ASSERT_TRUE(client.wait_end(id));
    const auto tokens = client.stream(id).tokens;
    ASSERT_EQ(tokens.size(), 400U);
    for (std::uint32_t i = 0; i < 400; ++i) EXPECT_EQ(tokens[i], 1 + i % 5);
    fetch.sha256 = std::string(64, '0');
    EXPECT_EQ(client.fetch(fetch).error().code, ErrorCode::kNotFound);
}

TEST_F(WorkerTest, AnIdleClientHearsOfTheLoadThatOthersMake) {
    start_ready({.step = 1ms});
    Client busy(worker->address());
    Client idle(worker->address());
    ASSERT_TRUE(busy.ready());
    ASSERT_TRUE(idle.ready());
    const auto id = busy.open({1}, 100'000);
    ASSERT_TRUE(idle.wait([](const auto& s) {
        return !s.loads.empty() && s.loads.back().load.running == 1 && s.loads.back().steps > 0;
    }));
    busy.cancel(id);
    ASSERT_TRUE(idle.wait([](const auto& s) { return s.loads.back().load.running == 0; }));
}

TEST_F(WorkerTest, AtRestNobodyLooksAtTheLoad) {
    options.load_every = 1ms;
    start_ready({.step = 1ms});
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    ASSERT_TRUE(client.wait_end(client.open({1}, 50)));
    EXPECT_GT(metric("stator_worker_load_looks_total"), 1.0);
    bool at_rest = false;
    for (int i = 0; i < 200 && !at_rest; ++i) {
        const double before = metric("stator_worker_load_looks_total");
        std::this_thread::sleep_for(50ms);
        at_rest = metric("stator_worker_load_looks_total") == before;
    }
    EXPECT_TRUE(at_rest);
    const double before = metric("stator_worker_load_looks_total");
    ASSERT_TRUE(client.wait_end(client.open({1}, 50)));
    EXPECT_GT(metric("stator_worker_load_looks_total"), before) << "woken by the next request";
}

/// What a subscriber knows of one rank.
class Blocks final : public events::KvReceiver {
  public:
    void apply(std::uint32_t, const protocol::KvEvent& event) override {
        const std::scoped_lock lock(mutex_);
        if (const auto* stored = std::get_if<protocol::KvStored>(&event.what)) {
            for (const auto& b : stored->blocks) blocks_.insert(b.sequence.value);
        }
        if (const auto* removed = std::get_if<protocol::KvRemoved>(&event.what)) {
            for (const auto hash : removed->sequences) blocks_.erase(hash.value);
        }
        changed_.notify_all();
    }
    void reset(std::uint32_t) override {
        const std::scoped_lock lock(mutex_);
        blocks_.clear();
    }
    void live(std::uint32_t, bool, std::uint64_t) override {}
    [[nodiscard]] bool wait_for(const std::set<std::uint64_t>& blocks) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, 10s, [&] { return blocks_ == blocks; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::set<std::uint64_t> blocks_;
};

protocol::KvEvent stored(std::uint64_t seq, std::uint64_t block) {
    protocol::KvStored s;
    s.blocks.push_back({.block = tokens::BlockHash(block),
                        .sequence = tokens::SequenceHash(block),
                        .tokens = {1, 2, 3, 4}});
    return {protocol::EventSeq(seq), std::move(s)};
}

TEST_F(WorkerTest, KvEventsReachASubscriberAndCanBeFetched) {
    options.events_address = "tcp://127.0.0.1:*";
    start();
    const auto sink = worker->kv_sink(0);
    make_ready({});
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    const auto info = client.seen().infos.back();
    ASSERT_TRUE(info.events);
    for (std::uint64_t i = 1; i <= 5; ++i) sink({stored(i, 100 + i)});

    requests::Fetch range;
    range.kind = requests::Fetch::Kind::kEventRange;
    range.topic = "kv";
    range.from = 1;
    range.to = 5;
    const auto batches = client.fetch(range);
    EXPECT_TRUE(batches) << batches.error().message;
    range.rank = 9;
    EXPECT_EQ(client.fetch(range).error().code, ErrorCode::kInvalidArgument);

    // A late joiner: what came before only the snapshot over the link can tell.
    auto host = events::start_subscribers({}, 1);
    ASSERT_TRUE(host) << host.error().message;
    std::atomic<int> snapshots{0};
    const auto blocks = std::make_shared<Blocks>();
    auto subscription = (*host)->follow_kv(
        *info.events, info.incarnation, 1,
        [&](bool snapshot, std::string topic, std::uint32_t rank, std::uint64_t from,
            std::uint64_t to, const std::function<void(Result<std::string>)>& done) {
            requests::Fetch fetch;
            fetch.kind =
                snapshot ? requests::Fetch::Kind::kSnapshot : requests::Fetch::Kind::kEventRange;
            fetch.topic = std::move(topic);
            fetch.rank = rank;
            fetch.from = from;
            fetch.to = to;
            if (snapshot) ++snapshots;
            done(client.fetch(fetch));
        },
        blocks);
    ASSERT_TRUE(subscription) << subscription.error().message;
    // Heard by the subscriber, it tells that there is something to catch up with.
    sink({stored(6, 106)});
    EXPECT_TRUE(blocks->wait_for({101, 102, 103, 104, 105, 106}));
    EXPECT_GE(snapshots, 1);
    EXPECT_EQ(metric("stator_worker_events_published_total{topic=\"kv\"}"), 6.0);
    subscription->reset();
    worker->stop();
    sink({stored(7, 107)});
    EXPECT_EQ(metric("stator_worker_events_dropped_total"), 1.0);
}

TEST_F(WorkerTest, SeveralShareTheirServices) {
    auto services = start_worker_services(events::PublisherHostOptions{});
    ASSERT_TRUE(services) << services.error().message;
    options.services = *services;
    options.events_address = "tcp://127.0.0.1:*";
    start_ready({.max_running = 4});
    WorkerOptions second = options;
    second.name = "worker-2";
    auto other = start_worker(second, card(), loops, registry);
    ASSERT_TRUE(other) << other.error().message;
    const auto a = worker->info().events;
    const auto b = (*other)->info().events;
    ASSERT_TRUE(a && b);
    EXPECT_NE(a->address, b->address);
    (*other)->stop();
    // What one lets go of the other still has.
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    worker->kv_sink(0)({stored(1, 101)});
    requests::Fetch snapshot;
    snapshot.kind = requests::Fetch::Kind::kSnapshot;
    snapshot.topic = "kv";
    const auto state = client.fetch(snapshot);
    EXPECT_TRUE(state) << state.error().message;
    worker->stop();
    services->fetches->stop();
}

TEST_F(WorkerTest, LoadAndLifecycleArePublished) {
    options.events_address = "ipc://" + (folder / "events").string();
    std::filesystem::create_directories(folder);
    start();
    auto host = events::start_subscribers({}, 1);
    ASSERT_TRUE(host);
    std::mutex mutex;
    std::condition_variable changed;
    std::map<std::string, std::string> last;
    std::string states;
    auto subscription = (*host)->listen(*worker->info().events, {"load", "lifecycle"},
                                        [&](const events::Message& m) {
                                            const std::scoped_lock lock(mutex);
                                            if (m.heartbeat) return;
                                            last[std::string(m.topic)] = m.payload;
                                            if (m.topic == "lifecycle")
                                                states += std::string(m.payload);
                                            changed.notify_all();
                                        });
    ASSERT_TRUE(subscription);
    make_ready({.step = 1ms});
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    client.open({1}, 100'000);
    const auto wait = [&](const std::function<bool()>& what) {
        std::unique_lock lock(mutex);
        return changed.wait_for(lock, 10s, what);
    };
    EXPECT_TRUE(wait([&] {
        const auto load = events::decode_load(last["load"]);
        return load && load->forward.steps > 0 && load->load.running == 1;
    }));
    worker->drain(Deadline::at(now()));
    EXPECT_TRUE(wait([&] { return states.find("draining") != std::string::npos; }));
}

/// An engine that leaves KV after prefill legs, and goes on from KV that is there.
void hand_off(FakeTransfer& plane, FakeEngine::Submitted& s) {
    const auto& q = s.request;
    if (q.leg != protocol::Leg::kPrefill) return FakeEngine::end(s, FinishReason::kLength);
    protocol::Handoff h;
    h.layout = "fake:kv";
    h.tokens = static_cast<std::uint32_t>(q.prompt.size() - 1);
    h.content = protocol::kv_content(std::span(q.prompt).first(h.tokens), q.cache_salt);
    const auto published = plane.publish(plane.reserve(64).value(), h);
    FakeEngine::end(s, FinishReason::kHandoff, published.value());
}

TEST_F(WorkerTest, APrefillLegsHandoffIsADecodeLegsBeginning) {
    const auto plane = std::make_shared<FakeTransfer>();
    plane->at_once = true;
    options.transfer = plane;
    options.roles = {protocol::Role::kPrefill};
    start();
    WorkerOptions second = options;
    second.name = "worker-2";
    second.roles = {protocol::Role::kDecode};
    auto decodes = start_worker(second, card(), loops, registry);
    ASSERT_TRUE(decodes) << decodes.error().message;
    FakeEngine prefill_engine;
    FakeEngine decode_engine;
    for (FakeEngine* engine : {&prefill_engine, &decode_engine}) {
        engine->on_submit = [&](FakeEngine::Submitted& s) { hand_off(*plane, s); };
    }
    auto c = card();
    c.kv_layout = "fake:kv";
    worker->set_ready(c, {}, {&prefill_engine});
    (*decodes)->set_ready(c, {}, {&decode_engine});
    {
        Client a(worker->address());
        Client b((*decodes)->address());
        ASSERT_TRUE(a.ready());
        ASSERT_TRUE(b.ready());
        EXPECT_EQ(a.seen().infos.back().transfer_methods, std::vector<std::string>{"fake"});
        std::vector<protocol::TokenId> prompt(20'000);
        for (std::uint32_t i = 0; i < prompt.size(); ++i) prompt[i] = i;
        const auto first = a.open(prompt, 4, [](auto& q) { q.leg = protocol::Leg::kPrefill; });
        ASSERT_TRUE(a.wait_end(first));
        const auto end = a.stream(first).end;
        ASSERT_EQ(end->finish, FinishReason::kHandoff);
        const auto whole = b.open(prompt, 4);
        ASSERT_TRUE(b.wait_end(whole));
        const auto rest = b.open(prompt, 4, [&](auto& q) {
            q.leg = protocol::Leg::kDecode;
            q.handoff = end->handoff;
        });
        ASSERT_TRUE(b.wait_end(rest));
        EXPECT_EQ(b.stream(rest).tokens.size(), 1U);
        const auto submitted = decode_engine.last();
        ASSERT_TRUE(submitted.request.kv);
        EXPECT_EQ(submitted.request.kv->what->id, end->handoff->id);
        const auto refused = a.open(prompt, 4);
        ASSERT_TRUE(a.wait_end(refused));
        EXPECT_EQ(a.stream(refused).end->error->param, "leg");
    }
    (*decodes)->stop();
    worker->stop();
    // The link that the handoff came by is gone; it was claimed, so that this does nothing.
    EXPECT_EQ(plane->released().size(), 1U);
}

/// Makes it a decode leg, from KV that some other worker holds.
void decode_leg(protocol::GenerateRequest& q) {
    q.leg = protocol::Leg::kDecode;
    auto h = std::make_shared<protocol::Handoff>();
    h->layout = "fake:kv";
    h->tokens = 2;
    h->content = protocol::kv_content(std::span(q.prompt).first(2), 0);
    q.handoff = h;
}

TEST_F(WorkerTest, ADrainWaitsForWhatIsArriving) {
    const auto plane = std::make_shared<FakeTransfer>();
    options.transfer = plane;
    options.claim_within = 3s;
    start();
    FakeEngine engine;
    engine.on_submit = [&](FakeEngine::Submitted& s) { hand_off(*plane, s); };
    auto c = card();
    c.kv_layout = "fake:kv";
    worker->set_ready(c, {}, {&engine});
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    const auto id = client.open({1, 2, 3}, 4, decode_leg);
    ASSERT_TRUE(plane->wait_open(1));
    std::thread drain([&] { worker->drain(Deadline::after(now(), 30s)); });
    EXPECT_TRUE(client.wait([](const auto& s) { return !s.go_aways.empty(); }));
    plane->succeed();
    drain.join();
    ASSERT_TRUE(client.wait_end(id));
    EXPECT_EQ(client.stream(id).end->finish, FinishReason::kLength);
    worker->stop();
}

TEST_F(WorkerTest, ARankThatDrainsForTooLongTakesItsClaimsBack) {
    const auto plane = std::make_shared<FakeTransfer>();
    options.transfer = plane;
    start();
    FakeEngine engine;
    auto c = card();
    c.kv_layout = "fake:kv";
    worker->set_ready(c, {}, {&engine});
    Client client(worker->address());
    ASSERT_TRUE(client.ready());
    const auto id = client.open({1, 2, 3}, 4, decode_leg);
    ASSERT_TRUE(plane->wait_open(1));
    worker->drain(Deadline::after(now(), 20ms));
    EXPECT_TRUE(plane->wait_open(0));
    ASSERT_TRUE(client.wait_end(id));
    EXPECT_EQ(client.stream(id).end->error->code, ErrorCode::kUnavailable);
    EXPECT_TRUE(client.stream(id).end->error->retryable);
    EXPECT_EQ(engine.submitted(), 0U);
    worker->stop();
}

TEST_F(WorkerTest, AnEngineThatMovesItsKvComputesPromptsWithoutATransferPlane) {
    options.roles = {protocol::Role::kPrefill};
    options.kv_method = "fake/own";
    start();
    EXPECT_EQ(worker->info().transfer_methods, std::vector<std::string>{"fake/own"});
    worker->stop();
}

TEST_F(WorkerTest, SaysWhatIsWrongWithItsOptions) {
    const auto wrong = [&](const std::function<void(WorkerOptions&)>& change) {
        WorkerOptions o = options;
        change(o);
        auto started = start_worker(o, card(), loops, registry);
        return started ? std::string() : started.error().message;
    };
    EXPECT_THAT(wrong([](auto& o) { o.name.clear(); }), testing::HasSubstr("name"));
    EXPECT_THAT(wrong([](auto& o) { o.ranks = 0; }), testing::HasSubstr("ranks"));
    EXPECT_THAT(wrong([](auto& o) { o.roles.clear(); }), testing::HasSubstr("role"));
    EXPECT_THAT(wrong([](auto& o) { o.roles.push_back(protocol::Role::kPrefill); }),
                testing::HasSubstr("transfer"));
    EXPECT_THAT(wrong([](auto& o) {
                    o.kv_method = "fake/own";
                    o.roles = {protocol::Role::kEncode};
                }),
                testing::HasSubstr("transfer"));
    EXPECT_THAT(wrong([](auto& o) { o.claim_within = 0ms; }), testing::HasSubstr("claim_within"));
    EXPECT_THAT(wrong([](auto& o) { o.events_address = "nonsense"; }),
                testing::HasSubstr("nonsense"));
    EXPECT_NE(wrong([](auto& o) { o.advertise = "no address"; }), "");
}

}  // namespace
}  // namespace stator::worker
