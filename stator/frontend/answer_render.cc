#include "stator/frontend/answer_render.h"

#include <charconv>
#include <utility>

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
    set_tail(include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n");
}

void ChunkRenderer::set_tail(std::string tail) {
    tail_ = std::move(tail);
    plain_suffix_ = api_ == Api::kChat ? "}" : "";
    plain_suffix_ += R"(,"logprobs":null,"finish_reason":null)";
    plain_suffix_ += tail_;
}

void ChunkRenderer::set_usage(const Usage& usage) {
    std::string tail = R"(}],"usage":)";
    append_usage_json(tail, usage);
    set_tail(tail + "}\n\n");
}

void ChunkRenderer::open(std::string& out, std::uint32_t index) const {
    out += prefix_;
    append_number(out, index);
}

void ChunkRenderer::role(std::string& out, std::uint32_t index, std::string_view prompt_ids_json,
                         bool null_content) const {
    if (api_ != Api::kChat) return;
    open(out, index);
    out += R"(,"delta":{"role":"assistant","content":)";
    out += null_content ? "null" : R"("")";
    out += R"(,"refusal":null},"logprobs":null,"finish_reason":null)";
    if (prompt_ids_json.empty()) {
        out += tail_;
        return;
    }
    // The prompt's tokens stand beside `choices`, so the tail has to be opened.
    out += "}]";
    append_field(out, "prompt_token_ids", prompt_ids_json);
    out += std::string_view(tail_).substr(2);
}

void ChunkRenderer::delta(std::string& out, const ChunkPiece& piece) const {
    switch (piece.kind) {
        case PieceKind::kContent:
            out += front_;
            codec::append_json_string(out, piece.text);
            if (api_ == Api::kChat) out += '}';
            return;
        case PieceKind::kReasoning:
            out += R"(,"delta":{"reasoning_content":)";
            codec::append_json_string(out, piece.text);
            out += '}';
            return;
        case PieceKind::kToolBegin:
            out += R"(,"delta":{"tool_calls":[{"index":)";
            append_number(out, piece.tool);
            out += R"(,"id":)";
            codec::append_json_string(out, piece.call_id);
            out += R"(,"type":"function","function":{"name":)";
            codec::append_json_string(out, piece.text);
            out += R"(,"arguments":""}}]})";
            return;
        case PieceKind::kToolArguments:
            out += R"(,"delta":{"tool_calls":[{"index":)";
            append_number(out, piece.tool);
            out += R"(,"function":{"arguments":)";
            codec::append_json_string(out, piece.text);
            out += "}}]}";
            return;
    }
}

void ChunkRenderer::piece(std::string& out, const ChunkPiece& piece) const {
    if (piece.kind == PieceKind::kContent && piece.logprobs_json.empty() &&
        piece.token_ids_json.empty() && piece.prompt_ids_json.empty()) {
        open(out, piece.index);
        out += front_;
        codec::append_json_string(out, piece.text);
        out += plain_suffix_;
        return;
    }
    open(out, piece.index);
    delta(out, piece);
    out += R"(,"logprobs":)";
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
    out += '}';
    if (usage.reasoning_tokens) {
        out += R"(,"completion_tokens_details":{"reasoning_tokens":)";
        append_number(out, *usage.reasoning_tokens);
        out += '}';
    }
    out += '}';
}

namespace {

void append_message(std::string& out, const WholeChoice& c) {
    out += R"(,"message":{"role":"assistant","content":)";
    if (c.text.empty() && !c.tool_calls_json.empty()) {
        out += "null";
    } else {
        codec::append_json_string(out, c.text);
    }
    if (!c.reasoning.empty()) {
        out += R"(,"reasoning_content":)";
        codec::append_json_string(out, c.reasoning);
    }
    append_field(out, "tool_calls", c.tool_calls_json);
    out += R"(,"refusal":null})";
}

}  // namespace

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
        if (chat) {
            append_message(out, c);
        } else {
            out += R"(,"text":)";
            codec::append_json_string(out, c.text);
        }
        out += R"(,"logprobs":)";
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

void append_tool_call(std::string& list, std::string_view id, std::string_view name,
                      std::string_view arguments) {
    if (!list.empty()) list += ',';
    codec::JsonWriter w(list);
    w.begin_object().key("id").string(id).key("type").string("function");
    w.key("function").begin_object().key("name").string(name);
    w.key("arguments").string(arguments).end_object().end_object();
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
