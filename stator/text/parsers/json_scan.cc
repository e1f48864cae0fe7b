#include "stator/text/parsers/json_scan.h"

#include "stator/text/parsers/marks.h"

namespace stator::text {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20; }

}  // namespace

std::size_t JsonScan::feed(std::string_view text) {
    std::size_t i = 0;
    while (i < text.size() && open()) {
        if (state_ == State::kString) {
            while (i < text.size() && text[i] != '"' && text[i] != '\\' && !is_control(text[i])) {
                ++i;
            }
            if (i == text.size() || is_control(text[i])) return i;
        }
        if (!one(text[i])) return i;
        ++i;
    }
    return i;
}

void JsonScan::finish() {
    if (can_end_number() && depth_ == 0) state_ = State::kDone;
    if (state_ != State::kDone) state_ = State::kBad;
}

bool JsonScan::can_end_number() const {
    return state_ == State::kZero || state_ == State::kInteger || state_ == State::kFraction ||
           state_ == State::kExponentDigits;
}

void JsonScan::value_ended() { state_ = depth_ == 0 ? State::kDone : State::kAfter; }

bool JsonScan::open_container(bool object) {
    if (depth_ == kMaxDepth) return fail();
    const std::uint64_t bit = std::uint64_t{1} << (depth_ % 64);
    std::uint64_t& word = objects_[depth_ / 64];
    word = object ? word | bit : word & ~bit;
    ++depth_;
    return to(object ? State::kFirstKey : State::kFirstItem);
}

bool JsonScan::close_container(bool object) {
    if (depth_ == 0) return fail();
    const std::size_t top = depth_ - 1;
    if (((objects_[top / 64] >> (top % 64)) & 1) != (object ? 1U : 0U)) return fail();
    --depth_;
    value_ended();
    return true;
}

bool JsonScan::begin_value(char c) {
    switch (c) {
        case '{':
            return open_container(true);
        case '[':
            return open_container(false);
        case '"':
            in_key_ = false;
            return to(State::kString);
        case '-':
            return to(State::kMinus);
        case '0':
            return to(State::kZero);
        case 't':
            word_ = "rue";
            return to(State::kWord);
        case 'f':
            word_ = "alse";
            return to(State::kWord);
        case 'n':
            word_ = "ull";
            return to(State::kWord);
        default:
            return is_digit(c) ? to(State::kInteger) : fail();
    }
}

bool JsonScan::number(char c) {
    switch (state_) {
        case State::kMinus:
            if (c == '0') return to(State::kZero);
            return is_digit(c) ? to(State::kInteger) : fail();
        case State::kPoint:
            return is_digit(c) ? to(State::kFraction) : fail();
        case State::kExponent:
            if (c == '+' || c == '-') return to(State::kExponentSign);
            return is_digit(c) ? to(State::kExponentDigits) : fail();
        case State::kExponentSign:
            return is_digit(c) ? to(State::kExponentDigits) : fail();
        default:
            break;
    }
    if (is_digit(c) && state_ != State::kZero) return true;
    const bool whole = state_ == State::kZero || state_ == State::kInteger;
    if (c == '.' && whole) return to(State::kPoint);
    if ((c == 'e' || c == 'E') && state_ != State::kExponentDigits) return to(State::kExponent);
    value_ended();
    return state_ == State::kDone ? false : one(c);
}

bool JsonScan::one(char c) {
    switch (state_) {
        case State::kValue:
            return is_space(c) || begin_value(c);
        case State::kFirstItem:
            if (c == ']') return close_container(false);
            return is_space(c) || begin_value(c);
        case State::kFirstKey:
            if (c == '}') return close_container(true);
            [[fallthrough]];
        case State::kKey:
            if (is_space(c)) return true;
            in_key_ = true;
            return c == '"' ? to(State::kString) : fail();
        case State::kColon:
            if (is_space(c)) return true;
            return c == ':' ? to(State::kValue) : fail();
        case State::kAfter:
            if (is_space(c)) return true;
            if (c == ',') {
                const std::size_t top = depth_ - 1;
                const bool object = ((objects_[top / 64] >> (top % 64)) & 1) != 0;
                return to(object ? State::kKey : State::kValue);
            }
            if (c == '}' || c == ']') return close_container(c == '}');
            return fail();
        case State::kString:
            if (c == '\\') return to(State::kEscape);
            if (c != '"') return true;
            if (in_key_) return to(State::kColon);
            value_ended();
            return true;
        case State::kEscape:
            hex_left_ = 4;
            if (c == 'u') return to(State::kHex);
            return std::string_view("\"\\/bfnrt").contains(c) ? to(State::kString) : fail();
        case State::kHex:
            if (!is_hex(c)) return fail();
            return --hex_left_ == 0 ? to(State::kString) : true;
        case State::kMinus:
        case State::kZero:
        case State::kInteger:
        case State::kPoint:
        case State::kFraction:
        case State::kExponent:
        case State::kExponentSign:
        case State::kExponentDigits:
            return number(c);
        case State::kWord:
            if (c != word_.front()) return fail();
            word_.remove_prefix(1);
            if (word_.empty()) value_ended();
            return true;
        case State::kDone:
        case State::kBad:
            return false;
    }
    return false;
}

bool is_json(std::string_view text) {
    text = trimmed(text);
    JsonScan scan;
    const std::size_t n = scan.feed(text);
    if (n != text.size()) return false;
    if (scan.open()) scan.finish();
    return scan.done();
}

void append_json_escaped(std::string& out, std::string_view text) {
    constexpr std::string_view kHex = "0123456789abcdef";
    std::size_t plain = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c != '"' && c != '\\' && !is_control(c)) continue;
        out.append(text.substr(plain, i - plain));
        plain = i + 1;
        out.push_back('\\');
        switch (c) {
            case '"':
            case '\\':
                out.push_back(c);
                break;
            case '\n':
                out.push_back('n');
                break;
            case '\t':
                out.push_back('t');
                break;
            case '\r':
                out.push_back('r');
                break;
            case '\b':
                out.push_back('b');
                break;
            case '\f':
                out.push_back('f');
                break;
            default:
                out.append("u00");
                out.push_back(kHex[static_cast<unsigned char>(c) >> 4]);
                out.push_back(kHex[static_cast<unsigned char>(c) & 15]);
        }
    }
    out.append(text.substr(plain));
}

}  // namespace stator::text
