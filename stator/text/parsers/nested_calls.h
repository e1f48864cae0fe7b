#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/parsers/tool_parser.h"

namespace stator::text {

/// MiniMax M3's notation: every tag stands behind a mark of the model's own, arguments are elements
/// named after their parameters, and elements nest: <invoke
/// name="f"><more><a>1</a></more></invoke>. Elements named `item` are a list.
class NestedCalls final : public ToolParser {
  public:
    explicit NestedCalls(std::vector<ToolShape> tools) : tools_(std::move(tools)) {}

  private:
    enum class State : std::uint8_t { kProse, kSection, kName, kInside, kTag };
    enum class Kind : std::uint8_t { kOpen, kString, kObject, kList };
    struct Element {
        Kind kind = Kind::kOpen;  ///< kOpen: nothing but text so far
        ToolShape::Type type = ToolShape::Type::kAny;
    };

    bool step(Input& in, OutputEvents& out) override;
    bool between(Input& in, OutputEvents& out);
    bool section(Input& in, OutputEvents& out);
    bool name(Input& in, OutputEvents& out);
    bool inside(Input& in, OutputEvents& out);
    bool tag(Input& in, OutputEvents& out);
    bool open(OutputEvents& out);
    bool close(OutputEvents& out);
    bool abandon();
    bool to(State state) {
        state_ = state;
        return true;
    }

    std::vector<ToolShape> tools_;
    State state_ = State::kProse;
    bool close_due_ = false;
    std::string name_;
    std::string tag_;
    std::string text_;               ///< of the innermost element
    std::vector<Element> elements_;  ///< around us; the first is the call
};

}  // namespace stator::text
