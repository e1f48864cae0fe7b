// What the request plane costs: a worker's side and a client's side of one link, each on its own
// thread, over TCP on loopback. Prints one JSON line per figure.
//
//   bench_request_plane [SECONDS per measurement, default 3]
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <thread>
#include <vector>

#include "stator/requests/link.h"
#include "stator/runtime/asio.h"

using namespace stator;
using namespace stator::requests;

namespace {

constexpr std::uint32_t kManyTokens = 0xFFFF'0000U;

std::int64_t now_ns() { return Clock::real().now().ns; }

protocol::WorkerInfo worker_info() {
    protocol::WorkerInfo info;
    info.name = "bench";
    info.roles = {protocol::Role::kAggregated};
    info.card.name = "bench";
    info.card.tokenizer.sha256 = std::string(64, 'a');
    info.ranks = {protocol::RankInfo{}};
    return info;
}

template <typename F>
auto on_loop(runtime::Loop& loop, F f) {
    std::promise<decltype(f())> result;
    loop.post([&] { result.set_value(f()); });
    return result.get_future().get();
}

/// Each side on a core of its own, as processes on two machines would be.
void pin_this_thread(int nth) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed) || nth-- > 0) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
        return;
    }
}

/// The worker's side: sends prepared steps, either as fast as the client takes them (at most
/// kAhead steps ahead of it) or at a period.
class Worker : public WorkerSessionEvents {
  public:
    static constexpr std::uint64_t kAhead = 16;
    explicit Worker(std::shared_ptr<ServerLink> l)
        : link(std::move(l)), timer_(runtime::asio_context(link->loop())) {}
    void on_ready(const Hello& /*client*/) override { link->session().send_info(worker_info()); }
    Result<void> on_open(StreamId stream, std::uint32_t /*rank*/, std::uint64_t /*booking*/,
                         protocol::GenerateRequest&& request) override {
        if (request.prompt.size() > 1000) {
            prompts += 1;
            return error(ErrorCode::kOverloaded, "thanks");
        }
        protocol::StepEvent e;
        e.id = protocol::RequestId(stream.value);
        e.first = static_cast<std::uint32_t>(batch.tokens.size());
        e.count = 1;
        batch.events.push_back(std::move(e));
        batch.tokens.push_back({.token = 100'000});
        streams += 1;
        return {};
    }
    void on_cancel(StreamId /*stream*/) override {}
    void on_fetch(std::uint64_t /*fetch*/, const Fetch& /*what*/) override {}
    void on_lane_unwanted(LaneId /*lane*/, const Error& /*why*/) override {}
    void on_lost(const Error& why) override {
        if (running) std::fprintf(stderr, "worker: %s\n", why.message.c_str());
        running = false;
    }

    void start(std::int64_t period_ns) {
        period = period_ns;
        running = true;
        next_ = now_ns();
        step();
    }
    void step() {
        if (!running) return;
        if (period == 0) {
            if (sent - received >= kAhead) {
                starved = true;
                if (sent - received >= kAhead) return;
                if (!starved.exchange(false)) return;
            }
            send(now_ns());
            link->loop().post([this] { step(); });
            return;
        }
        // From when it is due: a loop that is busy with other things is late, and that counts.
        send(next_);
        next_ += period;
        timer_.expires_after(std::chrono::nanoseconds(std::max<std::int64_t>(0, next_ - now_ns())));
        timer_.async_wait([this](const auto& ec) {
            if (!ec) step();
        });
    }
    void send(std::int64_t since) {
        sent_at[sent % sent_at.size()] = since;
        sent += 1;
        link->session().send_step(batch, Clock::real().now());
        link->flush();
    }

    std::shared_ptr<ServerLink> link;
    protocol::StepBatch batch;
    std::atomic<int> streams{0};
    std::atomic<int> prompts{0};
    std::atomic<std::uint64_t> sent{0}, received{0};
    std::atomic<bool> starved{false}, running{false};
    std::array<std::atomic<std::int64_t>, 4096> sent_at{};
    std::int64_t period = 0;

  private:
    boost::asio::steady_timer timer_;
    std::int64_t next_ = 0;
};

struct Client : ClientLinkEvents {
    void on_info(const protocol::WorkerInfo& /*info*/) override { ready = true; }
    void on_load(const LoadMessage& /*load*/) override {}
    void on_go_away(const GoAway& /*go_away*/) override {}
    void on_silent(bool /*silent*/) override {}
    void on_step(StreamId /*stream*/, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> got,
                 std::span<const protocol::TokenLogprob> /*top*/) override {
        if (event.finish) {
            refusals += 1;
            return;
        }
        tokens += got.size();
    }
    void on_turn_end() override {
        if (per_step == 0) return;
        while (tokens >= (steps + 1) * per_step) {
            if (measuring) {
                latencies.push_back(now_ns() -
                                    worker->sent_at[steps % worker->sent_at.size()].load());
            }
            steps += 1;
        }
        worker->received = steps;
        if (worker->starved.exchange(false)) {
            worker->link->loop().post([w = worker] { w->step(); });
        }
    }
    void on_fetched(std::uint64_t /*fetch*/, Result<std::string> /*body*/) override {}
    void on_lane_wanted(LaneId /*lane*/) override {}
    void on_lane_unwanted(LaneId /*lane*/) override {}
    void on_lost(const Error& why) override {
        std::fprintf(stderr, "client: %s\n", why.message.c_str());
        lost = true;
    }
    std::atomic<bool> ready{false}, lost{false}, measuring{false};
    std::atomic<int> refusals{0};
    Worker* worker = nullptr;
    std::size_t tokens = 0, steps = 0, per_step = 0;
    std::vector<std::int64_t> latencies;
};

struct Figures {
    double worker_ns = 0, client_ns = 0, worker_sends = 0, client_sends = 0, tokens_per_s = 0,
           busy = 0, p50_ms = 0, p99_ms = 0;
};

struct Bench {
    explicit Bench(int streams) : loops(1, "worker"), client_loop("client") {
        loops.start();
        client_loop.start();
        on_loop(loops.at(0), [] { return pin_this_thread(0), 0; });
        on_loop(client_loop, [] { return pin_this_thread(1), 0; });
        LinkServerOptions options;
        options.address = *net::parse_socket_address("127.0.0.1:0");
        server = std::move(listen_links(loops, options, [this](auto accepted) {
                               worker = std::make_shared<Worker>(std::move(accepted));
                               return worker;
                           }).value());
        LinkOptions own;
        own.address = server->address();
        link = on_loop(client_loop, [&] { return connect_link(client_loop, own, client); });
        wait([&] { return client.ready.load(); });
        client.worker = worker.get();
        for (int i = 0; i < streams; ++i) open(8, kManyTokens);
        wait([&] { return worker->streams == streams; });
        on_loop(client_loop, [&] { return client.per_step = static_cast<std::size_t>(streams); });
    }
    ~Bench() {
        worker->running = false;
        on_loop(client_loop, [&] { return link->close(), 0; });
        server->stop();
        client_loop.stop();
        loops.stop();
    }
    template <typename F>
    void wait(F f) {
        for (int i = 0; i < 20'000 && !f() && !client.lost; ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        if (!f()) {
            std::fputs("the benchmark does not get on\n", stderr);
            std::exit(1);
        }
    }
    void open(std::size_t prompt, std::uint32_t max) {
        auto q = std::make_shared<protocol::GenerateRequest>();
        q->prompt.assign(prompt, 7);
        q->max_tokens = max;
        on_loop(client_loop, [&] { return link->open(q, 0, 0).has_value(); });
    }
    struct Sample {
        double worker_cpu, client_cpu;
        std::uint64_t worker_sends, client_sends;
        std::size_t tokens;
        std::int64_t at;
    };
    Sample sample() {
        Sample s{};
        s.worker_cpu = on_loop(loops.at(0), [] { return thread_cpu_seconds(); });
        s.worker_sends = on_loop(loops.at(0), [&] { return worker->link->sends(); });
        s.client_cpu = on_loop(client_loop, [] { return thread_cpu_seconds(); });
        s.client_sends = on_loop(client_loop, [&] { return link->sends(); });
        s.tokens = on_loop(client_loop, [&] { return client.tokens; });
        s.at = now_ns();
        return s;
    }
    Figures measure(std::int64_t period_ns, double seconds, std::function<void()> meanwhile = {}) {
        on_loop(loops.at(0), [&] { return worker->start(period_ns), 0; });
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        on_loop(client_loop, [&] { return client.latencies.clear(), client.measuring = true; });
        const Sample first = sample();
        const std::int64_t until = first.at + static_cast<std::int64_t>(seconds * 1e9);
        while (now_ns() < until) {
            if (meanwhile) {
                meanwhile();
            } else {
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
            }
        }
        const Sample last = sample();
        on_loop(loops.at(0), [&] { return worker->running = false; });
        wait([&] { return worker->received == worker->sent; });
        auto all = on_loop(client_loop, [&] {
            client.measuring = false;
            return client.latencies;
        });
        std::ranges::sort(all);
        const double wall = static_cast<double>(last.at - first.at) * 1e-9;
        const double worker_cpu = last.worker_cpu - first.worker_cpu;
        const double client_cpu = last.client_cpu - first.client_cpu;
        const auto n = static_cast<double>(last.tokens - first.tokens);
        const auto at = [&](double q) {
            return static_cast<double>(
                       all.at(static_cast<std::size_t>(q * static_cast<double>(all.size() - 1)))) *
                   1e-6;
        };
        return {.worker_ns = worker_cpu * 1e9 / n,
                .client_ns = client_cpu * 1e9 / n,
                .worker_sends = static_cast<double>(last.worker_sends - first.worker_sends) / n,
                .client_sends = static_cast<double>(last.client_sends - first.client_sends) / n,
                .tokens_per_s = n / wall,
                .busy = std::max(worker_cpu, client_cpu) / wall,
                .p50_ms = at(0.5),
                .p99_ms = at(0.99)};
    }

