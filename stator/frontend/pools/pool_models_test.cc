#include "stator/frontend/pools/pool_models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "stator/base/log.h"
#include "stator/engine/echo/echo_engine.h"
#include "stator/frontend/pools/answering_pool.h"
#include "stator/frontend/pools/pool_roles.h"
#include "stator/frontend/scripted_engine.h"
#include "stator/net/http_client.h"
#include "stator/net/http_server.h"
#include "stator/text/byte_tokenizer.h"
#include "stator/transfer/transfer.h"
#include "stator/worker/worker.h"

namespace stator::frontend {
namespace {

using testing::HasSubstr;
using testing::Not;

bool eventually(const std::function<bool()>& condition) {
    const Deadline end = Deadline::after(Clock::real().now(), std::chrono::seconds(20));
    while (!condition()) {
        if (end.reached(Clock::real().now())) return false;
        std::this_thread::yield();
    }
    return true;
}

/// A worker with an echo engine on a port of its own.
class EchoWorker {
  public:
    EchoWorker(const std::string& name, std::uint32_t context, const std::string& model,
               std::vector<protocol::Role> roles = {protocol::Role::kAggregated})
        : engine_(engine::make_echo_engine({.context_tokens = context})) {
        loops_.start();
        worker::WorkerOptions options;
        options.name = name;
        if (roles.front() != protocol::Role::kAggregated) {
            transfer::TransferOptions transfer;
            transfer.methods = {"tcp"};
            transfer.listen = net::parse_socket_address("127.0.0.1:0").value();
            auto plane = transfer::start_transfer(std::move(transfer), registry_);
            EXPECT_TRUE(plane) << plane.error().message;
            plane_ = std::move(*plane);
            options.transfer = plane_;
        }
        options.roles = std::move(roles);
        options.listen = net::parse_socket_address("127.0.0.1:0").value();
        protocol::ModelCard loading;
        loading.name = "loading";
        auto made = worker::start_worker(std::move(options), loading, loops_, registry_);
        EXPECT_TRUE(made) << made.error().message;
        worker_ = std::move(*made);
        worker::ArtifactStore artifacts;
        protocol::ModelCard card;
        card.name = model;
        card.aliases = {"everyone"};
        card.weights_digest = "echo";
        card.context_tokens = context;
        card.tokenizer = artifacts.add("byte-tokenizer", "bytes of the tokenizer");
        worker_->set_ready(std::move(card), std::move(artifacts), {engine_.get()});
    }
    ~EchoWorker() { stop(); }
    void stop() {
        if (!worker_) return;
        worker_->stop();
        engine_->stop(Deadline::at({}));
        worker_.reset();
        if (plane_) plane_->stop();
        loops_.stop();
    }
    [[nodiscard]] std::string address() const { return net::to_string(worker_->address()); }

  private:
    runtime::LoopPool loops_{1, "worker"};
    metrics::Registry registry_;
    std::shared_ptr<engine::Engine> engine_;
    std::shared_ptr<transfer::TransferPlane> plane_;  ///< of those that hand over
    std::unique_ptr<worker::Worker> worker_;
};

/// A door in front of a fleet, with artifacts kept in memory.
class PoolModelsTest : public testing::Test {
  protected:
    PoolModelsTest() {
        set_log(LogLevel::kError, LogFormat::kText);
        loops_.start();
        EXPECT_TRUE(server_.listen("127.0.0.1", 0));
        frontend_.set_ready(true);
    }
    ~PoolModelsTest() override {
        server_.stop(Deadline::after(Clock::real().now(), std::chrono::seconds(1)));
        models_.reset();
        if (fleet_) fleet_->stop();
        loops_.stop();
    }

