#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"

namespace stator::cli {

/// A server to talk to.
struct ChatServer {
    std::string url;      ///< "http://127.0.0.1:8000"; a trailing slash or /v1 does not matter
    std::string api_key;  ///< empty: none is sent
};

struct ChatMessage {
    std::string role;
    std::string content;
    bool operator==(const ChatMessage&) const = default;
};

struct ChatQuestion {
    std::string model;
    std::vector<ChatMessage> messages;
    std::optional<double> temperature;
    std::optional<std::uint32_t> max_tokens;
};

/// What the answer cost, as far as the server says.
struct ChatUsage {
    std::uint64_t prompt_tokens = 0;
    std::uint64_t cached_tokens = 0;
    std::uint64_t completion_tokens = 0;
    bool operator==(const ChatUsage&) const = default;
};

/// One event of a streamed answer.
struct ChatChunk {
    std::string text;
    std::string finish_reason;  ///< empty: not yet
    std::optional<ChatUsage> usage;
    bool done = false;  ///< "[DONE]"
};

struct ChatAnswer {
    std::string text;
    std::string finish_reason;
    std::optional<ChatUsage> usage;
    double first_seconds = 0.0;  ///< until the first text
    double seconds = 0.0;        ///< until the end
    bool cancelled = false;
};

/// The request body: streamed, with usage. Ill-formed UTF-8 becomes U+FFFD.
[[nodiscard]] std::string chat_request_body(const ChatQuestion& question);

/// Reads the data of one server-sent event. An error object in it is returned as the error, in the
/// server's words.
[[nodiscard]] Result<ChatChunk> parse_chat_chunk(std::string_view data);

/// What a refusal says: the `message` of an OpenAI-shaped error body, else the status alone.
[[nodiscard]] Error refusal(int status, std::string_view body);

/// The first model that the server lists.
[[nodiscard]] Result<std::string> first_model(const ChatServer& server);

/// Asks and hands over the text as it arrives. Once `cancelled` says so, the connection is closed
/// and what came so far is the answer. kDataLoss where the answer ends before its end.
[[nodiscard]] Result<ChatAnswer> ask(const ChatServer& server, const ChatQuestion& question,
                                     const std::function<void(std::string_view)>& on_text,
                                     const std::function<bool()>& cancelled, const Clock& clock);

/// "[34 tokens, 85.3 tokens/s, first after 0.21 s, 40 of 52 prompt tokens cached]"
[[nodiscard]] std::string answer_statistics(const ChatAnswer& answer);

}  // namespace stator::cli
