#include "stator/frontend/relay/relay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "stator/frontend/loopback_door.h"
#include "stator/frontend/relay/upstreams.h"
#include "stator/net/scripted_server.h"

namespace stator::frontend {
namespace {

using net::ScriptedConnection;
using net::ScriptedServer;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::string_view kModels =
    R"({"object":"list","data":[{"id":"big"},{"id":"small"},{"id":7},{}]})";

/// Answers probes; hands every other request to `serve`, until that says to close.
ScriptedServer::Script upstream(
    std::function<bool(ScriptedConnection&, const std::string& request)> serve) {
    return [serve = std::move(serve)](ScriptedConnection& c) {
        while (true) {
            const std::string request = c.read_request();
            if (request.empty()) return;
            if (request.starts_with("GET /v1/models ")) {
                c.answer(kModels);
            } else if (!serve(c, request)) {
                return;
            }
        }
    };
}

std::string chunk(std::string_view data) {
    return fmt::format("{:x}\r\n{}\r\n", data.size(), data);
}

constexpr std::string_view kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A door with no models of its own before these upstreams.
class RelayDoor {
  public:
    explicit RelayDoor(const std::vector<std::string>& urls, RelayOptions options = {}) {
        set_log(LogLevel::kError, LogFormat::kText);
        for (const std::string& url : urls) {
            options.upstreams.push_back(*net::parse_http_url(url));
        }
        options.probe_interval = std::chrono::milliseconds(20);
        loops_.start();
        relay_ = Relay::start(std::move(options), loops_, registry_);
        frontend_.set_relay(relay_);
        frontend_.set_ready(true);
        EXPECT_TRUE(server_.listen("127.0.0.1", 0));
        const Deadline end = Deadline::after(Clock::real().now(), std::chrono::seconds(20));
        while (!relay_->serves("big") && !end.reached(Clock::real().now())) {
            std::this_thread::yield();
        }
    }
    ~RelayDoor() {
        server_.stop(Deadline::after(Clock::real().now(), std::chrono::seconds(2)));
        relay_->stop();
        loops_.stop();
    }

    net::HttpClientResponse send(const std::string& method, std::string_view path,
                                 std::string body = {},
                                 std::vector<std::pair<std::string, std::string>> headers = {}) {
        net::HttpClientRequest request;
        request.method = method;
        request.url = "http://127.0.0.1:" + std::to_string(server_.port()) + std::string(path);
        request.body = std::move(body);
        request.headers = std::move(headers);
        request.read_timeout = std::chrono::seconds(30);
        auto response = net::http_request(request);
        EXPECT_TRUE(response) << (response ? "" : response.error().message);
        return response ? std::move(*response) : net::HttpClientResponse{};
    }
    net::HttpClientResponse chat(const std::string& extra = {}) {
        return send("POST", kChat, R"({"model":"big","messages":[])" + extra + "}");
    }
    [[nodiscard]] Relay& relay() { return *relay_; }
    [[nodiscard]] std::uint16_t port() const { return server_.port(); }
    [[nodiscard]] std::string metrics() { return send("GET", "/metrics").body; }

