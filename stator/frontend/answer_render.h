#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "stator/frontend/prepared_request.h"

namespace stator::frontend {

struct Usage {
    std::uint64_t prompt_tokens = 0;
    std::uint64_t completion_tokens = 0;
    std::uint64_t cached_tokens = 0;
    std::optional<std::uint64_t> reasoning_tokens;  ///< chats; none: left out
};

/// What every object of one answer says about itself.
struct AnswerHead {
    std::string id;
    std::int64_t created = 0;
    std::string model;  ///< the name the client used
};

/// What a piece of a streamed answer is; all but kContent are of chats alone.
enum class PieceKind : std::uint8_t {
    kContent,
    kReasoning,
    kToolBegin,      ///< the text is the function's name
    kToolArguments,  ///< the text is a part of its arguments
};

/// One piece of one choice of a streamed answer.
struct ChunkPiece {
    std::uint32_t index = 0;
    PieceKind kind = PieceKind::kContent;
    std::string_view text;
    std::uint32_t tool = 0;            ///< of kTool…: which call of the choice
    std::string_view call_id;          ///< of kToolBegin
    std::string_view logprobs_json;    ///< empty: null
    std::string_view token_ids_json;   ///< with brackets; empty: the field is left out
    std::string_view prompt_ids_json;  ///< completions, in a choice's first event; empty: left out
};

/// Renders the server-sent events of one streamed answer: the constant front is made once, a piece
/// costs its escaping and two copies, and nothing is allocated but what `out` grows by.
class ChunkRenderer {
  public:
    ChunkRenderer(Api api, const AnswerHead& head, bool include_usage);

    /// What the events from now on say of usage, in place of null.
    void set_usage(const Usage& usage);
    /// The first event of a chat choice; nothing is appended for completions. `prompt_ids_json`
    /// (with brackets) may be empty. `null_content`: content that may never come is null, not "".
    void role(std::string& out, std::uint32_t index, std::string_view prompt_ids_json,
              bool null_content = false) const;
    void piece(std::string& out, const ChunkPiece& piece) const;
    /// The last event of a choice.
    void finish(std::string& out, std::uint32_t index, std::string_view reason) const;
    /// The event with usage and no choices, for include_usage.
    void usage(std::string& out, const Usage& usage) const;
    static void error(std::string& out, std::string_view error_json);
    static void done(std::string& out) { out += "data: [DONE]\n\n"; }

  private:
    void open(std::string& out, std::uint32_t index) const;
    void delta(std::string& out, const ChunkPiece& piece) const;
    void set_tail(std::string tail);

    Api api_;
    std::string prefix_;        ///< up to the choice's index
    std::string_view front_;    ///< between index and text
    std::string tail_;          ///< after "finish_reason":…
    std::string plain_suffix_;  ///< all that follows a plain piece's text
    std::string usage_prefix_;
};

/// One finished choice of an answer given whole.
struct WholeChoice {
    std::uint32_t index = 0;
    std::string_view text;
    std::string_view reasoning;        ///< empty: left out
    std::string_view tool_calls_json;  ///< an array; empty: left out, and else empty text is null
    std::string_view finish_reason;
    std::string_view logprobs_json;    ///< empty: null
    std::string_view token_ids_json;   ///< empty: left out
    std::string_view prompt_ids_json;  ///< completions; empty: left out
};

/// A chat.completion or text_completion object. `prompt_ids_json`: chat's top-level field; empty:
/// left out.
void append_answer_json(std::string& out, Api api, const AnswerHead& head,
                        std::span<const WholeChoice> choices, const Usage& usage,
                        std::string_view prompt_ids_json);

/// One element of `tool_calls`, after a comma where `list` is not empty.
void append_tool_call(std::string& list, std::string_view id, std::string_view name,
                      std::string_view arguments);

void append_usage_json(std::string& out, const Usage& usage);
/// "[1,2,3]"
[[nodiscard]] std::string token_ids_json(std::span<const tokens::TokenId> tokens);
/// Appends one number, after a comma where `list` is not empty.
void append_token_id(std::string& list, tokens::TokenId token);

}  // namespace stator::frontend
