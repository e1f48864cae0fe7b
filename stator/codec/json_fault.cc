#include "stator/codec/json_fault.h"

#include <fmt/format.h>

#include <bitset>
#include <charconv>
#include <cstdint>
#include <system_error>

#include "stator/base/check.h"
#include "stator/codec/utf8.h"

namespace stator::codec {
namespace {

constexpr std::size_t kStackLevels = 256;

bool is_digit(int c) { return c >= '0' && c <= '9'; }

/// A stack machine over the grammar of RFC 8259. Every step returns false once `fault_` is set.
class FaultFinder {
  public:
    FaultFinder(std::string_view text, std::size_t max_depth) : text_(text), max_depth_(max_depth) {
        STATOR_CHECK(max_depth < kStackLevels, "the fault finder's stack is too small");
    }

    std::optional<JsonFault> run() {
        if (const std::size_t good = utf8_valid_prefix(text_); good < text_.size()) {
            return JsonFault{good, fmt::format("byte 0x{:02X} is not valid UTF-8", byte_at(good))};
        }
        if (text_.starts_with("\xEF\xBB\xBF")) {
            return JsonFault{0, "there is a byte order mark, which JSON must not have"};
        }
        if (!document()) return fault_;
        return std::nullopt;
    }

  private:
    static constexpr int kEnd = -1;

    [[nodiscard]] int byte_at(std::size_t i) const { return static_cast<unsigned char>(text_[i]); }
    [[nodiscard]] int peek() const { return at_ < text_.size() ? byte_at(at_) : kEnd; }

    void skip_space() {
        while (at_ < text_.size() && std::string_view(" \t\n\r").contains(text_[at_])) ++at_;
    }

    bool fail_at(std::size_t offset, std::string what) {
        fault_ = JsonFault{offset, std::move(what)};
        return false;
    }
    bool fail(std::string what) { return fail_at(at_, std::move(what)); }

    bool expected(std::string_view what) {
        const int c = peek();
        if (c == kEnd) return fail(fmt::format("expected {} but the text ends", what));
        if (c > 0x20 && c < 0x7f) {
            return fail(fmt::format("expected {} but found '{}'", what, static_cast<char>(c)));
        }
        return fail(fmt::format("expected {} but found byte 0x{:02X}", what, c));
    }

    bool document() {
        skip_space();
        if (peek() == kEnd) return fail("expected a value but the text ends");
        if (!value("a value")) return false;
        while (depth_ > 0) {
            if (!next_in_container()) return false;
        }
        skip_space();
        if (peek() != kEnd) return expected("the end of the text after the value");
        return true;
    }

    /// After a value inside a container: a comma and one more value, or the container's end.
    bool next_in_container() {
        skip_space();
        const bool object = in_object_[depth_];
        if (peek() == (object ? '}' : ']')) {
            ++at_;
            --depth_;
            return true;
        }
        if (peek() != ',') return expected(object ? "',' or '}'" : "',' or ']'");
        ++at_;
        skip_space();
        if (object) return member("a key in double quotes");
        return value("a value");
    }

    bool member(std::string_view what) {
        if (peek() != '"') return expected(what);
        if (!string()) return false;
        skip_space();
        if (peek() != ':') return expected("':'");
        ++at_;
        skip_space();
        return value("a value");
    }

    bool value(std::string_view what) {
        const int c = peek();
        if (c == '{' || c == '[') return open(c == '{');
        if (c == '"') return string();
        if (c == 't') return literal("true");
        if (c == 'f') return literal("false");
        if (c == 'n') return literal("null");
        if (c == '-' || is_digit(c)) return number();
        return expected(what);
    }

    bool open(bool object) {
        const std::size_t start = at_++;
        skip_space();
        if (peek() == (object ? '}' : ']')) {
            ++at_;
            return true;
        }
        if (depth_ == max_depth_) {
            return fail_at(
                start, fmt::format("objects and arrays are nested more than {} deep", max_depth_));
        }
        in_object_[++depth_] = object;
        if (object) return member("'}' or a key in double quotes");
        return value("']' or a value");
    }

    bool literal(std::string_view word) {
        for (std::size_t i = 0; i < word.size(); ++i, ++at_) {
            if (peek() != word[i]) return expected(fmt::format("{}", word));
        }
        const int c = peek();
        if (c == kEnd || std::string_view(" \t\n\r,:[]{}").contains(static_cast<char>(c)))
            return true;
        return expected(fmt::format("a delimiter after {}", word));
    }

    bool string() {
        const std::size_t start = at_++;
        for (;;) {
            const int c = peek();
            if (c == kEnd) return fail_at(start, "a string begins that never ends");
            if (c < 0x20) {
                return fail(fmt::format(
                    "a string has the control character 0x{:02X}, which must be escaped", c));
            }
            ++at_;
            if (c == '"') return true;
            if (c == '\\' && !escape()) return false;
        }
    }

