#pragma once

// For tests: the whole door over loopback HTTP, in front of the echo engine.
#include "stator/frontend/frontend.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <concepts>
#include <functional>
#include <optional>
#include <thread>

#include "stator/base/log.h"
#include "stator/codec/json.h"
#include "stator/codec/sse.h"
#include "stator/engine/echo/echo_engine.h"
#include "stator/net/http_client.h"
#include "stator/text/byte_tokenizer.h"

namespace stator::frontend {
inline constexpr auto kForever = std::chrono::hours(1);
inline constexpr std::string_view kChat = "/v1/chat/completions";
inline constexpr std::string_view kCompletions = "/v1/completions";

/// Bytes and "<|im_end|>".
inline std::shared_ptr<const text::ByteTokenizer> byte_tokenizer() {
    return std::make_shared<text::ByteTokenizer>(std::vector<std::string>{"<|im_end|>"});
}

/// What a door serves, as "org/echo" and "echo".
struct DoorModel {
    std::shared_ptr<engine::Engine> engine = nullptr;
    std::shared_ptr<const text::Tokenizer> tokenizer = nullptr;  ///< null: byte_tokenizer()
    std::string chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    text::OutputFormat format = {};
    std::vector<std::string> media = {};
    std::string media_mark = {};
    std::shared_ptr<media::MediaLoader> loader = nullptr;
};

/// A running server. Members end in the order that frontend.h asks for.
class Door {
  public:
    explicit Door(engine::EchoOptions echo = {}, FrontendOptions options = {},
                  net::HttpLimits limits = {})
        : Door(DoorModel{.engine = engine::make_echo_engine(echo)}, std::move(options), limits) {}
    /// A template, so that {} means the other one.
    template <std::same_as<DoorModel> Model>
    explicit Door(Model what, FrontendOptions options = {}, net::HttpLimits limits = {})
        : engine_(std::move(what.engine)) {
        set_log(LogLevel::kWarn, LogFormat::kText);
        auto compiled = text::ChatTemplate::compile(what.chat_template, "", "");
        EXPECT_TRUE(compiled);
        frontend_.emplace(std::move(options), loops_, registry_);
        ServedModel model;
        model.id = "org/echo";
        model.aliases = {"echo"};
        model.created = 1'700'000'000;
        model.tokenizer = what.tokenizer ? std::move(what.tokenizer) : byte_tokenizer();
        model.chat_template = std::make_shared<text::ChatTemplate>(std::move(*compiled));
        model.format = std::move(what.format);
        model.engine = engine_;
        model.media = std::move(what.media);
        model.media_mark = std::move(what.media_mark);
        if (what.loader) frontend_->set_media(std::move(what.loader));
        frontend_->add_model(model);
        server_.emplace(loops_, limits, frontend_->handler(), Frontend::error_body());
        frontend_->observe_server([this] { return server_->stats(); });
        loops_.start();
        const auto listening = server_->listen("127.0.0.1", 0);
        EXPECT_TRUE(listening);
    }
    ~Door() {
        server_->stop(Deadline::after(Clock::real().now(), std::chrono::seconds(2)));
        engine_->stop(Deadline::after(Clock::real().now(), std::chrono::seconds(1)));
        loops_.stop();
        server_.reset();
        frontend_.reset();
    }

    using Headers = std::vector<std::pair<std::string, std::string>>;
    net::HttpClientResponse send(const std::string& method, std::string_view path,
                                 std::string body = {}, Headers headers = {}) {
        net::HttpClientRequest request;
        request.method = method;
        request.url = "http://127.0.0.1:" + std::to_string(server_->port()) + std::string(path);
        request.body = std::move(body);
        request.headers = std::move(headers);
        request.read_timeout = std::chrono::seconds(30);
        auto response = net::http_request(request);
        EXPECT_TRUE(response) << (response ? "" : response.error().message);
        return response ? std::move(*response) : net::HttpClientResponse{};
    }
    net::HttpClientResponse post(std::string_view path, std::string body) {
        return send("POST", path, std::move(body), {{"Content-Type", "application/json"}});
    }
    net::HttpClientResponse chat(const std::string& content, const std::string& extra = {}) {
        return post(kChat, R"({"model":"echo","messages":[{"role":"user","content":")" + content +
                               "\"}]" + (extra.empty() ? "" : "," + extra) + "}");
    }
    net::HttpClientResponse complete(const std::string& prompt_json,
                                     const std::string& extra = {}) {
        return post(kCompletions, R"({"model":"echo","prompt":)" + prompt_json +
                                      (extra.empty() ? "" : "," + extra) + "}");
    }
    std::string metrics() { return send("GET", "/metrics").body; }

