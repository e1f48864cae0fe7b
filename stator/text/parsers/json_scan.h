#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace stator::text {

/// Follows one JSON value (RFC 8259) through text that comes in pieces and tells where it ends. It
/// remembers no text. At most kMaxDepth arrays and objects around a value.
class JsonScan {
  public:
    static constexpr std::size_t kMaxDepth = 256;

    /// Takes what belongs to the value and gives its length. Less than all of `text`: the value has
    /// ended (done()), the next byte can't be (bad()), or it is a control character inside a
    /// string, which JSON wants escaped: the caller takes it and goes on.
    std::size_t feed(std::string_view text);

    [[nodiscard]] bool done() const { return state_ == State::kDone; }
    [[nodiscard]] bool bad() const { return state_ == State::kBad; }
    [[nodiscard]] bool open() const { return !done() && !bad(); }
    /// Ends the text: a number has no end of its own.
    void finish();

  private:
    enum class State : std::uint8_t {
        kValue,         // a value
        kFirstItem,     // a value or ']'
        kFirstKey,      // a key or '}'
        kKey,           // a key
        kColon,         //
        kAfter,         // ',' or the end of what we are in
        kString,        //
        kEscape,        // behind a backslash
        kHex,           // in \uXXXX
        kMinus,         // a digit must follow
        kZero,          // no more digits before the point
        kInteger,       //
        kPoint,         // a digit must follow
        kFraction,      //
        kExponent,      // a sign or a digit must follow
        kExponentSign,  // a digit must follow
        kExponentDigits,
        kWord,  // true, false, null
        kDone,
        kBad,
    };

    bool one(char c);  ///< false: not taken
    bool begin_value(char c);
    bool open_container(bool object);
    bool close_container(bool object);
    bool number(char c);
    bool can_end_number() const;
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
    bool in_key_ = false;
    std::uint8_t hex_left_ = 0;
    std::string_view word_;  ///< what must still come of it
    std::size_t depth_ = 0;
    std::array<std::uint64_t, kMaxDepth / 64> objects_{};  ///< bit d: level d is an object
};

/// Whether `text` is one JSON value with nothing but white space around it.
[[nodiscard]] bool is_json(std::string_view text);

/// Appends `text` as it stands inside a JSON string, without the quotes.
void append_json_escaped(std::string& out, std::string_view text);

}  // namespace stator::text
