#pragma once

#include <string>

#include "stator/text/parsers/json_call.h"
#include "stator/text/parsers/tool_parser.h"

namespace stator::text {

/// Output that a grammar forces to be calls: an array of {"name": …, "parameters": …}, or the
/// arguments alone of a function that is known by name. What is neither is content.
class ForcedCalls final : public ToolParser {
  public:
    explicit ForcedCalls(std::string name) : name_(std::move(name)) {}

  private:
    enum class State : std::uint8_t { kBeginning, kList, kArguments, kAfter };

    bool step(Input& in, OutputEvents& out) override;
    bool beginning(Input& in, OutputEvents& out);
    bool list(Input& in, OutputEvents& out);

    std::string name_;
    State state_ = State::kBeginning;
    JsonCallList list_;
    JsonScan scan_;
    MarkSet none_;
};

}  // namespace stator::text
