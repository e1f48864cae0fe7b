// Handoffs between two processes of this machine.
//
//   bench_transfer METHOD [--bytes N] [--handoffs N] [--unchecked] [--library FILE]
//
// METHOD is shm, tcp, nixl, or memcpy (a copy within one process, for comparison). The producer is
// this program again; the two exchange lines, as a request plane would carry the handoffs. Prints a
// line of JSON:
//   seconds_to_claim   median from claim() to its end
//   seconds_to_read    median of claim and one look at every byte by one thread
//   seconds_to_arrive  median from the wish to publish to the end of the claim, lines included
//   first_...          the first handoff, whose pages were never used
//   cpu_..., rss_...   of both processes, per handoff and at the end
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <future>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/metrics/registry.h"
#include "stator/transfer/transfer.h"

namespace {

using namespace stator;

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "bench_transfer: %s\n", what.c_str());
    std::exit(2);
}

double now() { return to_seconds(Clock::real().now() - TimePoint{}); }

double cpu_seconds() {
    rusage u{};
    getrusage(RUSAGE_SELF, &u);
    return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

double rss_mib() {
    std::ifstream statm("/proc/self/statm");
    std::uint64_t size = 0;
    std::uint64_t resident = 0;
    statm >> size >> resident;
    return static_cast<double>(resident) * 4096 / (1 << 20);
}

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
}

struct Arguments {
    std::string method;
    std::uint64_t bytes = 64ULL << 20;
    int handoffs = 20;
    bool checked = true;
    std::string library;
};

/// Every byte once, as quickly as one thread can.
std::uint64_t look_at(std::span<const std::byte> bytes) {
    std::array<std::uint64_t, 8> sums{};
    std::size_t at = 0;
    for (; at + sizeof sums <= bytes.size(); at += sizeof sums) {
        std::array<std::uint64_t, 8> words;  // NOLINT: written by memcpy
        std::memcpy(words.data(), bytes.data() + at, sizeof words);
        for (std::size_t i = 0; i < 8; ++i) sums[i] ^= words[i];
    }
    std::uint64_t sum = 0;
    for (const std::uint64_t s : sums) sum ^= s;
    for (; at < bytes.size(); ++at) sum ^= static_cast<std::uint64_t>(bytes[at]);
    return sum;
}

// NOLINTNEXTLINE: what is looked at must not be optimised away
volatile std::uint64_t seen = 0;

void measure_memcpy(const Arguments& a) {
    std::vector<std::byte> from(a.bytes, std::byte{1});
    std::vector<std::byte> to(a.bytes, std::byte{2});
    std::vector<double> times;
    for (int i = 0; i < a.handoffs; ++i) {
        const double start = now();
        std::memcpy(to.data(), from.data(), a.bytes);
        seen = static_cast<std::uint64_t>(to[a.bytes / 2]);
        times.push_back(now() - start);
    }
    std::printf("{\"method\":\"memcpy\",\"bytes\":%llu,\"seconds_to_read\":%.9g}\n",
                static_cast<unsigned long long>(a.bytes), median(times));
}

std::unique_ptr<transfer::TransferPlane> start(const Arguments& a, metrics::Registry& registry) {
    set_log(LogLevel::kError, LogFormat::kText);
    transfer::TransferOptions options;
    options.methods = {a.method};
    options.checksums = a.checked;
    options.nixl_library = a.library;
    auto plane = transfer::start_transfer(options, registry);
    if (!plane) fail(plane.error().message);
    if ((*plane)->methods().empty()) fail((*plane)->why_off()[a.method]);
    return std::move(*plane);
}

/// The producer: "prepare N", "publish", "cost", each answered by a line.
int produce(const Arguments& a) {
    metrics::Registry registry;
    const auto plane = start(a, registry);
    std::unique_ptr<transfer::HandoffBuffer> buffer;
    std::array<char, 256> line{};
    while (std::fgets(line.data(), line.size(), stdin) != nullptr) {
        std::istringstream in(line.data());
        std::string verb;
        in >> verb;
        if (verb == "prepare") {
            std::uint64_t bytes = 0;
            in >> bytes;
            auto reserved = plane->reserve(bytes);
            if (!reserved) fail(reserved.error().message);
            buffer = std::move(*reserved);
            std::memset(buffer->bytes().data(), 7, bytes);
            std::puts("ok");
        } else if (verb == "publish") {
            protocol::Handoff what;
            what.parts.push_back({.tokens = 1, .bytes = buffer->bytes().size()});
            auto published = plane->publish(std::move(buffer), std::move(what));
            if (!published) fail(published.error().message);
            std::ostringstream out;
            for (const auto b : (*published)->id) out << static_cast<int>(b) << ' ';
            out << (*published)->bytes << ' ' << (*published)->places.front().address;
            std::puts(out.str().c_str());
        } else {
            std::printf("%.9g %.9g\n", cpu_seconds(), rss_mib());
        }
        std::fflush(stdout);
    }
    return 0;
}

