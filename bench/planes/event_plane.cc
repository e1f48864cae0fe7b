// The event plane, end to end over TCP on loopback: publisher processes, one subscriber.
//
//   bench_event_plane [rate] [many] [snapshot]      (default: all)
//
// Prints a line of JSON per figure. Publishers are this program again, started with fork and exec;
// they talk with the parent by lines on their standard input and output.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "stator/base/clock.h"
#include "stator/events/kv_mirror.h"
#include "stator/events/publisher.h"
#include "stator/events/subscriber.h"

namespace {

using namespace std::chrono_literals;
using namespace stator;

constexpr std::uint64_t kRateProcesses = 4;
constexpr std::uint64_t kRateEvents = 3'000'000;  // block events per process
constexpr std::uint64_t kRateBlocksPerBatch = 256;
constexpr std::uint64_t kRateHeld = 100'000;  // blocks a cache holds before it removes
constexpr std::uint64_t kManyProcesses = 4;
constexpr std::uint64_t kManyPublishers = 512;  // per process
constexpr std::uint64_t kManyBatches = 200;     // per publisher, of two block events
constexpr std::size_t kSnapshotBlocks = 100'000;

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "bench_event_plane: %s\n", what.c_str());
    std::exit(1);
}

double seconds() { return to_seconds(Clock::real().now() - TimePoint{}); }

double process_cpu_seconds() {
    rusage u{};
    getrusage(RUSAGE_SELF, &u);
    return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

void print(const char* name, double value, const char* unit, double target, bool met) {
    std::printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"target\":%.6g,\"met\":%s}\n",
                name, value, unit, target, met ? "true" : "false");
    std::fflush(stdout);
}

void print(const char* name, double value, const char* unit) {
    std::printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"target\":null,\"met\":null}\n",
                name, value, unit);
    std::fflush(stdout);
}

protocol::KvEvent stored(std::uint64_t& events, std::uint64_t first, std::uint64_t n) {
    protocol::KvStored s;
    if (first % 1'024 != 0) s.parent = tokens::SequenceHash(first * 0x9E37'79B9'7F4A'7C15U);
    s.blocks.reserve(n);
    for (std::uint64_t i = 1; i <= n; ++i) {
        const std::uint64_t h = (first + i) * 0x9E37'79B9'7F4A'7C15U;
        s.blocks.push_back({tokens::BlockHash(~h), tokens::SequenceHash(h), {}});
    }
    return {protocol::EventSeq(++events), std::move(s)};
}

