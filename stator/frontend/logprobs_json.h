#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "stator/frontend/prepared_request.h"
#include "stator/protocol/generate.h"
#include "stator/text/tokenizer.h"

namespace stator::frontend {

/// Collects the logprobs of one choice as JSON of either API:
///   chat        {"content":[{"token","logprob","bytes","top_logprobs":[…]},…],"refusal":null}
///   completions {"tokens":[…],"token_logprobs":[…],"top_logprobs":[{…},…],"text_offset":[…]}
/// Bytes that are no UTF-8 show as U+FFFD in the first and as "bytes:\xe2\x82" in the second, as
/// OpenAI does.
class LogprobsJson {
  public:
    /// `top`: how many alternatives were asked for.
    LogprobsJson(Api api, const text::Tokenizer& tokenizer, int top)
        : api_(api), top_(top), tokenizer_(tokenizer) {}

    void add(const protocol::TokenOutput& token, std::span<const protocol::TokenLogprob> top);
    [[nodiscard]] bool empty() const { return count_ == 0; }
    /// The object with what was added since clear().
    void append_to(std::string& out) const;
    /// Forgets what was added; offsets go on.
    void clear();

  private:
    void add_chat(const protocol::TokenOutput& token, std::span<const protocol::TokenLogprob> top);
    void add_completion(const protocol::TokenOutput& token,
                        std::span<const protocol::TokenLogprob> top);
    void append_chat_token(protocol::TokenLogprob token);
    [[nodiscard]] std::string completion_text(tokens::TokenId token) const;

    Api api_;
    int top_;
    const text::Tokenizer& tokenizer_;
    std::size_t count_ = 0;
    std::size_t text_offset_ = 0;  ///< in characters
    std::string content_;          ///< chat: elements; completions: tokens
    std::string values_;
    std::string tops_;
    std::string offsets_;
};

/// Appends a logarithm as JSON; minus infinity becomes -9999.0, as OpenAI writes it.
void append_logprob(std::string& out, float value);

}  // namespace stator::frontend
