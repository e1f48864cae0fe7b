#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "stator/text/parsers/tool_parser.h"

namespace stator::text {

/// OpenAI's harmony, as gpt-oss writes it: messages with a header each,
///     <|start|>assistant<|channel|>commentary to=functions.f
///     <|constrain|>json<|message|>{…}<|call|>
/// The prompt ends behind the first "<|start|>assistant". Channel `analysis` is thinking, `final`
/// and `commentary` are content, and what goes to a function is its arguments. What goes to another
/// tool counts as thinking, as in vLLM. Text without a header is content.
class Harmony final : public ToolParser {
  public:
    /// `inside`: the prompt ends inside thinking. `content`: reads what is content and what goes to
    /// functions; empty where that is read here.
    Harmony(bool inside, std::unique_ptr<OutputParser> content) : content_(std::move(content)) {
        if (!inside) return;
        state_ = State::kBody;
        body_ = Body::kThinking;
    }

  private:
    enum class State : std::uint8_t {
        kBeginning,
        kHeader,
        kBody,
        kArguments,
        kAfterArguments,
        kPlain
    };
    enum class Body : std::uint8_t { kContent, kThinking, kCall };

    bool step(Input& in, OutputEvents& out) override;
    void end(OutputEvents& out) override;
    bool beginning(Input& in, OutputEvents& out);
    bool header(Input& in, OutputEvents& out);
    bool body(Input& in, OutputEvents& out);
    bool arguments(Input& in, OutputEvents& out);
    bool after_arguments(Input& in, OutputEvents& out);
    bool plain(Input& in, OutputEvents& out);
    void read_header();
    void message_ended(std::string_view mark);
    void content(std::string_view text, OutputEvents& out);
    bool to(State state) {
        state_ = state;
        return true;
    }

    std::unique_ptr<OutputParser> content_;
    State state_ = State::kBeginning;
    Body body_ = Body::kContent;
    std::string header_;
    std::string name_;
    JsonScan scan_;
};

}  // namespace stator::text