    bool escape() {
        const int c = peek();
        if (c == 'u') return unicode_escape();
        if (c == kEnd || !std::string_view("\"\\/bfnrt").contains(static_cast<char>(c))) {
            return expected("one of \"\\/bfnrtu after a backslash");
        }
        ++at_;
        return true;
    }

    bool unicode_escape() {
        const std::size_t start = at_ - 1;
        std::uint32_t unit = 0;
        if (!four_digits(unit)) return false;
        if (unit < 0xD800 || unit > 0xDFFF) return true;
        std::uint32_t low = 0;
        const bool pair = unit < 0xDC00 && text_.substr(at_).starts_with("\\u");
        if (pair) {
            ++at_;
            if (!four_digits(low)) return false;
        }
        if (low >= 0xDC00 && low <= 0xDFFF) return true;
        return fail_at(start, fmt::format("the escape \\u{:04x} is half of a surrogate pair and "
                                          "its other half is missing",
                                          unit));
    }

    bool four_digits(std::uint32_t& unit) {
        ++at_;  // the u
        for (int i = 0; i < 4; ++i, ++at_) {
            const int c = peek();
            const int lower = c | 0x20;
            const bool letter = c != kEnd && lower >= 'a' && lower <= 'f';
            if (!is_digit(c) && !letter) return expected("four hexadecimal digits after \\u");
            unit = unit * 16 + static_cast<std::uint32_t>(letter ? lower - 'a' + 10 : c - '0');
        }
        return true;
    }

    bool number() {
        const std::size_t start = at_;
        if (peek() == '-') ++at_;
        if (!is_digit(peek())) return expected("a digit after '-'");
        if (peek() == '0') {
            ++at_;
            if (is_digit(peek())) return fail_at(start, "a number begins with a superfluous 0");
        }
        while (is_digit(peek())) ++at_;
        bool whole = true;
        if (peek() == '.') {
            whole = false;
            ++at_;
            if (!is_digit(peek())) return expected("a digit after the decimal point");
            while (is_digit(peek())) ++at_;
        }
        if (peek() == 'e' || peek() == 'E') {
            whole = false;
            ++at_;
            if (peek() == '+' || peek() == '-') ++at_;
            if (!is_digit(peek())) return expected("a digit in the exponent");
            while (is_digit(peek())) ++at_;
        }
        const std::string_view digits = text_.substr(start, at_ - start);
        const int c = peek();
        if (c != kEnd && !std::string_view(" \t\n\r,:[]{}").contains(static_cast<char>(c))) {
            return expected("a delimiter after the number");
        }
        if (whole ? fits_integer(digits) : fits_double(digits)) return true;
        return fail_at(start, whole ? "an integer does not fit 64 bits"
                                    : "a number is too large for a double");
    }

    static bool fits_integer(std::string_view digits) {
        const char* const end = digits.data() + digits.size();
        std::int64_t i = 0;
        std::uint64_t u = 0;
        return std::from_chars(digits.data(), end, i).ec == std::errc() ||
               (digits[0] != '-' && std::from_chars(digits.data(), end, u).ec == std::errc());
    }

    /// Numbers too small for a double become zero, as in every other reader; only overflow is
    /// refused.
    static bool fits_double(std::string_view digits) {
        double d = 0;
        const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), d);
        if (ec != std::errc::result_out_of_range) return true;
        return !overflows(digits);
    }

    /// Of a number that is out of a double's range: whether it is too large (and not too small).
    static bool overflows(std::string_view digits) {
        const std::size_t e = digits.find_first_of("eE");
        const std::string_view mantissa = digits.substr(0, e);
        const std::size_t point = std::min(mantissa.find('.'), mantissa.size());
        const std::size_t first = mantissa.find_first_of("123456789");
        std::int64_t magnitude =
            static_cast<std::int64_t>(point) - static_cast<std::int64_t>(first);
        if (e != std::string_view::npos) {
            std::string_view exponent = digits.substr(e + 1);
            const bool negative = exponent.starts_with('-');
            if (negative || exponent.starts_with('+')) exponent.remove_prefix(1);
            std::int64_t n = 0;
            const auto r = std::from_chars(exponent.data(), exponent.data() + exponent.size(), n);
            if (r.ec == std::errc::result_out_of_range) return !negative;
            if (n > INT64_MAX / 2) return !negative;
            magnitude += negative ? -n : n;
        }
        return magnitude > 0;
    }

    std::string_view text_;
    std::size_t max_depth_;
    std::size_t at_ = 0;
    std::size_t depth_ = 0;
    std::bitset<kStackLevels> in_object_;
    std::optional<JsonFault> fault_;
};

}  // namespace

std::optional<JsonFault> find_json_fault(std::string_view text, std::size_t max_depth) {
    return FaultFinder(text, max_depth).run();
}

}  // namespace stator::codec
