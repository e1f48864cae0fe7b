// How the door behaves as an HTTP server: errors, limits, keys, CORS, health, metrics, clients that
// leave.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "stator/frontend/loopback_door.h"

namespace stator::frontend {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

TEST(FrontendHttp, FullEngineIs429) {
    Door door({.max_running = 1, .max_waiting = 0, .step = kForever});
    RawClient first(door.port());
    first.post(kChat, chat_body("x", R"("max_tokens":5)"));
    ASSERT_TRUE(door.busy());
    const auto refused = door.chat("x");
    expect_error(refused, 429, "", "rate_limit_exceeded");
    EXPECT_GE(std::stoi(std::string(refused.header("retry-after"))), 1);
    first.leave();
    EXPECT_TRUE(door.idle());
}

TEST(FrontendHttp, RefusedDemandIsDemand) {
    Door door({.max_running = 1, .max_waiting = 0, .step = kForever});
    EXPECT_EQ(door.chat("x", R"("n":3)").status, 429);
    auto demand = door.frontend().demand();
    ASSERT_EQ(demand.size(), 1U);
    EXPECT_EQ(demand[0].offered, 3U);
    // Counted behind the answer.
    const Deadline end = Deadline::after(Clock::real().now(), 20s);
    while (demand[0].refused == 0 && !end.reached(Clock::real().now())) {
        std::this_thread::yield();
        demand = door.frontend().demand();
    }
    EXPECT_EQ(demand[0].refused, 3U);
    EXPECT_EQ(demand[0].started_prompt_tokens, 0U);
    EXPECT_TRUE(door.idle());
}

TEST(FrontendHttp, RefusedChoicesLeaveNothingBehind) {
    Door door({.max_running = 2, .max_waiting = 0, .step = kForever});
    EXPECT_EQ(door.chat("x", R"("n":3)").status, 429);
    EXPECT_TRUE(door.idle());
}

TEST(FrontendHttp, DisconnectFreesTheSlots) {
    for (const char* extra :
         {R"("n":3,"max_tokens":50)", R"("n":3,"max_tokens":50,"stream":true)"}) {
        Door door({.step = kForever});
        {
            RawClient client(door.port());
            client.post(kChat, chat_body("x", extra));
            ASSERT_TRUE(door.busy());
        }
        EXPECT_TRUE(door.idle());
        EXPECT_THAT(
            door.metrics(),
            HasSubstr(R"(stator_sequences_ended_total{finish="cancelled",model="org/echo"} 3)"));
        EXPECT_THAT(door.metrics(), HasSubstr("stator_http_inflight_requests 0"));
    }
}

TEST(FrontendHttp, DisconnectInMidStream) {
    Door door({.step = 1ms});
    RawClient client(door.port());
    client.post(kChat, chat_body("x", R"("max_tokens":100000,"stream":true)"));
    EXPECT_THAT(client.read_some(), HasSubstr("HTTP/1.1 200"));
    client.leave();
    EXPECT_TRUE(door.idle());
}

TEST(FrontendHttp, SlowReaderIsResetAndFreesItsSlot) {
    net::HttpLimits limits;
    limits.max_output_bytes = 64 * 1024;
    Door door({.tokens_per_step = 4}, {}, limits);
    RawClient client(door.port(), 4096);
    client.post(kChat, chat_body("x", R"("max_tokens":130000,"stream":true)"));
    EXPECT_TRUE(door.busy());
    EXPECT_TRUE(door.idle());
    EXPECT_EQ(door.chat("still serves", R"("max_tokens":2)").status, 200);
}

TEST(FrontendHttp, DeadlinesEndRequests) {
    Door door({.step = kForever}, {.request_timeout = 30ms});
    expect_error(door.chat("abc"), 504, "", "timeout");
    EXPECT_TRUE(door.idle());
}

TEST(FrontendHttp, StoppingEngineEndsRequestsWithAnError) {
    Door door({.step = kForever});
    net::HttpClientResponse response;
    std::thread client([&] { response = door.chat("abc"); });
    ASSERT_TRUE(door.busy());
    door.engine().stop(Deadline::at({}));
    client.join();
    expect_error(response, 503, "", "service_unavailable");
    EXPECT_FALSE(response.header("retry-after").empty());
    EXPECT_EQ(door.chat("abc").status, 503);
    const auto health = door.send("GET", "/health");
    EXPECT_EQ(health.status, 503);
}

TEST(FrontendHttp, TooManyInflight) {
    Door door({.step = kForever}, {.max_inflight = 1});
    RawClient first(door.port());
    first.post(kChat, chat_body("x", R"("max_tokens":5)"));
    ASSERT_TRUE(door.busy());
    const auto refused = door.chat("x");
    expect_error(refused, 503, "", "service_unavailable");
    EXPECT_EQ(refused.header("retry-after"), "1");
    first.leave();
    EXPECT_TRUE(door.idle());
}

TEST(FrontendHttp, ErrorShapes) {
    Door door({.context_tokens = 100});
    expect_error(door.post(kChat, ""), 400, "", "");
    expect_error(door.post(kChat, "{"), 400, "", "");
    expect_error(door.post(kChat, "[]"), 400, "", "");
    expect_error(door.post(kChat, R"({"model":"nope"})"), 404, "model", "model_not_found");
    expect_error(door.chat("x", R"("n":0)"), 400, "n", "");
    expect_error(door.chat("x", R"("max_tokens":-1)"), 400, "max_tokens", "");
    expect_error(door.chat("x", R"("tools":[{}])"), 400, "tools[0].type", "");
    expect_error(door.chat("x", R"("functions":[{}])"), 400, "functions", "unsupported_parameter");
    expect_error(door.chat(std::string(100, 'x')), 400, "messages", "context_length_exceeded");
    expect_error(door.chat("x", R"("max_tokens":100)"), 400, "max_tokens",
                 "context_length_exceeded");
    expect_error(door.send("GET", "/nowhere"), 404, "", "not_found");
    expect_error(door.send("POST", "/v1/embeddings", "{}"), 501, "", "not_implemented");
    expect_error(door.send("GET", "/v1/models/nope"), 404, "model", "model_not_found");
    const auto method = door.send("GET", kChat);
    expect_error(method, 405, "", "method_not_allowed");
    EXPECT_EQ(method.header("allow"), "POST");
    EXPECT_EQ(door.send("POST", "/v1/models", "{}").header("allow"), "GET, HEAD");
    expect_error(door.send("POST", kChat, "<a/>", {{"Content-Type", "application/xml"}}), 415, "",
                 "unsupported_media_type");
}

TEST(FrontendHttp, ContentTypesThatAreJson) {
    Door door;
    const std::string body = chat_body("ab", R"("max_tokens":1)");
    EXPECT_EQ(door.send("POST", kChat, body).status, 200);
    for (const char* type :
         {"application/json", "Application/JSON; charset=utf-8", "application/json ;x"}) {
        EXPECT_EQ(door.send("POST", kChat, body, {{"Content-Type", type}}).status, 200) << type;
    }
}

TEST(FrontendHttp, Models) {
    Door door;
    const Json list(door.send("GET", "/v1/models").body);
    EXPECT_EQ(list.str("object"), "list");
    EXPECT_EQ(list.at("data").size(), 2U);
    EXPECT_EQ(list.str("data", 0, "id"), "org/echo");
    EXPECT_EQ(list.str("data", 1, "id"), "echo");
    EXPECT_EQ(list.num("data", 0, "max_model_len"), 131'072);
    EXPECT_EQ(list.num("data", 0, "context_length"), 131'072);
    EXPECT_EQ(list.str("data", 0, "owned_by"), "stator");
    for (const char* path : {"/v1/models/org/echo", "/v1/models/org%2Fecho"}) {
        EXPECT_EQ(Json(door.send("GET", path).body).str("id"), "org/echo");
    }
}

TEST(FrontendHttp, DemandIsWhatWasOffered) {
    Door door;
    EXPECT_TRUE(door.frontend().demand().empty());
    const std::string body = chat_body("ab", R"("max_tokens":2,"n":2)");
    ASSERT_EQ(door.send("POST", kChat, body).status, 200);
    ASSERT_EQ(door.send("POST", kChat, body, {{"x-stainless-retry-count", "0"}}).status, 200);
    ASSERT_EQ(door.send("POST", kChat, body, {{"x-stainless-retry-count", "1"}}).status, 200);
    ASSERT_EQ(door.send("POST", kChat, "{}").status, 400);
    const auto demand = door.frontend().demand();
    ASSERT_EQ(demand.size(), 1U);
    EXPECT_EQ(demand[0].model, "org/echo");
    EXPECT_EQ(demand[0].offered, 4U);
    EXPECT_EQ(demand[0].refused, 0U);
    EXPECT_GT(demand[0].prompt_tokens, 0U);
    EXPECT_EQ(demand[0].started_prompt_tokens, demand[0].prompt_tokens / 2 * 3);
    EXPECT_EQ(demand[0].finished, 6U);
    EXPECT_EQ(demand[0].output_tokens, 12U);
    std::uint64_t first_tokens = 0;
    for (const std::uint64_t n : demand[0].ttft.counts) first_tokens += n;
    EXPECT_EQ(first_tokens, 3U);
    EXPECT_EQ(demand[0].ttft.counts.size(), demand[0].ttft.bounds.size() + 1);
}

TEST(FrontendHttp, HealthFollowsReadiness) {
    Door door;
    EXPECT_EQ(door.send("GET", "/live").status, 200);
    auto health = door.send("GET", "/health");
    EXPECT_EQ(health.status, 503);
    EXPECT_EQ(Json(health.body).str("status"), "starting");
    door.frontend().set_ready(true);
    health = door.send("GET", "/health");
    EXPECT_EQ(health.status, 200);
    const Json json(health.body);
    EXPECT_EQ(json.str("status"), "ready");
    EXPECT_EQ(json.str("models", 0, "id"), "org/echo");
    EXPECT_EQ(json.num("models", 0, "load", "running"), 0);
    EXPECT_FALSE(json.str("version").empty());
    door.frontend().set_ready(false);
    EXPECT_EQ(Json(door.send("GET", "/health").body).str("status"), "draining");
    EXPECT_EQ(door.send("HEAD", "/live").status, 200);
    EXPECT_EQ(door.send("HEAD", "/live").body, "");
}

TEST(FrontendHttp, Keys) {
    Door door({}, {.api_keys = {"k1", "k2"}});
    const auto missing = door.send("GET", "/v1/models");
    expect_error(missing, 401, "", "invalid_api_key");
    EXPECT_EQ(missing.header("www-authenticate"), "Bearer");
    expect_error(door.send("GET", "/v1/models", "", {{"Authorization", "Bearer k3"}}), 401, "",
                 "invalid_api_key");
    EXPECT_EQ(door.send("GET", "/metrics").status, 401);
    EXPECT_EQ(door.send("POST", "/v1/embeddings", "{}").status, 401);
    EXPECT_EQ(door.send("GET", kChat).status, 401);
    EXPECT_EQ(door.send("GET", "/v1/models", "", {{"Authorization", "Bearer k2"}}).status, 200);
    EXPECT_EQ(door.send("GET", "/v1/models", "", {{"x-api-key", "k1"}}).status, 200);
    EXPECT_EQ(door.send("GET", "/live").status, 200);
    EXPECT_EQ(door.send("GET", "/health").status, 503);
    EXPECT_EQ(door.send("GET", "/nowhere").status, 404);
}

TEST(FrontendHttp, RequestIds) {
    Door door;
    EXPECT_EQ(door.send("GET", "/live", "", {{"X-Request-Id", "abc-1"}}).header("x-request-id"),
              "abc-1");
    const auto made = std::string(
        door.send("GET", "/live", "", {{"x-request-id", "a b"}}).header("x-request-id"));
    EXPECT_THAT(made, testing::StartsWith("req-"));
    EXPECT_NE(made, std::string(door.send("GET", "/live").header("x-request-id")));
    EXPECT_FALSE(door.chat("x", R"("n":0)").header("x-request-id").empty());
}

TEST(FrontendHttp, Cors) {
    Door door({}, {.api_keys = {"k"}, .cors_origins = {"https://a.example"}});
    const Door::Headers preflight = {
        {"Origin", "https://a.example"},
        {"Access-Control-Request-Method", "POST"},
        {"Access-Control-Request-Headers", "authorization,x-stainless-os"}};
    const auto allowed = door.send("OPTIONS", kChat, "", preflight);
    EXPECT_EQ(allowed.status, 204);
    EXPECT_EQ(allowed.header("access-control-allow-origin"), "https://a.example");
    EXPECT_EQ(allowed.header("access-control-allow-methods"), "POST");
    EXPECT_EQ(allowed.header("access-control-allow-headers"), "authorization,x-stainless-os");
    EXPECT_EQ(allowed.header("vary"), "Origin");
    const auto other = door.send("GET", "/live", "", {{"Origin", "https://b.example"}});
    EXPECT_EQ(other.header("access-control-allow-origin"), "");
    EXPECT_EQ(other.header("vary"), "Origin");
    const auto mine = door.send("GET", "/v1/models", "", {{"Origin", "https://a.example"}});
    EXPECT_EQ(mine.status, 401);
    EXPECT_EQ(mine.header("access-control-allow-origin"), "https://a.example");
    EXPECT_THAT(std::string(mine.header("access-control-expose-headers")),
                HasSubstr("x-request-id"));

    Door open({}, {.cors_origins = {"*"}});
    const auto any = open.send("GET", "/live", "", {{"Origin", "https://b.example"}});
    EXPECT_EQ(any.header("access-control-allow-origin"), "*");
    Door off;
    EXPECT_EQ(off.send("OPTIONS", kChat, "", preflight).status, 405);
    EXPECT_EQ(off.send("GET", "/live", "", preflight).header("access-control-allow-origin"), "");
}

TEST(FrontendHttp, MetricsCount) {
    Door door({.cached_tokens = 1});
    EXPECT_EQ(door.chat("abc", R"("max_tokens":5)").status, 200);
    EXPECT_EQ(door.chat("abc", R"("n":0)").status, 400);
    const std::string text = door.metrics();
    for (const char* line :
         {R"(stator_http_requests_total{route="/v1/chat/completions",status="2xx"} 1)",
          R"(stator_http_requests_total{route="/v1/chat/completions",status="4xx"} 1)",
          R"(stator_prompt_tokens_total{model="org/echo"} 3)",
          R"(stator_output_tokens_total{model="org/echo"} 5)",
          R"(stator_cached_prompt_tokens_total{model="org/echo"} 1)",
          R"(stator_time_to_first_token_seconds_count{model="org/echo"} 1)",
          R"(stator_time_per_output_token_seconds_count{model="org/echo"} 1)",
          R"(stator_sequences_ended_total{finish="length",model="org/echo"} 1)",
          R"(stator_engine_decode_tokens_total{model="org/echo"} 5)", "stator_bugs_total 0",
          "stator_build_info{", "process_resident_memory_bytes", "process_open_fds",
          "stator_http_connections_accepted_total"}) {
        EXPECT_THAT(text, HasSubstr(line));
    }
}

}  // namespace
}  // namespace stator::frontend
