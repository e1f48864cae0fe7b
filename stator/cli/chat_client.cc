#include "stator/cli/chat_client.h"

#include <fmt/format.h>

#include <utility>

#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/codec/sse.h"
#include "stator/codec/utf8.h"
#include "stator/net/http_client.h"

namespace stator::cli {
namespace {

std::string valid_utf8(std::string_view text) {
    std::string out;
    codec::utf8_append_lossy(out, text);
    return out;
}

std::string endpoint(const std::string& url, std::string_view path) {
    std::string_view base = url;
    while (base.ends_with('/')) base.remove_suffix(1);
    if (base.ends_with("/v1")) base.remove_suffix(3);
    while (base.ends_with('/')) base.remove_suffix(1);
    return std::string(base) + std::string(path);
}

net::HttpClientRequest request_to(const ChatServer& server, std::string_view path) {
    net::HttpClientRequest request;
    request.url = endpoint(server.url, path);
    request.headers.emplace_back("Accept", "application/json");
    if (!server.api_key.empty())
        request.headers.emplace_back("Authorization", "Bearer " + server.api_key);
    return request;
}

/// kUnavailable gets a hint: by far the most usual reason is that no server runs.
Error explained(Error e, const ChatServer& server) {
    if (e.code == ErrorCode::kUnavailable) {
        e.message = fmt::format(
            "No server answers at {} ({}). Start one with `stator serve`, or name another with "
            "--url",
            server.url, e.message);
    }
    return e;
}

std::string_view text_of(codec::JsonView v) { return v.as_string().value_or(std::string_view{}); }

/// Reads the pieces of one streamed answer.
class AnswerReader {
  public:
    AnswerReader(const std::function<void(std::string_view)>& on_text, const Clock& clock)
        : on_text_(on_text), clock_(clock), start_(clock.now()) {}

    Result<void> feed(std::string_view bytes) {
        if (auto fed = reader_.feed(bytes); !fed) return fed;
        Result<void> outcome;
        std::string fresh;  // shown at once: a terminal is slow where a server is fast
        while (auto event = reader_.next()) {
            const auto chunk = parse_chat_chunk(event->data);
            if (!chunk) {
                outcome = tl::unexpected(chunk.error());
                break;
            }
            take(*chunk);
            fresh += chunk->text;
        }
        if (!fresh.empty()) {
            if (answer_.text.empty()) answer_.first_seconds = to_seconds(clock_.now() - start_);
            answer_.text += fresh;
            on_text_(fresh);
        }
        return outcome;
    }

    [[nodiscard]] bool done() const { return done_; }

    ChatAnswer finish(bool cancelled) {
        answer_.cancelled = cancelled;
        answer_.seconds = to_seconds(clock_.now() - start_);
        return std::move(answer_);
    }

  private:
    void take(const ChatChunk& chunk) {
        done_ = done_ || chunk.done;
        if (!chunk.finish_reason.empty()) answer_.finish_reason = chunk.finish_reason;
        if (chunk.usage) answer_.usage = chunk.usage;
    }

    const std::function<void(std::string_view)>& on_text_;
    const Clock& clock_;
    TimePoint start_;
    codec::SseReader reader_;
    ChatAnswer answer_;
    bool done_ = false;
};

}  // namespace

std::string chat_request_body(const ChatQuestion& question) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("model").string(valid_utf8(question.model)).key("messages").begin_array();
    for (const ChatMessage& m : question.messages) {
        w.begin_object().key("role").string(m.role);
        w.key("content").string(valid_utf8(m.content)).end_object();
    }
    w.end_array();
    if (question.temperature) w.key("temperature").number(*question.temperature);
    if (question.max_tokens) w.key("max_tokens").number(*question.max_tokens);
    w.key("stream").boolean(true);
    w.key("stream_options").begin_object().key("include_usage").boolean(true).end_object();
    w.end_object();
    return out;
}

