#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/parsers/python_value.h"
#include "stator/text/parsers/tool_parser.h"

namespace stator::text {

/// A family whose calls are Python: [f(a=1), g(b='x')].
struct PythonCallFamily {
    std::vector<std::string_view> opens = {};
    std::vector<std::string_view> closes = {};
    bool bare = false;   ///< a list that the content begins with is calls too
    bool lines = false;  ///< behind a mark calls may stand without brackets, one behind another
};

/// Arguments must have names and literals for values; what is else is content.
class PythonCalls final : public ToolParser {
  public:
    explicit PythonCalls(const PythonCallFamily& family);

  private:
    enum class State : std::uint8_t {
        kProse,
        kOpened,    // behind a mark
        kElement,   // a call, or the end
        kName,      // of a function
        kArgument,  // an argument's name, or the call's end
        kKey,       // inside an argument's name
        kEquals,
        kValue,
        kAfterValue,
        kAfterCall,
        kClose,  // behind the list
    };

    bool step(Input& in, OutputEvents& out) override;
    bool between(Input& in, OutputEvents& out);
    bool element(Input& in, OutputEvents& out);
    bool argument(Input& in, OutputEvents& out);
    bool value(Input& in, OutputEvents& out);
    bool after_value(Input& in, OutputEvents& out);
    bool close(Input& in, OutputEvents& out);
    bool keep(Input& in);
    bool stop(OutputEvents& out);
    bool end_call(OutputEvents& out);
    bool to(State state) {
        state_ = state;
        return true;
    }

    MarkSet opens_;
    MarkSet closes_;
    MarkSet opens_or_closes_;
    bool bare_ = false;
    bool lines_ = false;
    State state_ = State::kProse;
    bool close_due_ = false;
    bool marked_ = false;   ///< behind a mark
    bool list_ = false;     ///< in brackets
    bool again_ = false;    ///< a call was read in this list
    bool printed_ = false;  ///< print(f(…))
    bool written_ = false;  ///< this call has begun
    bool more_ = false;     ///< it has arguments already
    std::string name_;
    std::string key_;
    std::string json_;
    PythonValue value_;
};

}  // namespace stator::text
