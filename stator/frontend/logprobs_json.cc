#include "stator/frontend/logprobs_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include "stator/codec/json_writer.h"
#include "stator/codec/utf8.h"

namespace stator::frontend {
namespace {

constexpr float kLowest = -9999.0F;

void comma(std::string& out) {
    if (!out.empty()) out += ',';
}

}  // namespace

void append_logprob(std::string& out, float value) {
    fmt::format_to(std::back_inserter(out), "{}",
                   std::isfinite(value) ? std::max(value, kLowest) : kLowest);
}

void LogprobsJson::add(const protocol::TokenOutput& token,
                       std::span<const protocol::TokenLogprob> top) {
    ++count_;
    if (api_ == Api::kChat) {
        add_chat(token, top);
    } else {
        add_completion(token, top);
    }
}

void LogprobsJson::append_chat_token(protocol::TokenLogprob token) {
    const std::string_view bytes = tokenizer_.bytes(token.token);
    std::string lossy;
    codec::utf8_append_lossy(lossy, bytes.empty() ? tokenizer_.spelling(token.token) : bytes);
    content_ += R"({"token":)";
    codec::append_json_string(content_, lossy);
    content_ += R"(,"logprob":)";
    append_logprob(content_, token.logprob);
    content_ += R"(,"bytes":)";
    if (bytes.empty()) {
        content_ += "null";
        return;
    }
    char separator = '[';
    for (const char c : bytes) {
        content_ += separator;
        fmt::format_to(std::back_inserter(content_), "{}", static_cast<unsigned char>(c));
        separator = ',';
    }
    content_ += ']';
}

void LogprobsJson::add_chat(const protocol::TokenOutput& token,
                            std::span<const protocol::TokenLogprob> top) {
    comma(content_);
    append_chat_token({token.token, token.logprob});
    content_ += R"(,"top_logprobs":[)";
    bool first = true;
    for (const protocol::TokenLogprob& t : top) {
        if (!std::exchange(first, false)) content_ += ',';
        append_chat_token(t);
        content_ += '}';
    }
    content_ += "]}";
}

std::string LogprobsJson::completion_text(tokens::TokenId token) const {
    const std::string_view bytes = tokenizer_.bytes(token);
    if (bytes.empty()) {
        std::string lossy;
        codec::utf8_append_lossy(lossy, tokenizer_.spelling(token));
        return lossy;
    }
    if (codec::utf8_valid(bytes)) return std::string(bytes);
    std::string out = "bytes:";
    for (const char c : bytes) {
        fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned char>(c));
    }
    return out;
}

void LogprobsJson::add_completion(const protocol::TokenOutput& token,
                                  std::span<const protocol::TokenLogprob> top) {
    const std::string text = completion_text(token.token);
    comma(content_);
    codec::append_json_string(content_, text);
    comma(values_);
    append_logprob(values_, token.logprob);
    comma(offsets_);
    fmt::format_to(std::back_inserter(offsets_), "{}", text_offset_);
    const std::string_view bytes = tokenizer_.bytes(token.token);
    text_offset_ += static_cast<std::size_t>(std::ranges::count_if(
        bytes, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
    if (top_ <= 0) return;
    comma(tops_);
    tops_ += '{';
    bool has_chosen = false;
    bool first = true;
    const auto entry = [&](std::string_view key, float logprob) {
        if (!std::exchange(first, false)) tops_ += ',';
        codec::append_json_string(tops_, key);
        tops_ += ':';
        append_logprob(tops_, logprob);
    };
    for (const protocol::TokenLogprob& t : top) {
        has_chosen = has_chosen || t.token == token.token;
        entry(completion_text(t.token), t.logprob);
    }
    if (!has_chosen) entry(text, token.logprob);
    tops_ += '}';
}

void LogprobsJson::append_to(std::string& out) const {
    if (api_ == Api::kChat) {
        out += R"({"content":[)";
        out += content_;
        out += R"(],"refusal":null})";
        return;
    }
    out += R"({"tokens":[)";
    out += content_;
    out += R"(],"token_logprobs":[)";
    out += values_;
    out += R"(],"top_logprobs":)";
    if (top_ > 0) {
        out += '[';
        out += tops_;
        out += ']';
    } else {
        out += "null";
    }
    out += R"(,"text_offset":[)";
    out += offsets_;
    out += "]}";
}

void LogprobsJson::clear() {
    count_ = 0;
    content_.clear();
    values_.clear();
    tops_.clear();
    offsets_.clear();
}

}  // namespace stator::frontend
