#include "stator/frontend/answer_render.h"

#include <charconv>

#include "stator/codec/json_writer.h"

namespace stator::frontend {
namespace {

void append_number(std::string& out, std::uint64_t n) {
    char digits[20];
    const auto [end, ec] = std::to_chars(digits, digits + sizeof digits, n);
    out.append(digits, end);
}

std::string head_json(const AnswerHead& head, std::string_view object) {
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("id").string(head.id).key("object").string(object);
    w.key("created").number(head.created).key("model").string(head.model);
    return out;  // the object stays open
}

void append_json_or_null(std::string& out, std::string_view json) {
    out += json.empty() ? std::string_view("null") : json;
}

void append_field(std::string& out, std::string_view name, std::string_view json) {
    if (json.empty()) return;
    out += ",\"";
    out += name;
    out += "\":";
    out += json;
}

}  // namespace

ChunkRenderer::ChunkRenderer(Api api, const AnswerHead& head, bool include_usage) : api_(api) {
    const bool chat = api == Api::kChat;
    prefix_ = "data: " + head_json(head, chat ? "chat.completion.chunk" : "text_completion") +
              R"(,"choices":[)";
    usage_prefix_ = prefix_;
    prefix_ += R"({"index":)";
    front_ = chat ? R"(,"delta":{"content":)" : R"(,"text":)";
    tail_ = include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n";
    plain_suffix_ = chat ? "}" : "";
    plain_suffix_ += R"(,"logprobs":null,"finish_reason":null)";
    plain_suffix_ += tail_;
}

void ChunkRenderer::open(std::string& out, std::uint32_t index) const {
    out += prefix_;
    append_number(out, index);
}

void ChunkRenderer::role(std::string& out, std::uint32_t index,
                         std::string_view prompt_ids_json) const {
    if (api_ != Api::kChat) return;
    open(out, index);
    out += R"(,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null)";
    if (prompt_ids_json.empty()) {
        out += tail_;
        return;
    }
    // The prompt's tokens stand beside `choices`, so the tail has to be opened.
    out += "}]";
    append_field(out, "prompt_token_ids", prompt_ids_json);
    out += tail_.substr(2);
}

void ChunkRenderer::piece(std::string& out, const ChunkPiece& piece) const {
    if (piece.logprobs_json.empty() && piece.token_ids_json.empty() &&
        piece.prompt_ids_json.empty()) {
        open(out, piece.index);
        out += front_;
        codec::append_json_string(out, piece.text);
        out += plain_suffix_;
        return;
    }
    open(out, piece.index);
    out += front_;
    codec::append_json_string(out, piece.text);
    out += api_ == Api::kChat ? R"(},"logprobs":)" : R"(,"logprobs":)";
    append_json_or_null(out, piece.logprobs_json);
    out += R"(,"finish_reason":null)";
    append_field(out, "prompt_token_ids", piece.prompt_ids_json);
    append_field(out, "token_ids", piece.token_ids_json);
    out += tail_;
}

void ChunkRenderer::finish(std::string& out, std::uint32_t index, std::string_view reason) const {
    open(out, index);
    out += api_ == Api::kChat ? R"(,"delta":{})" : R"(,"text":"")";
    out += R"(,"logprobs":null,"finish_reason":")";
    out += reason;
    out += '"';
    out += tail_;
}

void ChunkRenderer::usage(std::string& out, const Usage& usage) const {
    out += usage_prefix_;
    out += R"(],"usage":)";
    append_usage_json(out, usage);
    out += "}\n\n";
}

void ChunkRenderer::error(std::string& out, std::string_view error_json) {
    out += "data: ";
    out += error_json;
    out += "\n\n";
}

void append_usage_json(std::string& out, const Usage& usage) {
    out += R"({"prompt_tokens":)";
    append_number(out, usage.prompt_tokens);
    out += R"(,"completion_tokens":)";
    append_number(out, usage.completion_tokens);
    out += R"(,"total_tokens":)";
    append_number(out, usage.prompt_tokens + usage.completion_tokens);
    out += R"(,"prompt_tokens_details":{"cached_tokens":)";
    append_number(out, usage.cached_tokens);
    out += "}}";
}

void append_answer_json(std::string& out, Api api, const AnswerHead& head,
                        std::span<const WholeChoice> choices, const Usage& usage,
                        std::string_view prompt_ids_json) {
    const bool chat = api == Api::kChat;
    out += head_json(head, chat ? "chat.completion" : "text_completion");
    out += R"(,"choices":[)";
    bool first = true;
    for (const WholeChoice& c : choices) {
        if (!first) out += ',';
        first = false;
        out += R"({"index":)";
        append_number(out, c.index);
        out += chat ? R"(,"message":{"role":"assistant","content":)" : R"(,"text":)";
        codec::append_json_string(out, c.text);
        out += chat ? R"(,"refusal":null},"logprobs":)" : R"(,"logprobs":)";
        append_json_or_null(out, c.logprobs_json);
        out += R"(,"finish_reason":)";
        codec::append_json_string(out, c.finish_reason);
        append_field(out, "prompt_token_ids", c.prompt_ids_json);
        append_field(out, "token_ids", c.token_ids_json);
        out += '}';
    }
    out += R"(],"usage":)";
    append_usage_json(out, usage);
    append_field(out, "prompt_token_ids", prompt_ids_json);
    out += '}';
}

void append_token_id(std::string& list, tokens::TokenId token) {
    if (!list.empty()) list += ',';
    append_number(list, token);
}

std::string token_ids_json(std::span<const tokens::TokenId> tokens) {
    std::string list;
    for (const auto t : tokens) append_token_id(list, t);
    return "[" + list + "]";
}

}  // namespace stator::frontend
