// Models that come and go behind the open door.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "stator/frontend/loopback_door.h"

namespace stator::frontend {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Pool {
    explicit Pool(engine::EchoOptions echo = {}) : engine(engine::make_echo_engine(echo)) {}
    ~Pool() { engine->stop(Deadline::at({})); }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    [[nodiscard]] ServedModel model(std::string id, std::vector<std::string> aliases = {},
                                    std::string pool = {}) const {
        ServedModel m;
        m.id = std::move(id);
        m.aliases = std::move(aliases);
        m.tokenizer = tokenizer;
        m.engine = engine;
        m.pool = std::move(pool);
        return m;
    }
    [[nodiscard]] std::uint64_t tokens() const {
        return engine->forward_pass_metrics().decode_tokens;
    }

    std::shared_ptr<const text::Tokenizer> tokenizer = std::make_shared<text::ByteTokenizer>();
    std::shared_ptr<engine::Engine> engine;
};

TEST(FrontendModels, ADoorWithoutModelsSaysTryAgain) {
    Door door;
    door.frontend().set_models({});
    EXPECT_EQ(Json(door.send("GET", "/health").body).str("status"), "starting");
    door.frontend().set_ready(true);
    const auto health = door.send("GET", "/health");
    EXPECT_EQ(health.status, 503);
    EXPECT_EQ(Json(health.body).str("status"), "no_workers");
    const auto list = door.send("GET", "/v1/models");
    EXPECT_EQ(list.status, 200);
    EXPECT_EQ(Json(list.body).at("data").size(), 0U);
    for (const auto& refused : {door.chat("x"), door.complete("\"x\"")}) {
        expect_error(refused, 503, "", "service_unavailable");
        EXPECT_GE(std::stoi(std::string(refused.header("retry-after"))), 1);
    }

    const Pool pool;
    door.frontend().set_models({pool.model("late")});
    EXPECT_EQ(door.send("GET", "/health").status, 200);
    expect_error(door.complete("\"x\""), 404, "model", "model_not_found");
    EXPECT_EQ(door.post(kCompletions, R"({"model":"late","prompt":"x"})").status, 200);
}

TEST(FrontendModels, HealthShowsTheFleet) {
    Door door;
    EXPECT_FALSE(Json(door.send("GET", "/health").body).at("fleet").present());
    Door other;
    other.frontend().observe_fleet(
        [](codec::JsonWriter& w) { w.begin_object().key("workers").number(3).end_object(); });
    EXPECT_EQ(Json(other.send("GET", "/health").body).num("fleet", "workers"), 3);
}

TEST(FrontendModels, HealthIsDegradedWhileThereAreConcerns) {
    Door door;
    std::vector<std::string> concerns;
    door.frontend().observe_fleet({}, [&] { return concerns; });
    door.frontend().set_ready(true);
    EXPECT_EQ(Json(door.send("GET", "/health").body).str("status"), "ready");
    EXPECT_FALSE(Json(door.send("GET", "/health").body).at("degraded").present());
    concerns = {"gpu-0/0's KV events are not trusted"};
    const auto health = door.send("GET", "/health");
    EXPECT_EQ(health.status, 200);
    EXPECT_EQ(Json(health.body).str("status"), "degraded");
    EXPECT_THAT(health.body, HasSubstr(R"("degraded":["gpu-0/0's KV events are not trusted"])"));
    door.frontend().set_ready(false);
    EXPECT_EQ(Json(door.send("GET", "/health").body).str("status"), "draining");
}

TEST(FrontendModels, PoolsOfOneNameShareItsRequests) {
    Door door;
    const Pool old_pool;
    const Pool new_pool;
    ServedModel old_model = old_pool.model("m", {}, "old");
    ServedModel new_model = new_pool.model("m", {"latest"}, "new");
    old_model.share = 3;
    door.frontend().set_models({old_model, new_model});
    EXPECT_EQ(Json(door.send("GET", "/v1/models").body).at("data").size(), 2U);
    const auto ask = [&] {
        return door.post(kCompletions, R"({"model":"m","prompt":"x","max_tokens":1})").status;
    };
    for (int i = 0; i < 80; ++i) ASSERT_EQ(ask(), 200);
    EXPECT_EQ(old_pool.tokens() + new_pool.tokens(), 80U);
    EXPECT_NEAR(static_cast<double>(old_pool.tokens()), 60.0, 4.0);
    EXPECT_THAT(door.metrics(), HasSubstr(R"(stator_output_tokens_total{model="m"} 80)"));

    // The one that can't serve gets nothing more.
    const auto before = new_pool.tokens();
    old_pool.engine->stop(Deadline::at({}));
    for (int i = 0; i < 10; ++i) ASSERT_EQ(ask(), 200);
    EXPECT_EQ(new_pool.tokens(), before + 10);
    EXPECT_EQ(door.send("GET", "/health").status, 503);  // not set_ready()
    door.frontend().set_ready(true);
    EXPECT_EQ(door.send("GET", "/health").status, 200);
}

TEST(FrontendModels, RequestsInWorkKeepTheirModel) {
    Door door({.step = std::chrono::milliseconds(1)});
    net::HttpClientResponse response;
    std::thread client([&] { response = door.chat("abcd", R"("max_tokens":200)"); });
    ASSERT_TRUE(door.busy());
    const Pool pool;
    door.frontend().set_models({pool.model("other")});
    client.join();
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(Json(response.body).num("usage", "completion_tokens"), 200);
    EXPECT_EQ(door.chat("x").status, 404);
}

TEST(FrontendModels, ReplacedUnderLoad) {
    Door door;
    const Pool first;
    const Pool second;
    const std::vector<std::vector<ServedModel>> sets = {
        {first.model("always")},
        {first.model("always", {}, "a"), second.model("always", {"x"}, "b")},
        {second.model("other", {"always"}), first.model("third")},
    };
    door.frontend().set_models(sets[0]);
    std::atomic<bool> done{false};
    std::atomic<int> answered{0};
    std::vector<std::string> problems(3);
    std::vector<std::thread> clients;
    for (std::size_t c = 0; c < problems.size(); ++c) {
        clients.emplace_back([&, c] {
            // Long prompts go through the pool of threads, short ones do not.
            const std::string prompt(c == 0 ? 70'000 : 20, 'x');
            while (!done) {
                const auto r = door.post(kCompletions, R"({"model":"always","prompt":")" + prompt +
                                                           R"(","max_tokens":3})");
                if (r.status != 200) problems[c] = r.body;
                ++answered;
                if (c == 2 && door.send("GET", "/v1/models").status != 200) problems[c] = "list";
                if (c == 2 && door.metrics().empty()) problems[c] = "metrics";
            }
        });
    }
    const auto wait_for = [&](int more) {
        const Deadline end = Deadline::after(Clock::real().now(), std::chrono::seconds(60));
        const int from = answered;
        while (answered < from + more && !end.reached(Clock::real().now())) {
            std::this_thread::yield();
        }
    };
    for (std::size_t i = 0; i < 60; ++i) {
        door.frontend().set_models(sets[i % sets.size()]);
        wait_for(1);
    }
    done = true;
    for (std::thread& t : clients) t.join();
    EXPECT_THAT(problems, testing::Each(""));
    EXPECT_GE(answered, 60);
    EXPECT_THAT(door.metrics(), HasSubstr("stator_bugs_total 0"));
}

TEST(FrontendModels, ManyIdsDoNotMakeManySeries) {
    Door door;
    const Pool pool;
    for (int i = 0; i < 300; ++i) {
        door.frontend().set_models({pool.model("model-" + std::to_string(i))});
    }
    const std::string text = door.metrics();
    EXPECT_THAT(text, HasSubstr(R"(stator_output_tokens_total{model="other"})"));
    EXPECT_THAT(text, Not(HasSubstr(R"(model="model-299")")));
    EXPECT_EQ(
        door.post(kCompletions, R"({"model":"model-299","prompt":"x","max_tokens":2})").status,
        200);
    EXPECT_THAT(door.metrics(), HasSubstr(R"(stator_output_tokens_total{model="other"} 2)"));
}

}  // namespace
}  // namespace stator::frontend
