#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "stator/text/parsers/tool_parser.h"

namespace stator::text {

/// The characters that a JSON string stands for; `raw` is what is between its quotes. Empty where
/// it is no string.
[[nodiscard]] std::optional<std::string> unescaped_json(std::string_view raw);

/// Reads one call written as a JSON object, {"name": …, "arguments": {…}}: members in any order,
/// "parameters" for "arguments", other members left out. Arguments stream out once the name is
/// known. Arguments that are a string with an object in it count as that object; null or none at
/// all as an empty one.
class JsonCallReader {
  public:
    enum class Result : std::uint8_t {
        kMore,    ///< the input is used up
        kDone,    ///< the object is read, the call written
        kNoCall,  ///< this is no call: nothing was written, all of it is held
        kBroken,  ///< a call was written, perhaps in part; here the object stops being one
    };

    /// Starts over at an object's '{'. `needs_arguments`: without them it is no call.
    void begin(bool needs_arguments);
    /// What it takes before the call is certain is appended to `held`, at most up to kMaxHeld.
    Result read(Input& in, CallWriter& calls, std::string& held, OutputEvents& out);

  private:
    enum class State : std::uint8_t {
        kOpen,
        kFirstKey,
        kKey,
        kInKey,
        kColon,
        kValue,
        kName,
        kOther,    // a member that is of no interest
        kHeld,     // arguments before the name
        kText,     // arguments in a string
        kPassing,  // arguments, written as they come
        kAfter,
        kDone,
    };
    Result step(Input& in, CallWriter& calls, std::string& held, OutputEvents& out);
    Result key(char c);
    Result value(Input& in, CallWriter& calls, std::string& held, OutputEvents& out);
    Result string_ended(CallWriter& calls, OutputEvents& out);
    Result scan_held(Input& in, std::string& held);
    Result close(CallWriter& calls, OutputEvents& out);
    void write(CallWriter& calls, OutputEvents& out);
    void take(Input& in, std::string& held, std::size_t n);
    [[nodiscard]] Result no() const { return written_ ? Result::kBroken : Result::kNoCall; }

    State state_ = State::kOpen;
    bool needs_arguments_ = false;
    bool written_ = false;
    bool escaped_ = false;  ///< inside a string: behind a backslash
    bool has_arguments_ = false;
    std::string string_;  ///< the string being read, as it is written
    std::string member_;  ///< the key being read
    std::optional<std::string> name_;
    std::string arguments_;  ///< come before the name
    JsonScan scan_;
};

/// Reads calls written as one JSON object or as an array of them.
class JsonCallList {
  public:
    using Result = JsonCallReader::Result;

    /// Starts over; read() expects '{' or '[' next.
    void begin(bool needs_arguments);
    /// As JsonCallReader::read(); an array without calls is none.
    Result read(Input& in, CallWriter& calls, std::string& held, OutputEvents& out);

  private:
    enum class State : std::uint8_t { kOpen, kFirst, kElement, kCall, kAfter };

    JsonCallReader reader_;
    State state_ = State::kOpen;
    bool array_ = false;
    bool needs_arguments_ = false;
};

}  // namespace stator::text
