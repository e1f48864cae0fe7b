#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>

#include "stator/engine/http/http_engine.h"
#include "stator/net/scripted_server.h"

namespace stator::engine {

using namespace std::chrono_literals;
using net::ScriptedConnection;
using net::ScriptedServer;

/// For tests: what engines deliver, and an engine that is what the test says.
class Collector final : public StepSink {
  public:
    struct Seen {
        std::vector<protocol::TokenId> tokens;
        std::vector<protocol::StepEvent> events;
        [[nodiscard]] bool ended() const { return !events.empty() && events.back().finish; }
    };
    void on_step(protocol::StepBatch&& batch) override {
        const std::scoped_lock lock(mutex_);
        ++steps_;
        for (const auto& lost : batch.lost_handoffs) lost_[lost.id.value] = lost.why;
        for (auto& event : batch.events) {
            Seen& seen = by_id_[event.id.value];
            for (std::uint32_t i = 0; i < event.count; ++i) {
                seen.tokens.push_back(batch.tokens.at(event.first + i).token);
            }
            seen.events.push_back(std::move(event));
        }
        changed_.notify_all();
    }
    Seen wait_end(std::uint64_t id) {
        std::unique_lock lock(mutex_);
        EXPECT_TRUE(changed_.wait_for(lock, 20s, [&] { return by_id_[id].ended(); })) << id;
        return by_id_[id];
    }
    bool wait_tokens(std::uint64_t id, std::size_t n) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, 20s, [&] { return by_id_[id].tokens.size() >= n; });
    }
    std::optional<Error> wait_lost(std::uint64_t id) {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, 20s, [&] { return lost_.contains(id); });
        return lost_.contains(id) ? std::optional(lost_[id]) : std::nullopt;
    }
    [[nodiscard]] int steps() {
        const std::scoped_lock lock(mutex_);
        return steps_;
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::uint64_t, Seen> by_id_;
    std::map<std::uint64_t, Error> lost_;
    int steps_ = 0;
};

inline constexpr const char* kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

inline std::string chunk(const std::string& data) {
    const std::string event = "data: " + data + "\n\n";
    return fmt::format("{:x}\r\n{}\r\n", event.size(), event);
}
inline std::string tokens(const std::string& ids, const std::string& finish = "null") {
    return chunk(R"({"choices":[{"index":0,"token_ids":)" + ids + R"(,"finish_reason":)" + finish +
                 "}]}");
}
inline std::string usage(int prompt, int cached) {
    return chunk(fmt::format(
               R"({{"choices":[],"usage":{{"prompt_tokens":{},"prompt_tokens_details":{{"cached_tokens":{}}}}}}})",
               prompt, cached)) +
           chunk("[DONE]") + "0\r\n\r\n";
}

/// A server that looks well, and generates as the test says.
class HttpEngineTest : public testing::Test {
  protected:
    using Generate = std::function<void(ScriptedConnection&, const std::string& request)>;

    void start(Generate generate, HttpEngineOptions options = {}) {
        server_ = std::make_unique<ScriptedServer>(
            [this, generate = std::move(generate)](ScriptedConnection& c) {
                for (auto r = c.read_request(); !r.empty(); r = c.read_request()) {
                    if (r.starts_with("GET /health")) {
                        if (!c.answer("", sick_ ? "503 Service Unavailable" : "200 OK")) return;
                    } else if (r.starts_with("GET /metrics") ||
                               r.starts_with("GET /prometheus/metrics")) {
                        const std::scoped_lock lock(mutex_);
                        if (!c.answer(metrics_)) return;
                    } else {
                        {
                            const std::scoped_lock lock(mutex_);
                            last_ = r;
                        }
                        generate(c, r);
                    }
                }
            });
        options.url = net::parse_http_url(server_->url()).value();
        if (options.dialect.model.empty()) options.dialect.model = "m";
        options.info.max_running = std::max(1U, options.info.max_running);
        options.look_every = options.look_idle_every = 20ms;
        engine_ = make_http_engine(std::move(options)).value();
    }
    void TearDown() override {
        engine_.reset();
        server_.reset();
    }
    static protocol::GenerateRequest request(std::uint64_t id) {
        protocol::GenerateRequest r;
        r.id = RequestId(id);
        r.prompt = {1, 2, 3, 4};
        r.max_tokens = 3;
        return r;
    }
    std::string last_request() {
        const std::scoped_lock lock(mutex_);
        return last_;
    }
    template <typename F>
    static bool eventually(const F& f) {
        for (int i = 0; i < 2000; ++i) {
            if (f()) return true;
            std::this_thread::sleep_for(5ms);
        }
        return false;
    }

    std::mutex mutex_;
    std::string metrics_ = "vllm:num_requests_running{engine=\"0\"} 0\n";
    std::string last_;
    std::atomic<bool> sick_{false};
    std::unique_ptr<ScriptedServer> server_;
    std::unique_ptr<Engine> engine_;
    std::shared_ptr<Collector> sink_ = std::make_shared<Collector>();
};

}  // namespace stator::engine
