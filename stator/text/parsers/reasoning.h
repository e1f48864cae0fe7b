#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/parsers/marks.h"
#include "stator/text/parsers/output_parser.h"

namespace stator::text {

/// A notation of thinking: at the output's beginning, between two marks.
struct ReasoningFamily {
    std::string_view name;
    std::vector<std::string_view> opens = {};
    std::vector<std::string_view> closes = {};
    /// What may stand behind the opening mark and belongs to it.
    std::string_view label = {};
    /// The model thinks first even where nothing opens it.
    bool always = false;
};

/// Splits thinking from the rest, which goes to another parser. Thinking that never ends is
/// thinking to the end. White space stays as it is, but before an opening mark; a text that does
/// not begin with one is no thinking.
class ReasoningParser final : public OutputParser {
  public:
    /// `ends`: marks that end thinking without being part of it, such as those of calls. `inside`:
    /// it begins inside.
    ReasoningParser(const ReasoningFamily& family, std::vector<std::string_view> ends, bool inside,
                    std::unique_ptr<OutputParser> rest);

    void push(std::string_view text, OutputEvents& out) override;
    void finish(OutputEvents& out) override;

  private:
    enum class State : std::uint8_t { kBeginning, kLabel, kThinking, kRest };

    void run(Input& in, OutputEvents& out);
    bool beginning(Input& in);
    bool label(Input& in);
    bool thinking(Input& in, OutputEvents& out);

    MarkSet opens_;
    MarkSet closes_;
    std::size_t own_closes_ = 0;  ///< the others open something of the rest
    std::string_view label_;
    bool inside_ = false;
    State state_ = State::kBeginning;
    std::string pending_;
    std::string space_;  ///< came before what may be an opening mark
    std::unique_ptr<OutputParser> rest_;
};

/// All is content.
class ContentParser final : public OutputParser {
  public:
    void push(std::string_view text, OutputEvents& out) override {
        out.add(OutputEvents::Kind::kContent, text);
    }
    void finish(OutputEvents& /*out*/) override {}
};

}  // namespace stator::text