/// The other process, as the consumer talks to it.
class Producer {
  public:
    explicit Producer(std::vector<std::string> arguments) {
        std::array<int, 2> ends{};
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) fail("socket");
        std::vector<char*> argv;
        for (auto& argument : arguments) argv.push_back(argument.data());
        argv.push_back(nullptr);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::dup2(ends[1], STDIN_FILENO);
            ::dup2(ends[1], STDOUT_FILENO);
            ::execv("/proc/self/exe", argv.data());
            ::_exit(127);
        }
        ::close(ends[1]);
        fd_ = ends[0];
    }
    ~Producer() {
        ::close(fd_);
        ::waitpid(pid_, nullptr, 0);
    }
    Producer(const Producer&) = delete;
    Producer& operator=(const Producer&) = delete;

    std::string ask(const std::string& question) {
        const std::string line = question + "\n";
        if (::write(fd_, line.data(), line.size()) < 0) fail("the producer is gone");
        std::string answer;
        std::array<char, 4096> piece{};
        while (!answer.ends_with('\n')) {
            const ssize_t n = ::read(fd_, piece.data(), piece.size());
            if (n <= 0) fail("the producer is gone");
            answer.append(piece.data(), static_cast<std::size_t>(n));
        }
        return answer;
    }

  private:
    pid_t pid_ = -1;
    int fd_ = -1;
};

std::shared_ptr<const protocol::Handoff> read_handoff(const std::string& line,
                                                      const std::string& method) {
    std::istringstream in(line);
    auto what = std::make_shared<protocol::Handoff>();
    for (auto& b : what->id) {
        int n = 0;
        in >> n;
        b = static_cast<std::uint8_t>(n);
    }
    protocol::TransferPlace place{.method = method, .address = {}};
    in >> what->bytes >> place.address;
    what->places.push_back(place);
    what->parts.push_back({.tokens = 1, .bytes = what->bytes});
    return what;
}

struct Times {
    std::vector<double> claim;
    std::vector<double> read;
    std::vector<double> arrive;
};

void one(Producer& producer, transfer::TransferPlane& plane, const Arguments& a, Times& times) {
    producer.ask("prepare " + std::to_string(a.bytes));
    const double wish = now();
    const auto what = read_handoff(producer.ask("publish"), a.method);
    std::promise<Result<std::shared_ptr<const protocol::HandoffBytes>>> promise;
    const double start = now();
    plane.claim(what, {}, [&promise](auto result) { promise.set_value(std::move(result)); });
    auto arrived = promise.get_future().get();
    const double end = now();
    if (!arrived) fail(arrived.error().message);
    seen = look_at((*arrived)->parts.front());
    const double looked = now();
    times.claim.push_back(end - start);
    times.read.push_back(looked - start);
    times.arrive.push_back(end - wish);
}

void measure(const Arguments& a, char** argv, int argc) {
    std::vector<std::string> words(argv, argv + argc);
    words.emplace_back("--produce");
    Producer producer(words);  // before the plane: libraries below NIXL do not like fork()
    metrics::Registry registry;
    const auto plane = start(a, registry);
    Times first;
    one(producer, *plane, a, first);
    Times times;
    one(producer, *plane, a, times);
    times = {};
    double their_cpu = 0;
    double their_rss = 0;
    std::istringstream(producer.ask("cost")) >> their_cpu >> their_rss;
    const double cpu = cpu_seconds();
    for (int i = 0; i < a.handoffs; ++i) one(producer, *plane, a, times);
    const double own_cpu = cpu_seconds() - cpu;
    double their_cpu_after = 0;
    std::istringstream(producer.ask("cost")) >> their_cpu_after >> their_rss;
    std::printf(
        "{\"method\":\"%s\",\"bytes\":%llu,\"checked\":%s,\"seconds_to_claim\":%.9g,"
        "\"seconds_to_read\":%.9g,\"seconds_to_arrive\":%.9g,\"first_seconds_to_claim\":%.9g,"
        "\"cpu_consumer\":%.9g,\"cpu_producer\":%.9g,\"rss_consumer_mib\":%.1f,"
        "\"rss_producer_mib\":%.1f}\n",
        a.method.c_str(), static_cast<unsigned long long>(a.bytes), a.checked ? "true" : "false",
        median(times.claim), median(times.read), median(times.arrive), first.claim.front(),
        own_cpu / a.handoffs, (their_cpu_after - their_cpu) / a.handoffs, rss_mib(), their_rss);
}

}  // namespace

int main(int argc, char** argv) {
    Arguments a;
    bool producer = false;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const auto value = [&]() -> std::string {
            if (++i >= argc) fail(word + " needs a value");
            return argv[i];
        };
        if (word == "--bytes") {
            a.bytes = std::stoull(value());
        } else if (word == "--handoffs") {
            a.handoffs = std::stoi(value());
        } else if (word == "--unchecked") {
            a.checked = false;
        } else if (word == "--library") {
            a.library = value();
        } else if (word == "--produce") {
            producer = true;
        } else {
            a.method = word;
        }
    }
    if (a.method.empty() || a.bytes == 0 || a.handoffs < 1) {
        fail("usage: bench_transfer shm|tcp|nixl|memcpy [--bytes N] [--handoffs N] [--unchecked]");
    }
    if (producer) return produce(a);
    if (a.method == "memcpy") {
        measure_memcpy(a);
    } else {
        measure(a, argv, argc);
    }
    return 0;
}
