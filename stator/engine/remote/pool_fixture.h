#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <future>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>

#include "stator/engine/echo/echo_engine.h"
#include "stator/engine/remote/pool_engine.h"
#include "stator/worker/worker.h"

namespace stator::engine {

/// For tests: real workers with echo engines on Unix sockets, a fleet and a pool engine over them.

using namespace std::chrono_literals;

inline protocol::ModelCard echo_card(char weights = 'a') {
    protocol::ModelCard card;
    card.name = "tiny";
    card.weights_digest = "sha256-sample:" + std::string(64, weights);
    card.tokenizer = {.kind = "byte-tokenizer", .sha256 = std::string(64, 'b'), .bytes = 3};
    card.vocab_size = 256;
    card.context_tokens = 100'000;
    card.hash_scheme = "xxh3-64:1337";
    card.kv_layout = "echo";
    card.max_top_logprobs = 20;
    return card;
}

/// A worker process in miniature: its own loop and engine.
class TestWorker {
  public:
    TestWorker(std::string name, const std::string& path, EchoOptions echo,
               protocol::ModelCard card = echo_card()) {
        loops_.start();
        worker::WorkerOptions options;
        options.name = std::move(name);
        options.listen.kind = net::SocketAddress::Kind::kUnix;
        options.listen.path = path;
        options.load_every = 20ms;
        auto started = worker::start_worker(std::move(options), card, loops_, registry_);
        if (!started) ADD_FAILURE() << started.error().message;
        worker_ = std::move(*started);
        engine_ = make_echo_engine(echo);
        worker_->set_ready(std::move(card), {}, {engine_.get()});
    }
    ~TestWorker() { kill(); }

    /// Its connections close; nothing is said before.
    void kill() {
        thaw();
        if (!worker_) return;
        worker_->stop();
        worker_.reset();
        engine_.reset();
        loops_.stop();
    }
    void drain(std::chrono::milliseconds within) {
        worker_->drain(Deadline::after(Clock::real().now(), within));
    }
    /// As SIGSTOP does: reads and writes nothing, connections stay.
    void freeze() {
        frozen_.emplace();
        loops_.at(0).post([future = frozen_->get_future().share()] { future.wait(); });
    }
    void thaw() {
        if (frozen_) frozen_->set_value();
        frozen_.reset();
    }
    [[nodiscard]] Engine& engine() { return *engine_; }
    [[nodiscard]] bool engine_is_empty() {
        return eventually([&] { return engine_->load().running + engine_->load().waiting == 0; });
    }

    template <typename F>
    static bool eventually(F&& f) {
        for (int i = 0; i < 2000; ++i) {
            if (f()) return true;
            std::this_thread::sleep_for(5ms);
        }
        return false;
    }

  private:
    metrics::Registry registry_;
    runtime::LoopPool loops_{1, "worker"};
    std::unique_ptr<Engine> engine_;
    std::unique_ptr<worker::Worker> worker_;
    std::optional<std::promise<void>> frozen_;
};

/// Collects what a pool engine tells, and lets the test's thread wait for it.
class Collector final : public StepSink {
  public:
    struct Seen {
        std::vector<protocol::TokenId> tokens;
        std::optional<protocol::StepEvent> end;
        std::uint32_t cached = 0;
        int ends = 0;
        int after_end = 0;
    };
    void on_step(protocol::StepBatch&& batch) override {
        const std::scoped_lock lock(mutex_);
        for (const auto& e : batch.events) {
            Seen& s = seen_[e.id.value];
            if (s.ends > 0) ++s.after_end;
            if (s.tokens.empty() && e.count > 0) begun_.push_back(e.id.value);
            for (std::uint32_t i = 0; i < e.count; ++i) {
                s.tokens.push_back(batch.tokens.at(e.first + i).token);
            }
            if (e.finish) {
                s.end = e;
                ++s.ends;
            }
        }
        changed_.notify_all();
    }
    bool wait_tokens(std::uint64_t id, std::size_t n) {
        return wait([&] { return seen_[id].tokens.size() >= n; });
    }
    bool wait_end(std::uint64_t id) {
        return wait([&] { return seen_[id].ends > 0; });
    }
    /// Those with a token, in the order of their first ones.
    std::vector<std::uint64_t> begun() {
        const std::scoped_lock lock(mutex_);
        return begun_;
    }
    Seen of(std::uint64_t id) {
        const std::scoped_lock lock(mutex_);
        return seen_[id];
    }

