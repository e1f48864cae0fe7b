// What a fleet of mock engines in one process costs: links to every worker, requests as a Poisson
// process, each to a worker drawn at random; then the CPU time of the workers' process.
//
//   bench_mock_fleet FOLDER NAME COUNT PID RATE SECONDS PROMPT OUTPUT
//
// For `stator worker --engine mock --count COUNT --worker-name NAME` with process id PID whose
// sockets are in FOLDER. A prompt's first three quarters are one of 64 texts. Prints one JSON line.
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "stator/requests/link.h"
#include "stator/runtime/asio.h"

using namespace stator;
using namespace stator::requests;

namespace {

constexpr std::size_t kTexts = 64;

std::int64_t now_ns() { return Clock::real().now().ns; }

/// User and system time of a process so far.
double cpu_seconds(const std::string& pid) {
    std::ifstream file("/proc/" + pid + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    text.erase(0, text.rfind(')') + 2);
    unsigned long user = 0;
    unsigned long system = 0;
    if (std::sscanf(text.c_str(), "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                    &system) != 2) {
        std::fprintf(stderr, "bench_mock_fleet: no process %s\n", pid.c_str());
        std::exit(1);
    }
    return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

struct Totals {
    std::uint64_t opened = 0, refused = 0, first = 0, ended = 0, failed = 0, tokens = 0;
    double ttft_ms = 0, decode_ms = 0;
    std::uint64_t gaps = 0;
};

/// One worker's link.
class Client final : public ClientLinkEvents {
  public:
    explicit Client(Totals& totals) : totals_(totals) {}

    void on_info(const protocol::WorkerInfo& info) override { ready = !info.loading; }
    void on_load(const LoadMessage& /*load*/) override {}
    void on_go_away(const GoAway& /*go_away*/) override {}
    void on_silent(bool /*silent*/) override {}
    void on_step(StreamId stream, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> got,
                 std::span<const protocol::TokenLogprob> /*top*/) override {
        const auto found = open_.find(stream.value);
        if (found == open_.end()) return;
        auto& [since, first, tokens] = found->second;
        const std::int64_t now = now_ns();
        if (!got.empty() && tokens == 0) {
            ++totals_.first;
            totals_.ttft_ms += static_cast<double>(now - since) * 1e-6;
            first = now;
        }
        tokens += got.size();
        totals_.tokens += got.size();
        if (!event.finish) return;
        ++(*event.finish == protocol::FinishReason::kLength ? totals_.ended : totals_.failed);
        if (tokens > 1) {
            totals_.decode_ms += static_cast<double>(now - first) * 1e-6;
            totals_.gaps += tokens - 1;
        }
        open_.erase(found);
    }
    void on_turn_end() override {}
    void on_fetched(std::uint64_t /*fetch*/, Result<std::string> /*body*/) override {}
    void on_lane_wanted(LaneId /*lane*/) override {}
    void on_lane_unwanted(LaneId /*lane*/) override {}
    void on_lost(const Error& why) override {
        std::fprintf(stderr, "bench_mock_fleet: %s\n", why.message.c_str());
        std::exit(1);
    }
    void open(std::shared_ptr<const protocol::GenerateRequest> request) {
        const auto stream = link->open(std::move(request), 0, 0);
        if (!stream) {
            ++totals_.refused;
            return;
        }
        ++totals_.opened;
        open_[stream->value] = {now_ns(), 0, 0};
    }

    std::shared_ptr<Link> link;
    bool ready = false;

  private:
    struct Open {
        std::int64_t since = 0, first = 0;
        std::uint64_t tokens = 0;
    };
    Totals& totals_;
    std::unordered_map<std::uint32_t, Open> open_;
};

struct Load {
    double rate = 0;
    std::size_t prompt = 0;
    std::uint32_t output = 0;
};

class Fleet {
  public:
    Fleet(runtime::Loop& loop, const std::string& folder, const std::string& name,
          std::size_t count)
        : loop_(loop), timer_(runtime::asio_context(loop)) {
        for (std::size_t i = 0; i < count; ++i) {
            auto& client = *clients_.emplace_back(std::make_unique<Client>(totals));
            LinkOptions options;
            options.address = *net::parse_socket_address("unix:" + folder + "/" + name + "-" +
                                                         std::to_string(i) + ".sock");
            options.link.name = "bench";
            client.link = connect_link(loop_, options, client);
        }
    }
    [[nodiscard]] bool ready() const {
        return std::ranges::all_of(clients_, [](const auto& c) { return c->ready; });
    }
    void begin(const Load& load) {
        load_ = load;
        next_ = now_ns();
        run();
    }
    void end() { load_.rate = 0; }
    void close() {
        for (auto& client : clients_) client->link->close();
    }
    Totals totals;

  private:
    void run() {
        if (load_.rate == 0) return;
        while (next_ <= now_ns()) {
            clients_[random_() % clients_.size()]->open(request());
            next_ += static_cast<std::int64_t>(
                std::exponential_distribution<>(load_.rate)(random_) * 1e9);
        }
        timer_.expires_after(std::chrono::nanoseconds(std::max<std::int64_t>(0, next_ - now_ns())));
        timer_.async_wait([this](const auto& ec) {
            if (!ec) run();
        });
    }
    std::shared_ptr<const protocol::GenerateRequest> request() {
        auto q = std::make_shared<protocol::GenerateRequest>();
        q->max_tokens = load_.output;
        q->ignore_eos = true;
        q->prompt.resize(load_.prompt);
        std::minstd_rand text(1 + static_cast<unsigned>(random_() % kTexts));
        for (std::size_t i = 0; i < q->prompt.size(); ++i) {
            const auto drawn = i < load_.prompt * 3 / 4 ? text() : random_();
            q->prompt[i] = 32 + static_cast<std::uint32_t>(drawn % 95);
        }
        return q;
    }

    runtime::Loop& loop_;
    boost::asio::steady_timer timer_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::minstd_rand random_{7};
    Load load_;
    std::int64_t next_ = 0;
};

template <typename F>
auto on_loop(runtime::Loop& loop, F f) {
    std::promise<decltype(f())> result;
    loop.post([&] { result.set_value(f()); });
    return result.get_future().get();
}

void sleep_s(double s) { std::this_thread::sleep_for(std::chrono::duration<double>(s)); }

}  // namespace

int main(int argc, char** argv) {
    if (argc != 9) {
        std::fputs("usage: bench_mock_fleet FOLDER NAME COUNT PID RATE SECONDS PROMPT OUTPUT\n",
                   stderr);
        return 2;
    }
    const std::string pid = argv[4];
    const double seconds = std::atof(argv[6]);
    const Load load{std::atof(argv[5]), std::strtoul(argv[7], nullptr, 10),
                    static_cast<std::uint32_t>(std::atoi(argv[8]))};
    runtime::Loop loop("client");
    loop.start();
    std::unique_ptr<Fleet> fleet;
    on_loop(loop, [&] {
        fleet = std::make_unique<Fleet>(loop, argv[1], argv[2], std::strtoul(argv[3], nullptr, 10));
        return 0;
    });
    for (int i = 0; i < 1000 && !on_loop(loop, [&] { return fleet->ready(); }); ++i) sleep_s(0.01);
    on_loop(loop, [&] { return fleet->begin(load), 0; });
    sleep_s(seconds / 2);  // until as many requests run as will
    const Totals before = on_loop(loop, [&] { return fleet->totals; });
    const double cpu = cpu_seconds(pid);
    const double own = cpu_seconds(std::to_string(getpid()));
    const std::int64_t start = now_ns();
    sleep_s(seconds);
    const Totals after = on_loop(loop, [&] { return fleet->totals; });
    const double wall = static_cast<double>(now_ns() - start) * 1e-9;
    const double used = cpu_seconds(pid) - cpu;
    const double own_used = cpu_seconds(std::to_string(getpid())) - own;
    on_loop(loop, [&] { return fleet->end(), fleet->close(), 0; });
    const auto per = [&](std::uint64_t Totals::* m) {
        return static_cast<double>(after.*m - before.*m) / wall;
    };
    std::printf(
        "{\"figure\":\"mock_fleet\",\"workers\":%s,\"opened_per_s\":%.0f,\"ended_per_s\":%.0f,"
        "\"refused\":%lu,\"failed\":%lu,\"tokens_per_s\":%.0f,\"ttft_ms\":%.2f,\"itl_ms\":%.3f,"
        "\"worker_cores\":%.3f,\"client_cores\":%.3f}\n",
        argv[3], per(&Totals::opened), per(&Totals::ended), after.refused, after.failed,
        per(&Totals::tokens),
        (after.ttft_ms - before.ttft_ms) / static_cast<double>(after.first - before.first),
        (after.decode_ms - before.decode_ms) / static_cast<double>(after.gaps - before.gaps),
        used / wall, own_used / wall);
    loop.stop();
    return 0;
}