protocol::KvEvent removed(std::uint64_t& events, std::uint64_t first, std::uint64_t n) {
    protocol::KvRemoved r;
    r.sequences.reserve(n);
    for (std::uint64_t i = 1; i <= n; ++i) {
        r.sequences.emplace_back((first + i) * 0x9E37'79B9'7F4A'7C15U);
    }
    return {protocol::EventSeq(++events), std::move(r)};
}

// ---- a publisher process ----

/// Fills the cache, then stores and removes in turn: exactly `total` block events.
void publish_rate(events::Publisher& p) {
    std::uint64_t events = 0;
    std::uint64_t next = 0;
    std::uint64_t oldest = 0;
    for (std::uint64_t done = 0; done < kRateEvents;) {
        std::vector<protocol::KvEvent> batch;
        const std::uint64_t n = std::min(kRateBlocksPerBatch / 2, (kRateEvents - done + 1) / 2);
        batch.push_back(stored(events, next, n));
        next += n;
        done += n;
        if (next - oldest > kRateHeld && done + n <= kRateEvents) {
            batch.push_back(removed(events, oldest, n));
            oldest += n;
            done += n;
        }
        p.publish_kv(0, std::move(batch));
    }
}

int publisher_process(const std::string& mode) {
    const std::uint64_t count = mode == "many" ? kManyPublishers : 1;
    events::PublisherHostOptions options;
    options.send_high_water_mark = 0;  // a benchmark of speed, not of loss
    auto host = events::start_publishers(options);
    if (!host) fail(host.error().message);
    std::vector<std::shared_ptr<events::Publisher>> publishers;
    for (std::uint64_t i = 0; i < count; ++i) {
        auto p = (*host)->bind("tcp://127.0.0.1:*", protocol::Incarnation(i + 1), 1);
        if (!p) fail(p.error().message);
        publishers.push_back(*p);
        std::printf("%s\n", (*p)->endpoint().address.c_str());
    }
    std::fflush(stdout);
    if (std::getchar() != 'g') return 1;
    if (mode == "rate") {
        publish_rate(*publishers.front());
    } else {
        std::vector<std::uint64_t> events(count);
        for (std::uint64_t b = 0; b < kManyBatches; ++b) {
            for (std::uint64_t i = 0; i < count; ++i) {
                publishers[i]->publish_kv(0, {stored(events[i], b * 2, 2)});
            }
        }
    }
    std::getchar();  // the parent closes its end when it has seen everything
    return 0;
}

struct Child {
    pid_t pid = 0;
    std::FILE* in = nullptr;   // its standard input
    std::FILE* out = nullptr;  // its standard output
};

Child start_child(const char* mode) {
    int to[2];
    int from[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) fail("no pipes");
    Child c;
    c.pid = fork();
    if (c.pid < 0) fail("no process");
    if (c.pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        execl("/proc/self/exe", "bench_event_plane", "--publish", mode, nullptr);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    c.in = fdopen(to[1], "w");
    c.out = fdopen(from[0], "r");
    return c;
}

std::string read_line(Child& c) {
    char text[256];
    if (std::fgets(text, sizeof(text), c.out) == nullptr) fail("a publisher process ended early");
    text[std::strcspn(text, "\n")] = 0;
    return text;
}

void go(Child& c) {
    std::fputc('g', c.in);
    std::fflush(c.in);
}

void end(Child& c) {
    std::fclose(c.in);
    std::fclose(c.out);
    int status = 0;
    waitpid(c.pid, &status, 0);
    if (status != 0) fail("a publisher process failed");
}

// ---- the subscriber ----

/// Keeps each publisher's blocks, as an index would, and counts.
class Counter final : public events::KvReceiver {
  public:
    void apply(std::uint32_t, const protocol::KvEvent& event) override {
        if (const auto* s = std::get_if<protocol::KvStored>(&event.what))
            count_ += s->blocks.size();
        if (const auto* r = std::get_if<protocol::KvRemoved>(&event.what)) {
            count_ += r->sequences.size();
        }
        mirror_.apply(event);
        seen.store(count_, std::memory_order_release);
    }
    void reset(std::uint32_t) override { mirror_.clear(); }
    void live(std::uint32_t, bool is_live, std::uint64_t) override {
        live_at = is_live ? seconds() : 0;
    }
    std::atomic<std::uint64_t> seen = 0;
    std::atomic<double> live_at = 0;

  private:
    std::uint64_t count_ = 0;
    events::KvMirror mirror_;
};

events::Fetcher no_fetch() {
    return [](bool, std::string, std::uint32_t, std::uint64_t, std::uint64_t,
              const std::function<void(Result<std::string>)>& done) {
        done(error(ErrorCode::kUnavailable, "this benchmark has no link"));
    };
}

template <typename F>
void wait_for(const char* what, F f) {
    const double end = seconds() + 120;
    while (!f()) {
        if (seconds() > end) fail(std::string("waited too long for ") + what);
        std::this_thread::sleep_for(1ms);
    }
}

struct Run {
    double wall = 0;
    double cpu = 0;
    double join = 0;
    std::uint64_t applied = 0;
    std::uint64_t gaps = 0;
};

Run run_publishers(const char* mode, std::uint64_t processes, std::uint64_t each,
                   std::uint64_t expected) {
    std::vector<Child> children;
    for (std::uint64_t i = 0; i < processes; ++i) children.push_back(start_child(mode));
    events::SubscriberHostOptions options;
    options.receive_high_water_mark = 0;
    auto host = events::start_subscribers(options, processes * each);
    if (!host) fail(host.error().message);
    std::vector<std::shared_ptr<Counter>> counters;
    std::vector<std::unique_ptr<events::Subscription>> subscriptions;
    const double begin = seconds();
    for (Child& child : children) {
        for (std::uint64_t i = 0; i < each; ++i) {
            counters.push_back(std::make_shared<Counter>());
            auto s = (*host)->follow_kv({read_line(child), ""}, protocol::Incarnation(i + 1), 1,
                                        no_fetch(), counters.back());
            if (!s) fail(s.error().message);
            subscriptions.push_back(*std::move(s));
        }
    }
    wait_for("all publishers", [&] {
        for (const auto& c : counters) {
            if (c->live_at == 0) return false;
        }
        return true;
    });
    Run out;
    out.join = seconds() - begin;
    const auto applied = [&] {
        std::uint64_t sum = 0;
        for (const auto& c : counters) sum += c->seen.load(std::memory_order_acquire);
        return sum;
    };
    const double cpu = process_cpu_seconds();
    const double start = seconds();
    for (Child& child : children) go(child);
    wait_for("all events", [&] { return applied() >= expected; });
    out.wall = seconds() - start;
    out.cpu = process_cpu_seconds() - cpu;
    out.applied = applied();
    for (const auto& s : subscriptions) out.gaps += s->stats().gaps;
    subscriptions.clear();
    for (Child& child : children) end(child);
    return out;
}

void rate() {
    const Run r = run_publishers("rate", kRateProcesses, 1, kRateProcesses * kRateEvents);
    const double per_second = static_cast<double>(r.applied) / r.wall;
    print("event_rate", per_second, "block events/s", 1.5e6, per_second >= 1.5e6);
    print("event_rate_subscriber_cpu", r.cpu * 1e9 / static_cast<double>(r.applied),
          "ns CPU per block event");
    print("event_rate_gaps", static_cast<double>(r.gaps), "gaps", 0, r.gaps == 0);
}

void many() {
    const std::uint64_t expected = kManyProcesses * kManyPublishers * kManyBatches * 2;
    const Run r = run_publishers("many", kManyProcesses, kManyPublishers, expected);
    const auto lost = static_cast<double>(expected) - static_cast<double>(r.applied);
    print("many_publishers", static_cast<double>(kManyProcesses * kManyPublishers), "publishers");
    print("many_publishers_lost", lost, "block events", 0, lost == 0);
    print("many_publishers_gaps", static_cast<double>(r.gaps), "gaps", 0, r.gaps == 0);
    print("many_publishers_batches",
          static_cast<double>(kManyProcesses * kManyPublishers * kManyBatches) / r.wall,
          "batches/s");
    print("many_publishers_join", r.join, "s");
    print("many_publishers_subscriber_cpu",
          r.cpu * 1e6 / static_cast<double>(kManyProcesses * kManyPublishers * kManyBatches),
          "us CPU per batch");
}

void snapshot() {
    auto publishers = events::start_publishers({});
    if (!publishers) fail(publishers.error().message);
    auto p = *(*publishers)->bind("tcp://127.0.0.1:*", protocol::Incarnation(1), 1);
    std::uint64_t events = 0;
    for (std::size_t at = 0; at < kSnapshotBlocks; at += 50) {
        p->publish_kv(0, {stored(events, at, 50)});
    }
    wait_for("the publisher", [&] { return p->range("kv", 0, events, events).has_value(); });
    auto host = events::start_subscribers({}, 1);
    if (!host) fail(host.error().message);
    const events::Fetcher fetch = [p](bool whole, const std::string& topic, std::uint32_t rank,
                                      std::uint64_t from, std::uint64_t to,
                                      const std::function<void(Result<std::string>)>& done) {
        const auto bytes = whole ? p->snapshot(topic, rank) : p->range(topic, rank, from, to);
        done(bytes ? Result<std::string>(**bytes) : tl::unexpected(bytes.error()));
    };
    double best = 1e9;
    double worst = 0;
    for (int i = 0; i < 10; ++i) {
        auto counter = std::make_shared<Counter>();
        const double start = seconds();
        auto s = *(*host)->follow_kv(p->endpoint(), protocol::Incarnation(1), 1, fetch, counter);
        wait_for("the snapshot", [&] { return counter->live_at != 0; });
        const double took = counter->live_at - start;
        if (counter->seen != kSnapshotBlocks) fail("the snapshot lacks blocks");
        best = std::min(best, took);
        worst = std::max(worst, took);
    }
    print("snapshot_sync_worst_of_10", worst, "s", 0.1, worst < 0.1);
    print("snapshot_sync_best_of_10", best, "s");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 3 && std::strcmp(argv[1], "--publish") == 0) return publisher_process(argv[2]);
    const auto wanted = [&](const char* name) {
        for (int i = 1; i < argc; ++i) {
            if (std::strcmp(argv[i], name) == 0) return true;
        }
        return argc == 1;
    };
    if (wanted("rate")) rate();
    if (wanted("many")) many();
    if (wanted("snapshot")) snapshot();
    return 0;
}