  private:
    template <typename F>
    bool wait(F&& f) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, 15s, f);
    }
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::uint64_t, Seen> seen_;
    std::vector<std::uint64_t> begun_;
};

class PoolFixture : public ::testing::Test {
  protected:
    PoolFixture() {
        std::string text = (std::filesystem::temp_directory_path() / "pool-XXXXXX").string();
        folder_ = mkdtemp(text.data());
        loops_.start();
        options_.link.name = "frontend";
        options_.link.incarnation = protocol::Incarnation(1);
        options_.dial_again_min = 10ms;
        options_.dial_again_max = 100ms;
    }
    ~PoolFixture() override {
        engine_.reset();
        if (fleet_) fleet_->stop();
        fleet_.reset();
        workers_.clear();
        loops_.stop();
        std::filesystem::remove_all(folder_);
    }

    [[nodiscard]] std::string path(const std::string& name) const {
        return (folder_ / name).string();
    }
    /// A worker whose address the fleet will know.
    TestWorker& add(const std::string& name, EchoOptions echo = {.step = 1ms},
                    protocol::ModelCard card = echo_card()) {
        know(name);
        workers_.push_back(std::make_unique<TestWorker>(name, path(name), echo, std::move(card)));
        return *workers_.back();
    }
    void know(const std::string& name) { options_.sources.push_back("unix:" + path(name)); }
    void start(std::size_t ready, PoolEngineOptions pool = {}) {
        auto fleet = fleet::start_fleet(options_, loops_, registry_);
        ASSERT_TRUE(fleet) << fleet.error().message;
        fleet_ = std::move(*fleet);
        pool.card = echo_card();
        pool.pool = protocol::pool_id(pool.card);
        engine_ = make_pool_engine(pool, *fleet_, loops_, registry_);
        ASSERT_TRUE(wait_ready(ready));
    }
    /// The engine's ranks are counted, not the view's: it hears of a view a little later.
    bool wait_ready(std::size_t n) {
        return TestWorker::eventually([&] {
            std::size_t ready = 0;
            const auto view = fleet_->view();
            for (const auto& p : view->pools) {
                if (p.id == protocol::pool_id(echo_card())) ready = p.ready.size();
            }
            return ready == n && (n == 0) == !engine_->healthy();
        });
    }
    protocol::GenerateRequest request(std::uint64_t id, std::uint32_t max_tokens) {
        protocol::GenerateRequest r;
        r.id = RequestId(id);
        const auto first = static_cast<protocol::TokenId>(id % 100);
        r.prompt = {first, first + 1, first + 2, first + 3, first + 4};
        r.max_tokens = max_tokens;
        return r;
    }
    std::vector<protocol::TokenId> expected(std::uint64_t id, std::uint32_t n) {
        const auto prompt = request(id, 1).prompt;
        std::vector<protocol::TokenId> out;
        for (std::uint32_t i = 0; i < n; ++i) out.push_back(prompt[i % prompt.size()]);
        return out;
    }
    void expect_whole(std::uint64_t id, std::uint32_t n) {
        ASSERT_TRUE(sink_->wait_end(id)) << id;
        const auto seen = sink_->of(id);
        EXPECT_EQ(seen.end->finish, protocol::FinishReason::kLength)
            << id << ": " << (seen.end->error ? seen.end->error->message : "");
        EXPECT_EQ(seen.tokens, expected(id, n)) << id;
        EXPECT_EQ(seen.ends, 1);
        EXPECT_EQ(seen.after_end, 0);
        EXPECT_EQ(seen.end->prompt_tokens, 5U);
    }
    /// The sum over all label sets that have `part` in them.
    double metric(const std::string& name, const std::string& part = "") {
        std::istringstream text(registry_.render());
        double sum = 0;
        for (std::string line; std::getline(text, line);) {
            if ((line.starts_with(name + " ") || line.starts_with(name + "{")) &&
                line.find(part) != std::string::npos) {
                sum += std::stod(line.substr(line.rfind(' ')));
            }
        }
        return sum;
    }

    std::filesystem::path folder_;
    metrics::Registry registry_;
    runtime::LoopPool loops_{2, "frontend"};
    fleet::FleetOptions options_;
    std::vector<std::unique_ptr<TestWorker>> workers_;
    std::unique_ptr<fleet::Fleet> fleet_;
    std::unique_ptr<PoolEngine> engine_;
    std::shared_ptr<Collector> sink_ = std::make_shared<Collector>();
};

}  // namespace stator::engine