    /// Waits (without sleeping on a guess: up to 20 s) until the engine holds nothing.
    bool idle() {
        const Deadline end = Deadline::after(Clock::real().now(), std::chrono::seconds(20));
        while (!end.reached(Clock::real().now())) {
            const auto load = engine_->load();
            if (load.running + load.waiting == 0) return true;
            std::this_thread::yield();
        }
        return false;
    }
    bool busy() {
        const Deadline end = Deadline::after(Clock::real().now(), std::chrono::seconds(20));
        while (!end.reached(Clock::real().now())) {
            if (engine_->load().running > 0) return true;
            std::this_thread::yield();
        }
        return false;
    }

    [[nodiscard]] std::uint16_t port() const { return server_->port(); }
    engine::Engine& engine() { return *engine_; }
    Frontend& frontend() { return *frontend_; }

  private:
    std::shared_ptr<engine::Engine> engine_;
    metrics::Registry registry_;
    runtime::LoopPool loops_{2, "test-loop"};
    std::optional<Frontend> frontend_;
    std::optional<net::HttpServer> server_;
};

/// A parsed JSON text with short ways to its parts.
class Json {
  public:
    explicit Json(std::string_view text) : text_(text) {
        auto root = document_.parse(text_);
        EXPECT_TRUE(root) << text_;
        if (root) root_ = *root;
    }
    /// By path: at("choices", 0, "message").
    template <typename... Keys>
    [[nodiscard]] codec::JsonView at(Keys... keys) const {
        codec::JsonView v = root_;
        (step(v, keys), ...);
        return v;
    }
    template <typename... Keys>
    [[nodiscard]] std::string str(Keys... keys) const {
        return std::string(at(keys...).as_string().value_or("(no string)"));
    }
    template <typename... Keys>
    [[nodiscard]] std::int64_t num(Keys... keys) const {
        return at(keys...).as_int().value_or(-999);
    }

  private:
    static void step(codec::JsonView& v, const char* key) { v = v.find(key); }
    static void step(codec::JsonView& v, int index) {
        codec::JsonView found;
        v.each_element([&](std::size_t i, codec::JsonView e) {
            if (i == static_cast<std::size_t>(index)) found = e;
            return i < static_cast<std::size_t>(index);
        });
        v = found;
    }
    std::string text_;
    codec::JsonDocument document_;
    codec::JsonView root_;
};

inline std::vector<std::string> events_of(const net::HttpClientResponse& response) {
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_THAT(std::string(response.header("content-type")),
                testing::HasSubstr("text/event-stream"));
    codec::SseReader reader;
    EXPECT_TRUE(reader.feed(response.body));
    std::vector<std::string> events;
    while (auto e = reader.next()) events.push_back(std::move(e->data));
    return events;
}

inline void expect_error(const net::HttpClientResponse& response, int status,
                         const std::string& param, const std::string& code) {
    EXPECT_EQ(response.status, status) << response.body;
    const Json json(response.body);
    EXPECT_FALSE(json.str("error", "message").empty());
    EXPECT_NE(json.str("error", "type"), "(no string)");
    if (param.empty()) {
        EXPECT_TRUE(json.at("error", "param").is_null()) << response.body;
    } else {
        EXPECT_EQ(json.str("error", "param"), param);
    }
    if (code.empty()) {
        EXPECT_TRUE(json.at("error", "code").is_null()) << response.body;
    } else {
        EXPECT_EQ(json.str("error", "code"), code);
    }
}

/// A connection of bytes, for what a proper client would not do.
class RawClient {
  public:
    explicit RawClient(std::uint16_t port, int receive_buffer = 0) {
        fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (receive_buffer > 0) {
            setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
        }
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    }
    ~RawClient() { leave(); }
    RawClient(const RawClient&) = delete;
    RawClient& operator=(const RawClient&) = delete;

    void post(std::string_view path, const std::string& body) {
        const std::string request = "POST " + std::string(path) +
                                    " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                                    "Content-Length: " +
                                    std::to_string(body.size()) + "\r\n\r\n" + body;
        std::size_t sent = 0;
        while (sent < request.size()) {
            const auto n = send(fd_, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
            ASSERT_GT(n, 0);
            sent += static_cast<std::size_t>(n);
        }
    }
    std::string read_some() {
        std::array<char, 4096> buffer{};
        const auto n = recv(fd_, buffer.data(), buffer.size(), 0);
        return n > 0 ? std::string(buffer.data(), static_cast<std::size_t>(n)) : std::string();
    }
    void leave() {
        if (fd_ >= 0) close(fd_);
        fd_ = -1;
    }

  private:
    int fd_ = -1;
};

inline std::string chat_body(const std::string& content, const std::string& extra) {
    return R"({"model":"echo","messages":[{"role":"user","content":")" + content + "\"}]," + extra +
           "}";
}

}  // namespace stator::frontend