  private:
    metrics::Registry registry_;
    runtime::LoopPool loops_{2, "test-loop"};
    Frontend frontend_{{}, loops_, registry_};
    std::shared_ptr<Relay> relay_;
    net::HttpServer server_{loops_, {}, frontend_.handler(), Frontend::error_body()};
};

TEST(Relay, BytesGoOnAsTheyCame) {
    std::string seen;
    const ScriptedServer server(upstream([&](ScriptedConnection& c, const std::string& request) {
        seen = request;
        return c.answer(R"({"any":"thing"})", "202 Accepted");
    }));
    RelayDoor door({server.url()});
    const std::string body = "{\"model\" : \"big\", \"x\":18446744073709551615 , \"messages\":[] }";
    const auto answer = door.send("POST", kChat, body,
                                  {{"Authorization", "Bearer secret"},
                                   {"traceparent", "00-a"},
                                   {"x-request-id", "my-id"},
                                   {"Cookie", "c"}});
    EXPECT_EQ(answer.status, 202);
    EXPECT_EQ(answer.body, R"({"any":"thing"})");
    EXPECT_THAT(seen, testing::StartsWith("POST /v1/chat/completions HTTP/1.1\r\n"));
    EXPECT_TRUE(seen.ends_with(body)) << seen;
    EXPECT_THAT(seen, HasSubstr("traceparent: 00-a\r\n"));
    EXPECT_THAT(seen, HasSubstr("x-request-id: my-id\r\n"));
    EXPECT_THAT(seen, testing::Not(HasSubstr("secret")));
    EXPECT_THAT(seen, testing::Not(HasSubstr("Cookie")));
}

TEST(Relay, StreamsAsTheyCome) {
    const ScriptedServer server(upstream([&](ScriptedConnection& c, const std::string&) {
        return c.send(kStreamHead) && c.send(chunk("data: 1\n\n")) &&
               c.send(chunk("data: 2\n\n") + chunk("data: [DONE]\n\n") + "0\r\n\r\n");
    }));
    RelayDoor door({server.url()});
    for (int i = 0; i < 3; ++i) {
        const auto answer = door.chat(R"(,"stream":true)");
        EXPECT_THAT(events_of(answer), ElementsAre("1", "2", "[DONE]"));
    }
}

TEST(Relay, KeysGoOnOnlyWhereTheyAreMeantTo) {
    std::string seen;
    const ScriptedServer server(upstream([&](ScriptedConnection& c, const std::string& request) {
        seen = request;
        return c.answer("{}");
    }));
    const std::vector<std::pair<std::string, std::string>> own = {{"Authorization", "Bearer mine"}};
    const std::string body = R"({"model":"big"})";
    {
        RelayOptions options;
        options.pass_authorization = true;
        RelayDoor door({server.url()}, options);
        door.send("POST", kChat, body, own);
        EXPECT_THAT(seen, HasSubstr("Bearer mine"));
    }
    RelayOptions options;
    options.pass_authorization = true;
    options.key = "theirs";
    RelayDoor door({server.url()}, options);
    door.send("POST", kChat, body, own);
    EXPECT_THAT(seen, HasSubstr("Bearer theirs"));
    EXPECT_THAT(seen, testing::Not(HasSubstr("mine")));
}

TEST(Relay, MediaOfAllKindsAreTheUpstreamsToRead) {
    std::string seen;
    const ScriptedServer server(upstream([&](ScriptedConnection& c, const std::string& request) {
        seen = request.substr(request.find("\r\n\r\n") + 4);
        return c.answer("{}");
    }));
    RelayDoor door({server.url()});
    const std::string body =
        R"({"model":"big","messages":[{"role":"user","content":[)"
        R"({"type":"input_audio","input_audio":{"data":"UklGRg==","format":"wav"}},)"
        R"({"type":"video_url","video_url":{"url":"data:video/mp4;base64,AAAA"}},)"
        R"({"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}]}]})";
    EXPECT_EQ(door.send("POST", kChat, body, {{"Content-Type", "application/json"}}).status, 200);
    EXPECT_EQ(seen, body);
}

TEST(Relay, AnUpstreamThatIsGoneCostsNoRequest) {
    const net::RefusingPort nobody;
    std::atomic<int> served{0};
    std::atomic<bool> leave{false};
    // Goes in the middle of its life: closes whatever comes after its first answer.
    const ScriptedServer moody(upstream([&](ScriptedConnection& c, const std::string&) {
        if (leave.exchange(true)) return false;
        return c.answer("{}");
    }));
    const ScriptedServer steady(upstream([&](ScriptedConnection& c, const std::string&) {
        ++served;
        return c.answer("{}");
    }));
    RelayDoor door({nobody.url(), moody.url(), steady.url()});
    for (int i = 0; i < 30; ++i) EXPECT_EQ(door.chat().status, 200);
    EXPECT_GE(served.load(), 10);
    EXPECT_THAT(door.metrics(), HasSubstr("stator_relay_requests_total{upstream=\"127.0.0.1:"));
}

TEST(Relay, WithoutAnyUpstreamThereIsA503) {
    std::optional<ScriptedServer> server;
    server.emplace(upstream([](ScriptedConnection&, const std::string&) { return false; }));
    RelayDoor door({server->url()});
    EXPECT_EQ(door.send("GET", "/health").status, 200);
    expect_error(door.chat(), 503, "", "service_unavailable");
    server.reset();
    const Deadline end = Deadline::after(Clock::real().now(), std::chrono::seconds(20));
    while (door.relay().healthy() && !end.reached(Clock::real().now())) std::this_thread::yield();
    expect_error(door.chat(), 503, "", "service_unavailable");
    EXPECT_EQ(door.send("GET", "/health").status, 503);
}

TEST(Relay, AStreamCutShortEndsWithAnErrorEvent) {
    const ScriptedServer server(upstream([&](ScriptedConnection& c, const std::string&) {
        c.send(kStreamHead);
        c.send(chunk("data: 1\n\n"));
        return false;
    }));
    RelayDoor door({server.url()});
    const auto events = events_of(door.chat(R"(,"stream":true)"));
    ASSERT_EQ(events.size(), 2U);
    EXPECT_EQ(events[0], "1");
    EXPECT_THAT(Json(events[1]).str("error", "message"), HasSubstr("cut short"));
}

