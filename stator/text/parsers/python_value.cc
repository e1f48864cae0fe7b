#include "stator/text/parsers/python_value.h"

#include <fmt/format.h>

#include <charconv>

#include "stator/text/parsers/json_scan.h"
#include "stator/text/parsers/marks.h"

namespace stator::text {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

int hex_digit(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool in_token(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '.' || c == '+' || c == '-';
}

void append_utf8(std::string& out, std::uint32_t code) {
    if (code < 0x80) {
        out.push_back(static_cast<char>(code));
    } else if (code < 0x800) {
        out.push_back(static_cast<char>(0xC0 | (code >> 6)));
        out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
    } else if (code < 0x10000) {
        out.push_back(static_cast<char>(0xE0 | (code >> 12)));
        out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
        out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
    } else {
        out.push_back(static_cast<char>(0xF0 | (code >> 18)));
        out.push_back(static_cast<char>(0x80 | ((code >> 12) & 0x3F)));
        out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
        out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
    }
}

}  // namespace

std::optional<std::string> python_token_as_json(std::string_view token) {
    if (token == "True" || token == "true") return "true";
    if (token == "False" || token == "false") return "false";
    if (token == "None" || token == "null") return "null";
    std::string number;
    for (const char c : token) {
        if (c != '_') number.push_back(c);
    }
    if (number.starts_with('+')) number.erase(0, 1);
    const bool minus = number.starts_with('-');
    const std::string_view digits = std::string_view(number).substr(minus ? 1 : 0);
    if (digits.starts_with("0x") || digits.starts_with("0X")) {
        std::uint64_t n = 0;
        const char* end = digits.data() + digits.size();
        const auto [p, e] = std::from_chars(digits.data() + 2, end, n, 16);
        if (e != std::errc() || p != end) return std::nullopt;
        return (minus ? "-" : "") + std::to_string(n);
    }
    if (digits.starts_with('.')) number.insert(minus ? 1 : 0, "0");
    if (const auto dot = number.find('.'); dot != std::string::npos) {
        if (dot + 1 == number.size() || !is_digit(number[dot + 1])) number.insert(dot + 1, "0");
    }
    const char first = number.empty() ? ' ' : number.front();
    if ((first != '-' && !is_digit(first)) || !is_json(number)) return std::nullopt;
    return number;
}

std::optional<std::string> python_as_json(std::string_view text) {
    text = trimmed(text);
    PythonValue value;
    std::string json;
    const std::size_t n = value.feed(text, json);
    if (n != text.size()) return std::nullopt;
    if (value.open()) value.finish(json);
    if (!value.done()) return std::nullopt;
    return json;
}

std::size_t PythonValue::feed(std::string_view text, std::string& out) {
    std::size_t i = 0;
    while (i < text.size() && open()) {
        if (state_ == State::kString) {
            const std::size_t from = i;
            while (i < text.size() && text[i] != quote_ && text[i] != '\\') ++i;
            append_json_escaped(out, text.substr(from, i - from));
            if (i == text.size()) return i;
        }
        if (!one(text[i], out)) return i;
        ++i;
    }
    return i;
}

void PythonValue::finish(std::string& out) {
    if (state_ == State::kToken && closers_.empty()) end_token(out);
    if (state_ != State::kDone) state_ = State::kBad;
}

void PythonValue::value_ended() {
    if (key_) {
        key_ = false;
        state_ = State::kColon;
        return;
    }
    state_ = closers_.empty() ? State::kDone : State::kAfter;
}

bool PythonValue::begin_value(char c, std::string& out) {
    if (is_space(c)) return true;
    if (c == '"' || c == '\'') {
        quote_ = c;
        out.push_back('"');
        return to(State::kString);
    }
    if (c == '[' || c == '(' || c == '{') {
        if (closers_.size() == kMaxDepth || key_) return fail();
        out.push_back(c == '{' ? '{' : '[');
        closers_.push_back(c == '[' ? ']' : (c == '(' ? ')' : '}'));
        return to(c == '{' ? State::kFirstKey : State::kFirst);
    }
    if (!in_token(c)) return fail();
    token_.assign(1, c);
    return to(State::kToken);
}

bool PythonValue::close(char c, std::string& out) {
    if (closers_.empty() || closers_.back() != c) return fail();
    out.push_back(c == '}' ? '}' : ']');
    closers_.pop_back();
    value_ended();
    return true;
}

bool PythonValue::after(char c, std::string& out) {
    if (is_space(c)) return true;
    if (c == ',') {
        // A comma may come last; JSON's is written with the next item.
        return to(closers_.back() == '}' ? State::kKey : State::kValue);
    }
    return close(c, out);
}

bool PythonValue::end_token(std::string& out) {
    const auto json = python_token_as_json(token_);
    if (!json) return fail();
    if (key_) out.push_back('"');
    out.append(*json);
    if (key_) out.push_back('"');
    value_ended();
    return true;
}

void PythonValue::write_code(std::string& out) {
    state_ = State::kString;
    if (code_ >= 0xD800 && code_ < 0xE000) {
        out.append(fmt::format("\\u{:04x}", code_));
    } else if (code_ <= 0x10FFFF) {
        std::string character;
        append_utf8(character, code_);
        append_json_escaped(out, character);
    } else {
        state_ = State::kBad;
    }
}

void PythonValue::escape(char c, std::string& out) {
    constexpr std::string_view kNames = "abfnrtv";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v";
    state_ = State::kString;
    code_ = 0;
    if (const auto i = kNames.find(c); i != std::string_view::npos) {
        append_json_escaped(out, kMeanings.substr(i, 1));
    } else if (c == 'x' || c == 'u' || c == 'U') {
        digits_left_ = c == 'x' ? 2 : (c == 'u' ? 4 : 8);
        state_ = State::kCode;
    } else if (c >= '0' && c <= '7') {
        code_ = static_cast<std::uint32_t>(c - '0');
        digits_left_ = 2;
        state_ = State::kOctal;
    } else if (c == '\\' || c == '\'' || c == '"') {
        append_json_escaped(out, std::string_view(&c, 1));
    } else if (c != '\n') {
        out.append("\\\\");  // not an escape: the backslash stays
        append_json_escaped(out, std::string_view(&c, 1));
    }
}

bool PythonValue::one(char c, std::string& out) {
    switch (state_) {
        case State::kFirst:
        case State::kFirstKey:
            if (is_space(c)) return true;
            if (c == closers_.back()) return close(c, out);
            key_ = state_ == State::kFirstKey;
            return begin_value(c, out);
        case State::kValue:
        case State::kKey:
            if (is_space(c)) return true;
            if (!closers_.empty() && comma_due_) {
                if (c == closers_.back()) return close(c, out);
                out.append(", ");
                comma_due_ = false;
            }
            key_ = state_ == State::kKey;
            return begin_value(c, out);
        case State::kColon:
            if (is_space(c)) return true;
            if (c != ':') return fail();
            out.append(": ");
            return to(State::kValue);
        case State::kAfter:
            comma_due_ = c == ',';
            return after(c, out);
        case State::kString:
            if (c == '\\') return to(State::kEscape);
            out.push_back('"');
            value_ended();
            return true;
        case State::kEscape:
            escape(c, out);
            return true;
        case State::kCode: {
            const int digit = hex_digit(c);
            if (digit < 0) return fail();
            code_ = code_ * 16 + static_cast<std::uint32_t>(digit);
            if (--digits_left_ == 0) write_code(out);
            return open();
        }
        case State::kOctal:
            if (c < '0' || c > '7' || digits_left_ == 0) {
                write_code(out);
                return one_in_string(c, out);
            }
            code_ = code_ * 8 + static_cast<std::uint32_t>(c - '0');
            --digits_left_;
            return true;
        case State::kToken:
            if (in_token(c)) {
                if (token_.size() == kMaxToken) return fail();
                token_.push_back(c);
                return true;
            }
            if (!end_token(out)) return false;
            return state_ == State::kDone ? false : one(c, out);
        case State::kDone:
        case State::kBad:
            return false;
    }
    return false;
}

bool PythonValue::one_in_string(char c, std::string& out) {
    if (c == '\\' || c == quote_) return one(c, out);
    append_json_escaped(out, std::string_view(&c, 1));
    return true;
}

}  // namespace stator::text
