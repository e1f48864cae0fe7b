#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/frontend/output_plan.h"
#include "stator/text/parsers/output_parser.h"

namespace stator::frontend {

/// The output of one choice, taken apart into content, thinking and calls: the parser's events,
/// with the calls kept, thinking left out where it is not wanted, and nothing after the call where
/// one alone is wanted. One per choice; not thread-safe.
class ChoiceOutput {
  public:
    struct Call {
        std::string id;
        std::string name;
        std::string arguments;
        bool complete = false;
    };

    /// Makes the plan's parser. `plan` must outlive it.
    [[nodiscard]] static Result<ChoiceOutput> make(const OutputPlan& plan);

    /// The text of one token, perhaps empty; appends to `out`, where calls are numbered as in
    /// calls() and nothing follows what ends the output.
    void push(std::string_view text, text::OutputEvents& out);
    /// After the last token. `rest`: text that the detokenizer held back.
    void finish(std::string_view rest, text::OutputEvents& out);

    /// The one call that was wanted is complete: the generation may end.
    [[nodiscard]] bool complete() const { return complete_; }
    [[nodiscard]] std::vector<Call>& calls() { return calls_; }
    [[nodiscard]] const std::vector<Call>& calls() const { return calls_; }
    /// Tokens whose text was thinking or a mark of it.
    [[nodiscard]] std::uint32_t reasoning_tokens() const { return reasoning_tokens_; }

  private:
    using Kind = text::OutputEvents::Kind;

    ChoiceOutput(const OutputPlan& plan, std::unique_ptr<text::OutputParser> parser);
    void sort(text::OutputEvents& out);
    void take(const text::OutputEvents::Event& event, text::OutputEvents& out);
    void end_call(text::OutputEvents& out);

    const OutputPlan* plan_;
    std::unique_ptr<text::OutputParser> parser_;
    text::OutputEvents raw_;  ///< of the present push(), reused
    bool in_reasoning_;       ///< the last event was thinking
    bool complete_ = false;
    std::uint32_t reasoning_tokens_ = 0;
    std::vector<Call> calls_;
};

/// Whether a call's arguments are what they must be, a JSON object.
[[nodiscard]] bool valid_arguments(std::string_view arguments);

}  // namespace stator::frontend