TEST(Relay, AWholeAnswerCutShortOrTooLongIsAnError) {
    const ScriptedServer server(upstream([&](ScriptedConnection& c, const std::string& request) {
        if (request.find("\"long\"") != std::string::npos) return c.answer(std::string(5000, 'x'));
        c.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        return false;
    }));
    RelayOptions options;
    options.max_answer_bytes = 4096;
    RelayDoor door({server.url()}, options);
    expect_error(door.chat(), 503, "", "service_unavailable");
    const auto answer = door.chat(R"(,"long":1)");
    expect_error(answer, 503, "", "service_unavailable");
    EXPECT_THAT(answer.body, HasSubstr("too long"));
}

TEST(Relay, AClientThatLeavesEndsTheWork) {
    std::atomic<bool> ended{false};
    std::atomic<bool> begun{false};
    const ScriptedServer server(upstream([&](ScriptedConnection& c, const std::string&) {
        c.send(kStreamHead);
        c.send(chunk("data: 1\n\n"));
        begun = true;
        c.await_end();
        ended = true;
        return false;
    }));
    RelayDoor door({server.url()});
    {
        RawClient client(door.port());
        client.post(kChat, R"({"model":"big","stream":true})");
        EXPECT_THAT(client.read_some(), HasSubstr("200 OK"));
    }
    const Deadline end = Deadline::after(Clock::real().now(), std::chrono::seconds(20));
    while (!ended && !end.reached(Clock::real().now())) std::this_thread::yield();
    EXPECT_TRUE(begun);
    EXPECT_TRUE(ended);
}

TEST(Relay, WhatIsNotForClientsIsRefused) {
    const ScriptedServer server(
        upstream([](ScriptedConnection& c, const std::string&) { return c.answer("{}"); }));
    RelayDoor door({server.url()});
    expect_error(door.chat(R"(,"kv_transfer_params":{"remote_host":"x"})"), 400,
                 "kv_transfer_params", "");
    EXPECT_EQ(door.chat(R"(,"kv_transfer_params":null)").status, 200);
    // Where a name is there twice, engines take the last one.
    expect_error(door.chat(R"(,"bootstrap_room":null,"bootstrap_room":7)"), 400, "bootstrap_room",
                 "");
    // These reach an engine's core as they are.
    expect_error(door.chat(R"(,"vllm_xargs":{"kv_transfer_params":{"do_remote_prefill":true}})"),
                 400, "kv_transfer_params", "");
    expect_error(door.chat(R"(,"sampling_params":{"extra_args":{"ec_transfer_params":{"a":{}}}})"),
                 400, "ec_transfer_params", "");
    EXPECT_EQ(door.chat(R"(,"vllm_xargs":{"kv_cache_report_mode":"full"})").status, 200);
    EXPECT_EQ(door.send("POST", kChat, "[1]").status, 400);
    EXPECT_EQ(door.send("POST", kChat, "{").status, 400);
    EXPECT_EQ(door.send("POST", kChat, "{}").status, 400);
    EXPECT_EQ(door.send("POST", kChat, R"({"model":"unknown"})").status, 503)
        << "no model of its own: try again";
}

TEST(Relay, ShowsTheUpstreamsModels) {
    const ScriptedServer server(
        upstream([](ScriptedConnection& c, const std::string&) { return c.answer("{}"); }));
    RelayDoor door({server.url()});
    const Json list(door.send("GET", "/v1/models").body);
    EXPECT_EQ(list.str("data", 0, "id"), "big");
    EXPECT_EQ(list.str("data", 1, "id"), "small");
    EXPECT_EQ(door.send("GET", "/v1/models/big").status, 200);
    std::string json;
    codec::JsonWriter w(json);
    door.relay().append_json(w);
    EXPECT_TRUE(*Json(json).at(0, "up").as_bool());
}

TEST(Upstreams, TheLeastBusyOneIsChosen) {
    metrics::Registry registry;
    Upstreams u({*net::parse_http_url("http://a"), *net::parse_http_url("http://b"),
                 *net::parse_http_url("http://c")},
                registry);
    std::vector<bool> tried(3, false);
    EXPECT_EQ(u.choose("m", tried), Upstreams::kNone) << "nobody has answered yet";
    for (std::size_t i = 0; i < 3; ++i) u.answered(i, {"m"});
    u.at(0).in_work = 2;
    u.at(1).in_work = 1;
    u.at(2).in_work = 2;
    EXPECT_EQ(u.choose("m", tried), 1U);
    tried[1] = true;
    EXPECT_NE(u.choose("m", tried), 1U);
    u.failed(0, "gone");
    EXPECT_EQ(u.choose("m", tried), 2U);
    EXPECT_EQ(u.choose("other", tried), Upstreams::kNone);
    EXPECT_THAT(u.models(), ElementsAre("m"));
}

TEST(Upstreams, ListsThatAreNone) {
    EXPECT_THAT(read_model_list("{"), IsEmpty());
    EXPECT_THAT(read_model_list(R"({"data":{}})"), IsEmpty());
    EXPECT_THAT(read_model_list(R"({"data":[{"id":""},{"id":"a"}]})"), ElementsAre("a"));
}

}  // namespace
}  // namespace stator::frontend