    void start(std::vector<std::string> sources) {
        fleet::FleetOptions options;
        options.sources = std::move(sources);
        options.link.name = "test";
        options.link.incarnation = protocol::Incarnation(7);
        auto fleet = fleet::start_fleet(std::move(options), loops_, registry_);
        ASSERT_TRUE(fleet) << fleet.error().message;
        fleet_ = std::move(*fleet);
        PoolModelsOptions o;
        o.aliases = {{"fast", "m"}};
        o.defaults = [](const protocol::RecommendedSampling&) { return SamplingDefaults{}; };
        o.find = [this](const protocol::Artifact& a) -> std::optional<std::string> {
            const std::scoped_lock lock(mutex_);
            const auto at = kept_.find(a.sha256);
            return at == kept_.end() ? std::nullopt : std::optional(at->second);
        };
        o.keep = [this](const protocol::Artifact& a, std::string_view bytes) -> Result<void> {
            const std::scoped_lock lock(mutex_);
            kept_[a.sha256] = bytes;
            return {};
        };
        o.load = [this](const protocol::ModelCard&, std::string_view tokenizer,
                        std::string_view) -> Result<PoolText> {
            ++loads_;
            if (failures_left_.fetch_sub(1) > 0) {
                return error(ErrorCode::kDataLoss, "can't be read today");
            }
            EXPECT_EQ(tokenizer, "bytes of the tokenizer");
            return PoolText{std::make_shared<text::ByteTokenizer>(std::vector<std::string>{}),
                            nullptr};
        };
        o.try_again = std::chrono::milliseconds(10);
        o.wait_for_worker = std::chrono::milliseconds(100);
        models_ = std::make_unique<PoolModels>(std::move(o), *fleet_, frontend_, loops_, registry_);
        frontend_.observe_fleet(
            [this](codec::JsonWriter& w) {
                append_fleet_json(w, *fleet_->view(), models_->routers());
            },
            [this] { return pools_without_answer(*fleet_->view()); });
    }

    net::HttpClientResponse send(const std::string& path, std::string body = {}) {
        net::HttpClientRequest request;
        request.method = body.empty() ? "GET" : "POST";
        request.url = fmt::format("http://127.0.0.1:{}{}", server_.port(), path);
        request.body = std::move(body);
        request.headers = {{"Content-Type", "application/json"}};
        auto response = net::http_request(request);
        EXPECT_TRUE(response) << response.error().message;
        return response ? std::move(*response) : net::HttpClientResponse{};
    }
    std::string complete(const std::string& model) {
        return send("/v1/completions",
                    fmt::format(R"({{"model":"{}","prompt":"abc","max_tokens":6}})", model))
            .body;
    }
    bool serves(const std::string& name) {
        return send("/v1/models").body.find("\"id\":\"" + name + "\"") != std::string::npos;
    }

