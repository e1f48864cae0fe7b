#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/text/parsers/argument_json.h"
#include "stator/text/parsers/sectioned_calls.h"

namespace stator::text {

/// A family that writes every argument between tags of its own.
struct TaggedCallFamily {
    std::string_view section_open = {};   ///< stands before the first call; empty: nothing does
    std::string_view section_close = {};  ///< stands behind the last
    std::string_view call_open = {};
    std::vector<std::string_view> name_ends = {};
    std::vector<std::string_view> name_stops = {};  ///< end the name too and are left to be read
    std::string_view call_close = {};
    std::string_view parameter_open = {};
    std::vector<std::string_view> key_ends = {};
    std::string_view value_open = {};  ///< stands between a key and its value
    std::vector<std::string_view> value_closes = {};
    std::vector<std::string_view> value_stops = {};  ///< end a value too and are left to be read
    bool calls_without_section = false;
    bool first_key_end_is_text = false;  ///< key_ends[0] says that the value is a string
    bool line_break_first = false;       ///< a line break that a value begins with is no part of it
    /// What a parameter is that the schema does not name.
    ToolShape::Type otherwise = ToolShape::Type::kAny;
};

class TaggedCalls final : public SectionedCalls {
  public:
    TaggedCalls(const TaggedCallFamily& family, std::vector<ToolShape> tools);

  private:
    enum class State : std::uint8_t {
        kProse,
        kSection,
        kName,
        kParameters,
        kKey,
        kKeyGap,
        kValueBegin,
        kValue,
        kAfter,
    };

    bool step(Input& in, OutputEvents& out) override;
    bool between(Input& in, OutputEvents& out);
    bool section(Input& in, OutputEvents& out);
    bool name(Input& in, OutputEvents& out);
    bool parameters(Input& in, OutputEvents& out);
    bool key(Input& in, OutputEvents& out);
    bool key_gap(Input& in, OutputEvents& out);
    bool value_begin(Input& in);
    bool value(Input& in, OutputEvents& out);
    bool after(Input& in, OutputEvents& out);
    bool refuse(OutputEvents& out);
    bool begin_name();
    bool abandon();
    void begin_call(OutputEvents& out);
    bool end_call(OutputEvents& out);
    void flush(OutputEvents& out);
    bool to(State state) {
        state_ = state;
        return true;
    }

    TaggedCallFamily family_;
    std::vector<ToolShape> tools_;
    MarkSet in_call_;    ///< a parameter, the call's end or the section's
    MarkSet name_ends_;  ///< with the stops
    MarkSet key_ends_;
    MarkSet value_closes_;  ///< with the stops
    State state_ = State::kProse;
    bool name_ended_ = false;
    std::string name_;
    std::string key_;
    ToolShape::Type type_ = ToolShape::Type::kAny;
    ArgumentObject arguments_;
    std::string json_;
};

}  // namespace stator::text
