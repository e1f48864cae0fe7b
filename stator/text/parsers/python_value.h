#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace stator::text {

/// Reads one Python literal that comes in pieces and writes it as JSON, as Python's json.dumps
/// would: strings, numbers, True, False, None, lists, tuples and dicts, JSON's own words too. Not:
/// sets, bytes, complex numbers, expressions, triple quotes. At most kMaxDepth containers.
class PythonValue {
  public:
    static constexpr std::size_t kMaxDepth = 64;
    static constexpr std::size_t kMaxToken = 64;  ///< of a number or a word

    /// Takes what belongs to the literal and gives its length; less than all of `text`: it has
    /// ended, or the next byte can't be. JSON is appended to `out`.
    std::size_t feed(std::string_view text, std::string& out);
    /// The text has ended.
    void finish(std::string& out);

    [[nodiscard]] bool done() const { return state_ == State::kDone; }
    [[nodiscard]] bool bad() const { return state_ == State::kBad; }
    [[nodiscard]] bool open() const { return !done() && !bad(); }

  private:
    enum class State : std::uint8_t {
        kValue,
        kFirst,  // a value or the container's end
        kKey,
        kFirstKey,
        kColon,
        kAfter,
        kString,
        kEscape,
        kCode,   // in \x, \u, \U
        kOctal,  // in \123
        kToken,
        kDone,
        kBad,
    };

    bool one(char c, std::string& out);  ///< false: not taken
    bool begin_value(char c, std::string& out);
    bool after(char c, std::string& out);
    bool close(char c, std::string& out);
    void escape(char c, std::string& out);
    bool one_in_string(char c, std::string& out);
    void write_code(std::string& out);
    bool end_token(std::string& out);
    void value_ended();
    bool to(State s) {
        state_ = s;
        return true;
    }
    bool fail() {
        state_ = State::kBad;
        return false;
    }

    State state_ = State::kValue;
    bool key_ = false;
    bool comma_due_ = false;  ///< a comma was read and is not written yet
    char quote_ = '"';
    std::uint8_t digits_left_ = 0;
    std::uint32_t code_ = 0;
    std::string token_;
    std::string closers_;  ///< what closes each container around us
};

/// A whole Python literal as JSON; empty where it is none.
[[nodiscard]] std::optional<std::string> python_as_json(std::string_view text);

/// A Python number or word as JSON; empty where it is none.
[[nodiscard]] std::optional<std::string> python_token_as_json(std::string_view token);

}  // namespace stator::text