Result<ChatChunk> parse_chat_chunk(std::string_view data) {
    ChatChunk chunk;
    if (data == "[DONE]") {
        chunk.done = true;
        return chunk;
    }
    codec::JsonDocument document;
    const auto root = document.parse(data);
    if (!root) {
        return error(ErrorCode::kDataLoss, "The server sent something that is not JSON: {}",
                     root.error().message);
    }
    if (const auto wrong = root->find("error"); !wrong.is_null()) {
        const std::string_view message = text_of(wrong.find("message"));
        return error(ErrorCode::kUnavailable, "The server broke off the answer: {}",
                     message.empty() ? "it did not say why" : message);
    }
    root->find("choices").each_element([&](std::size_t, codec::JsonView choice) {
        chunk.text += text_of(choice.find("delta").find("content"));
        chunk.finish_reason = text_of(choice.find("finish_reason"));
        return false;  // one answer was asked for
    });
    if (const auto usage = root->find("usage"); !usage.is_null()) {
        ChatUsage u;
        u.prompt_tokens = usage.find("prompt_tokens").as_uint().value_or(0);
        u.completion_tokens = usage.find("completion_tokens").as_uint().value_or(0);
        u.cached_tokens =
            usage.find("prompt_tokens_details").find("cached_tokens").as_uint().value_or(0);
        chunk.usage = u;
    }
    return chunk;
}

Error refusal(int status, std::string_view body) {
    Error e;
    e.code = status == 401 ? ErrorCode::kUnauthenticated : ErrorCode::kUnknown;
    codec::JsonDocument document;
    std::string message;
    if (const auto root = document.parse(body))
        message = text_of(root->find("error").find("message"));
    e.message = message.empty() ? fmt::format("The server answered with status {}", status)
                                : fmt::format("The server refused ({}): {}", status, message);
    if (status == 401) e.message += " (give a key with --api-key or in STATOR_API_KEY)";
    return e;
}

Result<std::string> first_model(const ChatServer& server) {
    const auto response = net::http_request(request_to(server, "/v1/models"));
    if (!response) return tl::unexpected(explained(response.error(), server));
    if (response->status != 200) return tl::unexpected(refusal(response->status, response->body));
    codec::JsonDocument document;
    std::string id;
    if (const auto root = document.parse(response->body)) {
        root->find("data").each_element([&](std::size_t, codec::JsonView model) {
            id = text_of(model.find("id"));
            return false;
        });
    }
    if (id.empty()) {
        return error(ErrorCode::kNotFound, "The server at {} lists no model; name one with --model",
                     server.url);
    }
    return id;
}

Result<ChatAnswer> ask(const ChatServer& server, const ChatQuestion& question,
                       const std::function<void(std::string_view)>& on_text,
                       const std::function<bool()>& cancelled, const Clock& clock) {
    net::HttpClientRequest request = request_to(server, "/v1/chat/completions");
    request.method = "POST";
    request.headers.emplace_back("Content-Type", "application/json");
    request.body = chat_request_body(question);

    request.cancelled = cancelled;
    AnswerReader reader(on_text, clock);
    std::optional<Error> wrong;
    const auto response = net::http_request(request, [&](std::string_view bytes) {
        if (cancelled()) return false;
        if (auto fed = reader.feed(bytes); !fed) wrong = fed.error();
        return !wrong.has_value();
    });
    if (wrong) return tl::unexpected(std::move(*wrong));
    if (cancelled()) return reader.finish(true);
    if (!response) return tl::unexpected(explained(response.error(), server));
    if (response->status != 200) return tl::unexpected(refusal(response->status, response->body));
    if (!reader.done())
        return error(ErrorCode::kDataLoss, "The server's answer ended before its end");
    return reader.finish(false);
}

std::string answer_statistics(const ChatAnswer& answer) {
    std::string out = "[";
    if (answer.cancelled) out += "stopped, ";
    if (answer.usage) {
        const ChatUsage& u = *answer.usage;
        const double rest = answer.seconds - answer.first_seconds;
        out +=
            fmt::format("{} token{}, ", u.completion_tokens, u.completion_tokens == 1 ? "" : "s");
        if (u.completion_tokens > 1 && rest > 0.0) {
            out += fmt::format("{:.1f} tokens/s, ",
                               static_cast<double>(u.completion_tokens - 1) / rest);
        }
    }
    out += answer.text.empty() ? fmt::format("no text in {:.2f} s", answer.seconds)
                               : fmt::format("first after {:.2f} s", answer.first_seconds);
    if (answer.usage) {
        out += fmt::format(", {} of {} prompt tokens cached", answer.usage->cached_tokens,
                           answer.usage->prompt_tokens);
    }
    if (answer.finish_reason == "length") out += ", cut at the length limit";
    return out + "]";
}

}  // namespace stator::cli
