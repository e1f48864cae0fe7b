#include "stator/routing/remote_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <sstream>

#include "stator/codec/json.h"
#include "stator/net/scripted_server.h"

namespace stator::routing {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class RemoteRouterTest : public ::testing::Test {
  protected:
    RemoteRouterTest() { loops_.start(); }
    ~RemoteRouterTest() override {
        router_.reset();
        loops_.stop();
    }
    void talk_to(std::uint16_t port, RemoteRouterOptions options = {}) {
        options.url = *net::parse_http_url("http://127.0.0.1:" + std::to_string(port));
        router_ = std::make_unique<RemoteRouter>(std::move(options), loops_, registry_);
    }
    Result<Advice> reserve(protocol::GenerateRequest request = prompt()) {
        std::promise<Result<Advice>> promise;
        auto future = promise.get_future();
        router_->reserve("pool-1", request,
                         [&](Result<Advice> a) { promise.set_value(std::move(a)); });
        EXPECT_EQ(future.wait_for(10s), std::future_status::ready);
        return future.get();
    }
    static protocol::GenerateRequest prompt() {
        protocol::GenerateRequest r;
        r.prompt = {1, 2, 3};
        r.max_tokens = 7;
        return r;
    }
    double metric(const std::string& name) {
        std::istringstream text(registry_.render());
        for (std::string line; std::getline(text, line);) {
            if (line.starts_with(name + " ")) return std::stod(line.substr(line.rfind(' ')));
        }
        return -1;
    }

    metrics::Registry registry_;
    runtime::LoopPool loops_{1, "test"};
    std::unique_ptr<RemoteRouter> router_;
};

TEST_F(RemoteRouterTest, AsksTellsAndReleases) {
    std::mutex mutex;
    std::vector<std::string> requests;
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        for (std::string r = c.read_request(); !r.empty(); r = c.read_request()) {
            {
                const std::scoped_lock lock(mutex);
                requests.push_back(r);
            }
            const bool reserves = r.starts_with("POST /router/reserve ");
            c.answer(reserves ? R"({"booking":"b7","worker":"w","rank":2,"cached_tokens":0})"
                              : R"({"ok":true})");
        }
    });
    talk_to(server.port(), {.url = {}, .key = "secret", .timeout = 5s});
    auto request = prompt();
    request.priority = -1;
    request.tenant = "acme";
    request.cache_salt = ~std::uint64_t{0};
    request.hints = std::make_shared<protocol::RouteHints>();
    request.hints->session = "s \"1\"";
    request.hints->required_labels = {"zone=a"};
    const auto advice = reserve(request);
    ASSERT_TRUE(advice) << advice.error().message;
    EXPECT_EQ(advice->worker, "w");
    EXPECT_EQ(advice->rank, 2U);
    EXPECT_EQ(advice->booking, "b7");
    router_->first_token("b7", 32);
    router_->release("b7");
    router_->stop();  // waits for what is under way
    const std::scoped_lock lock(mutex);
    ASSERT_EQ(requests.size(), 3U);
    EXPECT_THAT(requests[0], HasSubstr("Bearer secret"));
    codec::JsonDocument document;
    const auto body = document.parse(requests[0].substr(requests[0].find("\r\n\r\n") + 4));
    ASSERT_TRUE(body);
    EXPECT_EQ(body->find("model").as_string(), "pool-1");
    EXPECT_EQ(body->find("priority").as_int(), -1);
    EXPECT_EQ(body->find("tenant").as_string(), "acme");
    EXPECT_EQ(body->find("cache_salt").as_uint(), ~std::uint64_t{0});
    EXPECT_EQ(body->find("session").as_string(), "s \"1\"");
    EXPECT_EQ(body->find("max_tokens").as_int(), 7);
    EXPECT_EQ(body->find("tokens").size(), 3U);
    std::string rest = requests[1] + requests[2];
    EXPECT_THAT(rest, HasSubstr("POST /router/first_token "));
    EXPECT_THAT(rest, HasSubstr(R"({"booking":"b7","cached_tokens":32})"));
    EXPECT_THAT(rest, HasSubstr("POST /router/release "));
}

TEST_F(RemoteRouterTest, BadAnswersAreErrors) {
    std::vector<std::pair<std::string, std::string>> answers{
        {"200 OK", "no json"},
        {"200 OK", "{}"},
        {"200 OK", R"({"booking":"b","worker":"w","rank":-1})"},
        {"200 OK", R"({"booking":"b","worker":"w","rank":70000})"},
        {"200 OK", R"({"booking":"","worker":"w","rank":0})"},
        {"404 Not Found", R"({"error":{"message":"no pool serves it"}})"},
        {"200 OK", "{\"x\":\"" + std::string(100'000, 'x') + "\"}"},
    };
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        for (std::size_t i = 0; !c.read_request().empty() && i < answers.size(); ++i) {
            c.answer(answers[i].second, answers[i].first);
        }
    });
    talk_to(server.port(), {.url = {}, .key = {}, .timeout = 5s, .failures_before_rest = 100});
    for (std::size_t i = 0; i < answers.size(); ++i) {
        const auto advice = reserve();
        ASSERT_FALSE(advice) << i;
        EXPECT_EQ(advice.error().code, ErrorCode::kUnavailable) << i;
        if (i == 5) EXPECT_THAT(advice.error().message, HasSubstr("no pool serves it"));
    }
}

TEST_F(RemoteRouterTest, ASilentRouterIsLeftAloneForAWhile) {
    std::atomic<int> asked{0};
    net::ScriptedServer server([&](net::ScriptedConnection& c) {
        while (!c.read_request().empty()) ++asked;
    });
    talk_to(server.port(),
            {.url = {}, .key = {}, .timeout = 30ms, .rest = 300ms, .failures_before_rest = 2});
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(reserve());
    EXPECT_EQ(metric("stator_router_remote_asked_total"), 2);
    EXPECT_EQ(metric("stator_router_remote_failed_total"), 2);
    // Then it is asked again.
    const Deadline end = Deadline::after(Clock::real().now(), 10s);
    while (metric("stator_router_remote_asked_total") < 3) {
        ASSERT_FALSE(end.reached(Clock::real().now()));
        EXPECT_FALSE(reserve());
    }
}

TEST_F(RemoteRouterTest, NobodyThereIsAnErrorAndSoIsTheEnd) {
    std::uint16_t port = 0;
    {
        net::ScriptedServer gone([](net::ScriptedConnection&) {});
        port = gone.port();
    }
    talk_to(port, {.url = {}, .key = {}, .timeout = 5s});
    EXPECT_FALSE(reserve());
    router_->release("x");
    router_->stop();
    EXPECT_FALSE(reserve());
}

}  // namespace
}  // namespace stator::routing
