#include "stator/cli/trtllm_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/cli/bind_guard.h"
#include "stator/net/http_server.h"
#include "stator/net/socket_address.h"
#include "stator/runtime/loop.h"

namespace stator::cli {
namespace {

using engine::ClusterStore;

constexpr std::string_view kJson = "application/json";
constexpr std::chrono::milliseconds kLookEvery{250};

/// Of where it is, so that one that registers again has the same.
std::string name_of(const ClusterStore::Worker& worker) {
    std::string out = fmt::format("trtllm-{}-{}", worker.host, worker.port);
    for (char& c : out) {
        if (c == ':' || c == '_') c = '-';
    }
    return out;
}

class Store final : public TrtllmStore {
  public:
    Store(control::Supervisor& children, CommandOf command)
        : children_(children), command_(std::move(command)) {}
    ~Store() override {
        {
            const std::scoped_lock lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        if (thread_.joinable()) thread_.join();
        server_.stop(Deadline::after(Clock::real().now(), std::chrono::seconds(1)));
        loops_.stop();
    }
    Result<void> start(const net::SocketAddress& where) {
        loops_.start();
        if (auto ok = server_.listen(where.host, where.port); !ok) return ok;
        thread_ = std::thread([this] { run(); });
        return {};
    }
    [[nodiscard]] std::uint16_t port() const override { return server_.port(); }

  private:
    void answer(net::HttpExchange& exchange) {
        ClusterStore::Answer out;
        {
            const std::scoped_lock lock(mutex_);
            const net::HttpRequest& r = exchange.request();
            out = store_.handle(r.method, r.target, r.body, Clock::real().now(),
                                static_cast<double>(Clock::real().unix_seconds()));
        }
        exchange.respond(out.status, kJson, out.body);
    }

    void run() {
        std::unique_lock lock(mutex_);
        while (!stopping_) {
            const auto workers = store_.workers(Clock::real().now());
            lock.unlock();
            follow(workers);
            lock.lock();
            wake_.wait_for(lock, kLookEvery, [this] { return stopping_; });
        }
    }
    void follow(const std::vector<ClusterStore::Worker>& workers) {
        std::map<std::string, ClusterStore::Worker> wanted;
        for (const auto& worker : workers) {
            if (wanted.size() < kMostWorkers) wanted.insert_or_assign(name_of(worker), worker);
        }
        for (auto at = running_.begin(); at != running_.end();) {
            const auto still = wanted.find(at->first);
            if (still != wanted.end() && still->second.role == at->second) {
                ++at;
                continue;
            }
            log_info("A TensorRT-LLM worker is not registered any more.", {{"worker", at->first}});
            (void)children_.remove(at->first);
            at = running_.erase(at);
        }
        for (const auto& [name, worker] : wanted) {
            if (running_.contains(name)) continue;
            const bool v6 = worker.host.find(':') != std::string::npos;
            const std::string url = v6 ? fmt::format("http://[{}]:{}", worker.host, worker.port)
                                       : fmt::format("http://{}:{}", worker.host, worker.port);
            const std::string role =
                worker.role == ClusterStore::Role::kContext ? "prefill" : "decode";
            // Not yet where one of that name is still ending.
            if (!children_.add(command_(name, url, role))) continue;
            log_info("A TensorRT-LLM worker has registered itself.",
                     {{"worker", name}, {"role", role}, {"engine", url}});
            running_.emplace(name, worker.role);
        }
    }

    static net::HttpErrorBody error_body() {
        return [](int /*status*/, std::string_view /*message*/) {
            return std::pair<std::string, std::string>(kJson, R"({"result":false})");
        };
    }
    static net::HttpLimits limits() {
        net::HttpLimits out;
        out.max_connections = 4096;
        out.max_body_bytes = 64UL * 1024;
        return out;
    }

    control::Supervisor& children_;
    const CommandOf command_;
    std::map<std::string, ClusterStore::Role> running_;  ///< of the thread
    std::mutex mutex_;
    std::condition_variable wake_;
    ClusterStore store_;
    bool stopping_ = false;
    std::thread thread_;
    runtime::LoopPool loops_{1, "store"};
    net::HttpServer server_{
        loops_, limits(),
        [this](const std::shared_ptr<net::HttpExchange>& exchange) { answer(*exchange); },
        error_body()};
};

}  // namespace

Result<std::unique_ptr<TrtllmStore>> TrtllmStore::open(const std::string& address,
                                                       bool allow_unauthenticated,
                                                       control::Supervisor& children,
                                                       CommandOf command) {
    const auto where = net::parse_socket_address(address);
    if (!where) return tl::unexpected(where.error());
    if (where->kind != net::SocketAddress::Kind::kTcp) {
        return error(ErrorCode::kInvalidArgument, "--trtllm-store takes HOST:PORT, not {}.",
                     address);
    }
    if (!is_loopback(where->host) && !allow_unauthenticated) {
        return error(ErrorCode::kInvalidArgument,
                     "A store of workers on {}, where other machines can say where requests go, "
                     "needs --allow-unauthenticated.",
                     address);
    }
    auto store = std::make_unique<Store>(children, std::move(command));
    if (auto ok = store->start(*where); !ok) return tl::unexpected(ok.error());
    return store;
}

}  // namespace stator::cli