    runtime::LoopPool loops_{1, "http"};
    metrics::Registry registry_;
    Frontend frontend_{[] {
                           FrontendOptions o;
                           o.access_log = false;
                           return o;
                       }(),
                       loops_, registry_};
    net::HttpServer server_{loops_, {}, frontend_.handler(), Frontend::error_body()};
    std::unique_ptr<fleet::Fleet> fleet_;
    std::unique_ptr<PoolModels> models_;
    std::mutex mutex_;
    std::map<std::string, std::string> kept_;
    std::atomic<int> loads_{0};
    std::atomic<int> failures_left_{0};
};

TEST_F(PoolModelsTest, APoolIsServedUnderItsNameAndAliases) {
    EchoWorker a("a", 100, "m");
    start({a.address()});
    ASSERT_TRUE(eventually([&] { return serves("m"); }));
    EXPECT_TRUE(serves("everyone"));
    EXPECT_TRUE(serves("fast"));
    EXPECT_THAT(complete("fast"), HasSubstr("abcabc"));
    const std::string health = send("/health").body;
    EXPECT_THAT(health, HasSubstr("\"status\":\"ready\""));
    EXPECT_THAT(registry_.render(), HasSubstr("stator_artifacts_fetched_total 1"));
}

TEST_F(PoolModelsTest, APoolWithoutADecodeWorkerSaysSo) {
    using protocol::Role;
    EchoWorker p("p", 100, "m", {Role::kPrefill});
    EchoWorker d("d", 100, "m", {Role::kDecode});
    start({p.address(), d.address()});
    ASSERT_TRUE(eventually([&] {
        return serves("m") && send("/health").body.find("\"ready\":2") != std::string::npos;
    }));
    std::string health = send("/health").body;
    EXPECT_THAT(health, HasSubstr(R"("status":"ready")"));
    EXPECT_THAT(health, HasSubstr(R"("prefill":{"workers":1,"ready":1,"ready_ranks":1})"));
    EXPECT_THAT(health, HasSubstr(R"("decode":{"workers":1,"ready":1,"ready_ranks":1})"));
    EXPECT_THAT(health, HasSubstr(R"("disaggregation":"conditional")"));
    EXPECT_THAT(health, HasSubstr(R"("roles":["prefill"])"));
    EXPECT_THAT(health, Not(HasSubstr("cannot_serve")));
    EXPECT_THAT(complete("m"), HasSubstr("abcabc"));
    d.stop();
    ASSERT_TRUE(eventually([&] { return send("/health").status == 503; }));
    health = send("/health").body;
    EXPECT_THAT(health, HasSubstr(R"("status":"unhealthy")"));
    EXPECT_THAT(
        health,
        HasSubstr(R"("cannot_serve":"no decode worker is ready: those that are only prefill")"));
    EXPECT_THAT(health, HasSubstr(R"("healthy":false)"));
    EXPECT_THAT(health, HasSubstr("of model m can't serve: no decode worker"));
    const auto refused = [&] {
        return send("/v1/completions", R"({"model":"m","prompt":"abc","max_tokens":6})");
    };
    ASSERT_TRUE(eventually(
        [&] { return refused().body.find("no decode worker is ready") != std::string::npos; }));
    EXPECT_EQ(refused().status, 503);
}

TEST_F(PoolModelsTest, RanksThatAnswerNobodyAreNoShareOfTheTraffic) {
    using protocol::Role;
    EchoWorker first("a", 100, "m", {Role::kAggregated});
    EchoWorker p("p", 200, "m", {Role::kPrefill});
    EchoWorker p2("p2", 200, "m", {Role::kPrefill});
    EchoWorker d("d", 200, "m", {Role::kDecode});
    start({first.address(), p.address(), p2.address(), d.address()});
    // One rank answers in each of the two pools.
    EXPECT_TRUE(eventually([&] {
        const std::string health = send("/health").body;
        std::size_t halves = 0;
        for (std::size_t at = 0; (at = health.find("\"share\":1.0,", at)) != std::string::npos;
             ++at)
            ++halves;
        return halves == 2 && health.find("\"ready\":3") != std::string::npos;
    })) << send("/health").body;
}

TEST_F(PoolModelsTest, QueueOptionsAreForPoolsThatAreAndThoseToCome) {
    EchoWorker first("a", 1000, "m");
    EchoWorker second("b", 2000, "other");
    start({first.address(), second.address()});
    const auto both_have = [&](std::optional<std::size_t> most) {
        const auto routers = models_->routers();
        return routers.size() == 2 && std::ranges::all_of(routers, [&](const auto& served) {
                   const auto queue = served.router->state().queue;
                   return most ? queue && queue->most == *most : !queue;
               });
    };
    models_->set_queue({.most_requests = 7});  // perhaps none is there yet
    EXPECT_TRUE(eventually([&] { return both_have(7); }));
    models_->set_queue({.most_requests = 0});
    EXPECT_TRUE(both_have(std::nullopt));
    models_->set_queue({.most_requests = 9});
    EXPECT_TRUE(both_have(9));
}

TEST(AnsweringPool, RefusesWhatNobodyCouldAnswerOnceThatHasLasted) {
    ManualClock clock;
    std::size_t released = 0;
    AnsweringPool pool(
        engine::make_echo_engine({}), std::chrono::seconds(2), [&](const auto&) { ++released; },
        clock);
    const auto submit = [&](protocol::Leg leg) {
        class Nobody final : public engine::StepSink {
            void on_step(protocol::StepBatch&&) override {}
        };
        static std::uint64_t id = 0;
        protocol::GenerateRequest r;
        r.id = protocol::RequestId(++id);
        r.prompt = {1, 2, 3};
        r.leg = leg;
        if (leg == protocol::Leg::kWhole) {
            r.media.emplace_back().embeddings = std::make_shared<protocol::Handoff>();
        }
        const auto taken = pool.submit(std::move(r), std::make_shared<Nobody>());
        return taken ? std::string() : taken.error().message;
    };
    EXPECT_TRUE(pool.healthy());
    pool.set_lack("no decode worker is ready");
    EXPECT_FALSE(pool.healthy());
    EXPECT_THAT(submit(protocol::Leg::kWhole), Not(HasSubstr("no decode worker")));
    clock.advance(std::chrono::seconds(1));
    pool.set_lack("no decode worker is ready: still");
    clock.advance(std::chrono::seconds(1));
    EXPECT_EQ(released, 0U);
    EXPECT_THAT(submit(protocol::Leg::kWhole), HasSubstr("no decode worker is ready: still"));
    EXPECT_EQ(released, 1U);
    EXPECT_THAT(submit(protocol::Leg::kEncode), Not(HasSubstr("no decode worker")));
    pool.set_lack("");
    EXPECT_TRUE(pool.healthy());
    EXPECT_THAT(submit(protocol::Leg::kWhole), Not(HasSubstr("no decode worker")));
    pool.stop(Deadline::at({}));
}

TEST(AnsweringPool, PassesReleasesOn) {
    const ManualClock clock;
    const auto engine = std::make_shared<ScriptedEngine>(text::ByteTokenizer({}), "", 1);
    AnsweringPool pool(engine, std::chrono::seconds(2), {}, clock);
    pool.release(std::make_shared<protocol::Handoff>());
    EXPECT_EQ(engine->released(), 1U);
}

TEST_F(PoolModelsTest, WhatWasKeptIsNotFetchedAgain) {
    EchoWorker a("a", 100, "m");
    EchoWorker b("b", 200, "n");
    start({a.address()});
    ASSERT_TRUE(eventually([&] { return serves("m"); }));
    models_->stop(Deadline::at({}));
    models_.reset();
    fleet_->stop();
    start({b.address()});  // another pool with the same tokenizer
    ASSERT_TRUE(eventually([&] { return serves("n"); }));
    EXPECT_THAT(registry_.render(), HasSubstr("stator_artifacts_found_total 1"));
    EXPECT_THAT(registry_.render(), HasSubstr("stator_artifacts_fetched_total 1"));
}

TEST_F(PoolModelsTest, ATokenizerThatCannotBeReadIsTriedAgain) {
    failures_left_ = 2;
    EchoWorker a("a", 100, "m");
    start({a.address()});
    ASSERT_TRUE(eventually([&] { return serves("m"); }));
    EXPECT_EQ(loads_.load(), 3);
    EXPECT_THAT(registry_.render(), HasSubstr("stator_artifacts_failed_total 2"));
}

TEST_F(PoolModelsTest, TwoPoolsOfOneNameShareItAndAPoolThatIsLostKeepsItsName) {
    EchoWorker old_one("a", 100, "m");
    EchoWorker new_one("b", 200, "m");
    start({old_one.address(), new_one.address()});
    const auto two = [&] {
        const std::string health = send("/health").body;
        const auto first = health.find("\"pool\":");
        return first != std::string::npos && health.find("\"share\":1.0", first + 200) != first;
    };
    ASSERT_TRUE(eventually([&] { return loads_ == 2 && serves("m") && two(); }));
    for (int i = 0; i < 8; ++i) EXPECT_THAT(complete("m"), HasSubstr("abcabc"));
    old_one.stop();
    new_one.stop();
    ASSERT_TRUE(eventually([&] { return send("/health").status == 503; }));
    EXPECT_TRUE(serves("m"));
    EXPECT_THAT(complete("m"), Not(HasSubstr("abcabc")));
}

}  // namespace
}  // namespace stator::frontend
