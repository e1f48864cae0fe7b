#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "stator/text/parsers/json_call.h"
#include "stator/text/parsers/tool_parser.h"

namespace stator::text {

/// A family whose calls are JSON with the name inside, between marks or bare.
struct JsonCallFamily {
    std::vector<std::string_view> opens = {};   ///< what a call, or an array of calls, begins with
    std::vector<std::string_view> closes = {};  ///< what ends it; none: it ends with the JSON
    bool bare_object = false;      ///< an object that the content begins with is a call too
    bool bare_array = false;       ///< likewise an array
    bool needs_arguments = false;  ///< without "arguments" an object is no call even behind a mark
    std::string_view separators = {};  ///< bytes that may stand between bare calls
};

/// The families that write {"name": …, "arguments": {…}}.
class JsonCalls final : public ToolParser {
  public:
    explicit JsonCalls(const JsonCallFamily& family);

  private:
    enum class State : std::uint8_t { kProse, kOpened, kCall, kClose };

    bool step(Input& in, OutputEvents& out) override;
    bool between(Input& in, OutputEvents& out);
    bool opened(Input& in, OutputEvents& out);
    bool call(Input& in, OutputEvents& out);
    bool close(Input& in, OutputEvents& out);
    void refuse(OutputEvents& out);
    [[nodiscard]] bool bare(char c) const {
        return (c == '{' && bare_object_) || (c == '[' && bare_array_);
    }

    MarkSet opens_;
    MarkSet closes_;
    MarkSet opens_or_closes_;
    bool bare_object_ = false;
    bool bare_array_ = false;
    bool needs_arguments_ = false;
    std::string_view separators_;
    JsonCallList list_;
    State state_ = State::kProse;
    bool close_due_ = false;  ///< the mark that ends the last call has not come
    bool bare_call_ = false;
};

}  // namespace stator::text
