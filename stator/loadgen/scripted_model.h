#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/net/scripted_server.h"

namespace stator::loadgen {

/// For tests: an OpenAI-compatible server that counts a word as two tokens and a prompt's frame as
/// seven, gives all tokens that are asked for ("w0 w1 …"), and behaves as badly as it is told.
class ScriptedModel {
  public:
    /// What to do about the n-th request for text (from 0); true: it has answered.
    using Misbehave = std::function<bool(net::ScriptedConnection&, std::size_t n)>;

    explicit ScriptedModel(Misbehave misbehave = {})
        : misbehave_(std::move(misbehave)),
          server_([this](net::ScriptedConnection& c) { serve(c); }) {}

    [[nodiscard]] std::string url() const { return server_.url(); }
    void stop_listening() { server_.stop_listening(); }
    [[nodiscard]] std::size_t most_at_once() const { return most_at_once_; }
    [[nodiscard]] std::size_t asked() const { return asked_; }
    /// The bodies of the requests for text so far.
    [[nodiscard]] std::vector<std::string> bodies() const {
        const std::scoped_lock lock(mutex_);
        return bodies_;
    }

    static std::string chunk(std::string_view data) {
        const std::string event = "data: " + std::string(data) + "\n\n";
        return fmt::format("{:x}\r\n{}\r\n", event.size(), event);
    }
    static std::string piece(std::string_view text) {
        std::string json;
        codec::JsonWriter(json)
            .begin_object()
            .key("choices")
            .begin_array()
            .begin_object()
            .key("delta")
            .begin_object()
            .key("content")
            .string(text)
            .end_object()
            .end_object()
            .end_array()
            .end_object();
        return chunk(json);
    }
    static constexpr std::string_view kStreamHead =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
        "chunked\r\n\r\n";

    static std::uint64_t prompt_tokens(std::string_view body) {
        codec::JsonDocument json;
        const auto root = json.parse(body);
        EXPECT_TRUE(root.has_value());
        std::uint64_t n = 7;
        root->find("messages").each_element([&](std::size_t, codec::JsonView m) {
            const auto text = m.find("content").as_string().value_or("");
            n += 2 * static_cast<std::uint64_t>(std::ranges::count(text, ' '));
            return true;
        });
        return n;
    }

    static void answer(net::ScriptedConnection& c, std::string_view body) {
        codec::JsonDocument json;
        const auto root = json.parse(body);
        const auto tokens = root->find("max_tokens").as_uint().value_or(1);
        std::string out(kStreamHead);
        for (std::uint64_t i = 0; i < tokens; ++i) out += piece(fmt::format("w{} ", i));
        out += chunk(R"({"choices":[{"delta":{},"finish_reason":"length"}]})");
        out += chunk(fmt::format(
            R"({{"choices":[],"usage":{{"prompt_tokens":{},"completion_tokens":{},"prompt_tokens_details":{{"cached_tokens":3}}}}}})",
            prompt_tokens(body), tokens));
        c.send(out + chunk("[DONE]") + "0\r\n\r\n");
    }

  private:
    void serve(net::ScriptedConnection& c) {
        for (std::string request; !(request = c.read_request()).empty();) {
            if (request.starts_with("GET /v1/models ")) {
                c.answer(R"({"object":"list","data":[{"id":"scripted"}]})");
                continue;
            }
            const std::string body = request.substr(request.find("\r\n\r\n") + 4);
            const std::size_t now = ++at_once_;
            std::size_t n = 0;
            {
                const std::scoped_lock lock(mutex_);
                most_at_once_ = std::max<std::size_t>(most_at_once_, now);
                bodies_.push_back(body);
                n = asked_++;
            }
            const bool done = misbehave_ && misbehave_(c, n);
            if (!done) answer(c, body);
            --at_once_;
        }
    }

    Misbehave misbehave_;
    mutable std::mutex mutex_;
    std::vector<std::string> bodies_;
    std::atomic<std::size_t> at_once_{0};
    std::atomic<std::size_t> most_at_once_{0};
    std::atomic<std::size_t> asked_{0};
    net::ScriptedServer server_;
};

}  // namespace stator::loadgen