    runtime::LoopPool loops;
    runtime::Loop client_loop;
    std::shared_ptr<Worker> worker;
    Client client;
    std::unique_ptr<LinkServer> server;
    std::shared_ptr<Link> link;
};

/// The period of steps that keeps the busier side busy half of the time. A step that comes alone
/// costs more than one of many at once, so it is not twice the period of full load.
std::int64_t half_load(Bench& bench, const Figures& full) {
    double period = 2 * 1024 / full.tokens_per_s * 1e9;
    for (int probe = 0; probe < 3; ++probe) {
        const Figures f = bench.measure(static_cast<std::int64_t>(period), 0.5);
        period *= std::max(1.0, f.busy / 0.5);
    }
    return static_cast<std::int64_t>(period);
}

int missed = 0;

void print(const char* name, double value, const char* unit, double target = 0) {
    if (target == 0) {
        std::printf(
            "{\"name\":\"%s\",\"value\":%.5g,\"unit\":\"%s\",\"target\":null,\"met\":null}\n", name,
            value, unit);
        return;
    }
    missed += value > target ? 1 : 0;
    std::printf("{\"name\":\"%s\",\"value\":%.5g,\"unit\":\"%s\",\"target\":%g,\"met\":%s}\n", name,
                value, unit, target, value > target ? "false" : "true");
}

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 3;
    {
        Bench bench(1024);
        const Figures full = bench.measure(0, seconds);
        print("request_plane.full.tokens_per_s", full.tokens_per_s, "1/s");
        print("request_plane.full.worker_cpu_per_token", full.worker_ns, "ns", 600);
        print("request_plane.full.client_cpu_per_token", full.client_ns, "ns", 600);
        print("request_plane.full.worker_sends_per_token", full.worker_sends, "1", 0.1);
        print("request_plane.full.client_sends_per_token", full.client_sends, "1", 0.1);
        // A kernel that lets real-time threads have 95 % of each second has its 5 % now.
        std::this_thread::sleep_for(std::chrono::seconds(1));
        const std::int64_t period = half_load(bench, full);
        const Figures half = bench.measure(period, seconds);
        print("request_plane.half.busy", half.busy * 100, "% of a core");
        print("request_plane.half.tokens_per_s", half.tokens_per_s, "1/s");
        print("request_plane.half.worker_cpu_per_token", half.worker_ns, "ns", 600);
        print("request_plane.half.client_cpu_per_token", half.client_ns, "ns", 600);
        print("request_plane.half.worker_sends_per_token", half.worker_sends, "1", 0.1);
        print("request_plane.half.latency_p50", half.p50_ms, "ms");
        print("request_plane.half.latency_p99", half.p99_ms, "ms", 1.0);
    }
    {
        Bench bench(64);
        const Figures alone = bench.measure(5'000'000, seconds);
        const Figures loaded = bench.measure(5'000'000, seconds, [&] {
            const int before = bench.client.refusals;
            bench.open(2'500'000, 1);
            bench.wait([&] { return bench.client.refusals > before; });
        });
        print("request_plane.prompt_10mb.prompts", bench.worker->prompts, "1");
        print("request_plane.prompt_10mb.latency_p99_alone", alone.p99_ms, "ms");
        print("request_plane.prompt_10mb.latency_p99", loaded.p99_ms, "ms");
        print("request_plane.prompt_10mb.added_p99", std::max(loaded.p99_ms - alone.p99_ms, 1e-6),
              "ms", 2.0);
    }
    return missed == 0 ? 0 : 1;
}
