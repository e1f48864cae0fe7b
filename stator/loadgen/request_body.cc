#include "stator/loadgen/request_body.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "stator/codec/json_writer.h"
#include "stator/codec/utf8.h"

namespace stator::loadgen {
namespace {

using codec::JsonWriter;
using workload::RequestSpec;
using workload::Segment;

std::string valid_utf8(std::string_view text) {
    std::string out;
    codec::utf8_append_lossy(out, text);
    return out;
}

std::string base64(std::string_view bytes) {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    out.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
        const std::size_t n = std::min<std::size_t>(3, bytes.size() - at);
        std::uint32_t group = 0;
        for (std::size_t i = 0; i < 3; ++i) {
            group = group << 8 | (i < n ? static_cast<std::uint8_t>(bytes[at + i]) : 0U);
        }
        for (std::size_t i = 0; i < 4; ++i) {
            out += i <= n ? kDigits[(group >> (18 - 6 * i)) & 63] : '=';
        }
    }
    return out;
}

/// What one side says in one go.
struct Speech {
    bool assistant = false;
    std::string text;
};

/// Counts tokens out in words. Rounds on the running sum, so that errors don't add up, and prompts
/// that begin alike are cut alike.
class WordCount {
  public:
    explicit WordCount(const Dialect& dialect) : dialect_(dialect) {}
    std::uint32_t next(std::uint32_t tokens) {
        tokens_ += tokens;
        const double due = (tokens_ - dialect_.frame_tokens) / dialect_.tokens_per_word;
        const double words = std::max(1.0, std::round(due) - words_);
        words_ += words;
        return static_cast<std::uint32_t>(words);
    }

  private:
    const Dialect& dialect_;
    double tokens_ = 0;
    double words_ = 0;
};

std::vector<Speech> speeches(const RequestSpec& spec, const Dialect& dialect,
                             const FindOutput& find) {
    std::vector<Speech> all;
    const auto speech = [&](bool assistant) -> std::string& {
        if (all.empty() || all.back().assistant != assistant) all.push_back({assistant, {}});
        return all.back().text;
    };
    if (!spec.text.empty()) speech(false) = valid_utf8(spec.text);
    WordCount count(dialect);
    for (const Segment& s : spec.prompt) {
        if (!s.output_of) {
            workload::append_words(speech(false), s.content, count.next(s.tokens));
            continue;
        }
        std::string& text = speech(true);
        if (const Output* output = find(*s.output_of); output != nullptr) {
            text += valid_utf8(output->text);
            text += '\n';
        } else {
            const double words = std::max(1.0, s.tokens / dialect.tokens_per_word);
            workload::append_words(text, s.content, static_cast<std::uint32_t>(words));
        }
    }
    // An agent's context may end with results; somebody has to ask.
    if (all.empty() || all.back().assistant) all.push_back({false, "go on "});
    return all;
}

void write_messages(JsonWriter& w, const RequestSpec& spec, const std::vector<Speech>& all) {
    w.key("messages").begin_array();
    for (const Speech& s : all) {
        w.begin_object().key("role").string(s.assistant ? "assistant" : "user").key("content");
        if (spec.images.empty() || &s != &all.back()) {
            w.string(s.text).end_object();
            continue;
        }
        w.begin_array();
        for (const workload::ImageSpec& image : spec.images) {
            w.begin_object().key("type").string("image_url").key("image_url").begin_object();
            w.key("url").string("data:image/png;base64," + base64(workload::make_png(image)));
            w.end_object().end_object();
        }
        w.begin_object().key("type").string("text").key("text").string(s.text).end_object();
        w.end_array().end_object();
    }
    w.end_array();
}

void write_tokens(JsonWriter& w, const RequestSpec& spec, const Dialect& dialect,
                  const FindOutput& find) {
    std::vector<tokens::TokenId> ids;
    for (Segment s : spec.prompt) {
        // Which tokens an output had, the server does not tell: as many others stand in.
        if (s.output_of) {
            if (const Output* output = find(*s.output_of)) s.tokens = std::max(output->tokens, 1U);
            s.output_of.reset();
        }
        workload::append_tokens(ids, s, dialect.tokens);
    }
    w.key("prompt").begin_array();
    for (const tokens::TokenId id : ids) w.number(static_cast<std::uint64_t>(id));
    w.end_array();
}

void write_rest(JsonWriter& w, std::string& out, const Dialect& dialect, std::uint32_t tokens) {
    w.key("max_tokens").number(tokens);
    if (!dialect.strict) w.key("ignore_eos").boolean(true).key("min_tokens").number(tokens);
    w.key("stream").boolean(true);
    w.key("stream_options").begin_object().key("include_usage").boolean(true).end_object();
    w.end_object();
    if (dialect.extra.empty()) return;
    out.pop_back();
    out.append(",").append(dialect.extra).append("}");
}

}  // namespace

std::string_view request_path(Api api) {
    return api == Api::kChat ? "/v1/chat/completions" : "/v1/completions";
}

Result<std::string> request_body(const RequestSpec& spec, const Dialect& dialect,
                                 const FindOutput& find) {
    if (dialect.api != Api::kChat && !spec.images.empty()) {
        return error(ErrorCode::kInvalidArgument, "images can only be sent to the chat API");
    }
    if (dialect.api != Api::kChat && !spec.messages.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "the file of prompts has chats, which can only be sent to the chat API");
    }
    if (dialect.api == Api::kTokens && !spec.text.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "the file of prompts has texts, which can't be sent as tokens");
    }
    std::string out;
    JsonWriter w(out);
    w.begin_object().key("model").string(spec.adapter.empty() ? dialect.model : spec.adapter);
    switch (dialect.api) {
        case Api::kChat:
            if (spec.messages.empty()) {
                write_messages(w, spec, speeches(spec, dialect, find));
            } else {
                w.key("messages").raw(spec.messages);
            }
            break;
        case Api::kCompletions: {
            std::string text;
            for (const Speech& s : speeches(spec, dialect, find)) text += s.text;
            w.key("prompt").string(text);
            break;
        }
        case Api::kTokens:
            write_tokens(w, spec, dialect, find);
            break;
    }
    if (spec.priority != 0 && !dialect.strict) w.key("priority").number(spec.priority);
    write_rest(w, out, dialect, spec.output_tokens);
    return out;
}

std::string calibration_body(const Dialect& dialect, std::uint32_t words) {
    // Another content each time: what the server has cached must not matter.
    std::string text;
    workload::append_words(text, workload::content_id(0x63616c, words), words);
    std::string out;
    JsonWriter w(out);
    w.begin_object().key("model").string(dialect.model);
    if (dialect.api == Api::kChat) {
        w.key("messages").begin_array().begin_object();
        w.key("role").string("user").key("content").string(text).end_object().end_array();
    } else {
        w.key("prompt").string(text);
    }
    write_rest(w, out, dialect, 1);
    return out;
}

}  // namespace stator::loadgen
