#include "stator/text/parsers/json_call.h"

#include <algorithm>

#include "stator/codec/json.h"

namespace stator::text {
namespace {

enum class Member : std::uint8_t { kName, kArguments, kOther };

Member member(std::string_view key) {
    if (key == "name") return Member::kName;
    if (key == "arguments" || key == "parameters") return Member::kArguments;
    return Member::kOther;
}

bool is_object(std::string_view json) { return trimmed(json).starts_with('{') && is_json(json); }

}  // namespace

std::optional<std::string> unescaped_json(std::string_view raw) {
    if (!raw.contains('\\')) return std::string(raw);
    codec::JsonDocument document;
    std::string quoted;
    quoted.append("[\"").append(raw).append("\"]");
    const auto parsed = document.parse(quoted);
    if (!parsed) return std::nullopt;
    std::optional<std::string> text;
    parsed->each_element([&](std::size_t, codec::JsonView element) {
        if (const auto s = element.as_string()) text = std::string(*s);
        return false;
    });
    return text;
}

void JsonCallReader::begin(bool needs_arguments) {
    *this = JsonCallReader();
    needs_arguments_ = needs_arguments;
}

JsonCallReader::Result JsonCallReader::read(Input& in, CallWriter& calls, std::string& held,
                                            OutputEvents& out) {
    while (state_ != State::kDone) {
        if (in.empty()) return Result::kMore;
        if (!written_ && held.size() >= kMaxHeld) return Result::kNoCall;
        const Result r = step(in, calls, held, out);
        if (written_) held.clear();
        if (r != Result::kMore) return r;
    }
    return Result::kDone;
}

void JsonCallReader::take(Input& in, std::string& held, std::size_t n) {
    const std::string_view taken = in.take(n);
    if (!written_) held.append(taken);
}

void JsonCallReader::write(CallWriter& calls, OutputEvents& out) {
    calls.begin(out, *name_);
    written_ = true;
}

JsonCallReader::Result JsonCallReader::step(Input& in, CallWriter& calls, std::string& held,
                                            OutputEvents& out) {
    const char c = in.front();
    switch (state_) {
        case State::kOther:
        case State::kHeld:
            return scan_held(in, held);
        case State::kPassing:
            calls.pass(scan_, in, out);
            if (scan_.bad()) return Result::kBroken;
            if (scan_.done()) {
                calls.end(out);
                state_ = State::kAfter;
            }
            return Result::kMore;
        case State::kInKey:
        case State::kName:
        case State::kText:
            take(in, held, 1);
            if (c == '"' && !escaped_) return string_ended(calls, out);
            escaped_ = c == '\\' && !escaped_;
            string_.push_back(c);
            if (state_ != State::kText && string_.size() > kMaxName) return no();
            return Result::kMore;
        case State::kOpen:
        case State::kFirstKey:
        case State::kKey:
        case State::kColon:
        case State::kValue:
        case State::kAfter:
            break;
        case State::kDone:
            return Result::kDone;
    }
    if (is_space(c)) {
        take(in, held, 1);
        return Result::kMore;
    }
    if (state_ == State::kValue) return value(in, calls, held, out);
    if (c == '}' && (state_ == State::kAfter || state_ == State::kFirstKey)) {
        take(in, held, 1);
        return close(calls, out);
    }
    const Result r = key(c);
    if (r == Result::kMore) take(in, held, 1);
    return r;
}

/// The punctuation around members.
JsonCallReader::Result JsonCallReader::key(char c) {
    if (state_ == State::kOpen && c == '{') {
        state_ = State::kFirstKey;
    } else if ((state_ == State::kFirstKey || state_ == State::kKey) && c == '"') {
        string_.clear();
        state_ = State::kInKey;
    } else if (state_ == State::kColon && c == ':') {
        state_ = State::kValue;
    } else if (state_ == State::kAfter && c == ',') {
        state_ = State::kKey;
    } else {
        return no();
    }
    return Result::kMore;
}

JsonCallReader::Result JsonCallReader::value(Input& in, CallWriter& calls, std::string& held,
                                             OutputEvents& out) {
    const char c = in.front();
    scan_ = JsonScan();
    string_.clear();
    const Member m = member(member_);
    if (m == Member::kName && !name_) {
        if (c != '"') return no();
        state_ = State::kName;
        take(in, held, 1);
    } else if (m == Member::kArguments && !has_arguments_) {
        has_arguments_ = true;
        if (c == '"') {
            state_ = State::kText;
            take(in, held, 1);
        } else if (c == '{' && name_) {
            write(calls, out);
            state_ = State::kPassing;
        } else if (c == '{') {
            state_ = State::kHeld;
        } else if (c == 'n') {
            state_ = State::kOther;  // null: the same as none
        } else {
            return no();
        }
    } else {
        state_ = State::kOther;
    }
    return Result::kMore;
}

JsonCallReader::Result JsonCallReader::string_ended(CallWriter& calls, OutputEvents& out) {
    std::optional<std::string> text = unescaped_json(string_);
    if (!text) return no();
    switch (state_) {
        case State::kInKey:
            member_ = std::move(*text);
            state_ = State::kColon;
            return Result::kMore;
        case State::kName:
            if (text->empty()) return no();
            name_ = std::move(*text);
            break;
        default:
            if (!is_object(*text)) return no();
            arguments_ = std::move(*text);
    }
    state_ = State::kAfter;
    if (name_ && !arguments_.empty() && !written_) {
        write(calls, out);
        calls.arguments(out, arguments_);
        calls.end(out);
    }
    return Result::kMore;
}

/// Values that are not passed on (yet).
JsonCallReader::Result JsonCallReader::scan_held(Input& in, std::string& held) {
    std::string_view text = in.rest;
    if (!written_) text = text.substr(0, kMaxHeld - held.size());
    const std::size_t n = scan_.feed(text);
    if (state_ == State::kHeld) arguments_.append(in.rest.substr(0, n));
    take(in, held, n);
    if (scan_.bad()) return no();
    if (scan_.done()) {
        state_ = State::kAfter;
    } else if (n < text.size()) {  // a control character in a string
        if (state_ == State::kHeld) append_json_escaped(arguments_, in.rest.substr(0, 1));
        take(in, held, 1);
    }
    return Result::kMore;
}

JsonCallReader::Result JsonCallReader::close(CallWriter& calls, OutputEvents& out) {
    state_ = State::kDone;
    if (written_) return Result::kDone;
    if (!name_ || (needs_arguments_ && !has_arguments_)) return Result::kNoCall;
    write(calls, out);
    calls.arguments(out, "{}");
    calls.end(out);
    return Result::kDone;
}

void JsonCallList::begin(bool needs_arguments) {
    state_ = State::kOpen;
    array_ = false;
    needs_arguments_ = needs_arguments;
}

JsonCallList::Result JsonCallList::read(Input& in, CallWriter& calls, std::string& held,
                                        OutputEvents& out) {
    for (;;) {
        if (state_ == State::kCall) {
            const Result r = reader_.read(in, calls, held, out);
            if (r != Result::kDone) return r;
            held.clear();
            if (!array_) return Result::kDone;
            state_ = State::kAfter;
        }
        if (in.empty()) return Result::kMore;
        const char c = in.front();
        const bool element = state_ == State::kFirst || state_ == State::kElement;
        if (c == '{' && (state_ == State::kOpen || element)) {
            reader_.begin(needs_arguments_);
            state_ = State::kCall;
            continue;
        }
        if (state_ == State::kAfter && c == ']') {
            in.take(1);
            held.clear();
            return Result::kDone;
        }
        if (held.size() >= kMaxHeld) return Result::kNoCall;
        if (c == '[' && state_ == State::kOpen) {
            array_ = true;
            state_ = State::kFirst;
        } else if (c == ',' && state_ == State::kAfter) {
            state_ = State::kElement;
        } else if (!is_space(c) || state_ == State::kOpen) {
            return state_ == State::kAfter ? Result::kBroken : Result::kNoCall;
        }
        held.append(in.take(1));
    }
}

}  // namespace stator::text
