#include "stator/frontend/field_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "stator/codec/json_writer.h"
#include "stator/codec/utf8.h"

namespace stator::frontend {

using codec::JsonType;
using codec::JsonView;

std::string describe(JsonView value) {
    constexpr std::size_t kShown = 40;
    if (!value.present()) return "nothing";
    switch (value.type()) {
        case JsonType::kNull:
            return "null";
        case JsonType::kArray:
            return value.size() == 0 ? "an empty array" : "an array";
        case JsonType::kObject:
            return "an object";
        case JsonType::kBool:
            return *value.as_bool() ? "true" : "false";
        case JsonType::kInt:
        case JsonType::kUint:
        case JsonType::kDouble: {
            std::string out;
            value.write_to(out);
            return out;
        }
        case JsonType::kString: {
            std::string_view text = *value.as_string();
            const bool cut = text.size() > kShown;
            if (cut) text = text.substr(0, codec::utf8_complete_prefix(text.substr(0, kShown)));
            std::string out;
            codec::append_json_string(out, text);
            return cut ? out + "…" : out;
        }
    }
    return "something else";
}

std::string list_words(std::span<const std::string_view> words) {
    std::string out;
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (i > 0) out += i + 1 == words.size() ? " and " : ", ";
        out += words[i];
    }
    return out;
}

bool NumberRange::has(double v) const {
    return (low_open ? v > low : v >= low) && (high_open ? v < high : v <= high);
}

std::string NumberRange::words() const {
    return fmt::format("{} {} {} {}", low_open ? "above" : "from", low,
                       high_open ? "and below" : (low_open ? "and up to" : "to"), high);
}

std::optional<bool> FieldReader::boolean(std::string_view name) {
    const JsonView v = view(name);
    if (v.is_null()) return std::nullopt;
    const auto b = v.as_bool();
    if (!b) fail_type(name, "true or false", v);
    return b;
}

std::optional<std::string_view> FieldReader::string(std::string_view name) {
    const JsonView v = view(name);
    if (v.is_null()) return std::nullopt;
    const auto s = v.as_string();
    if (!s) fail_type(name, "a string", v);
    return s;
}

std::optional<std::string_view> FieldReader::one_of(std::string_view name,
                                                    std::span<const std::string_view> choices) {
    const JsonView v = view(name);
    if (v.is_null()) return std::nullopt;
    const auto s = v.as_string();
    if (s && std::ranges::find(choices, *s) != choices.end()) return s;
    fail_type(name, "one of " + list_words(choices), v);
    return std::nullopt;
}

std::optional<std::int64_t> FieldReader::integer(std::string_view name, std::int64_t low,
                                                 std::int64_t high) {
    const JsonView v = view(name);
    if (v.is_null()) return std::nullopt;
    const auto n = v.as_int();
    if (n && *n >= low && *n <= high) return n;
    if (high == INT64_MAX) {
        fail_type(name, fmt::format("a whole number of at least {}", low), v);
    } else {
        fail_type(name, fmt::format("a whole number from {} to {}", low, high), v);
    }
    return std::nullopt;
}

std::optional<float> FieldReader::number(std::string_view name, const NumberRange& range) {
    const JsonView v = view(name);
    if (v.is_null()) return std::nullopt;
    const auto d = v.as_double();
    if (d && range.has(*d) && range.has(static_cast<double>(static_cast<float>(*d)))) {
        return static_cast<float>(*d);
    }
    fail_type(name, "a number " + range.words(), v);
    return std::nullopt;
}

std::optional<JsonView> FieldReader::array(std::string_view name, std::string_view what) {
    const JsonView v = view(name);
    if (v.is_null()) return std::nullopt;
    if (v.type() == JsonType::kArray) return v;
    fail_type(name, what, v);
    return std::nullopt;
}

std::optional<JsonView> FieldReader::object(std::string_view name, std::string_view what) {
    const JsonView v = view(name);
    if (v.is_null()) return std::nullopt;
    if (v.type() == JsonType::kObject) return v;
    fail_type(name, what, v);
    return std::nullopt;
}

void FieldReader::fail(tl::unexpected<Error> e) {
    if (!error_) error_ = std::move(e.value());
}

void FieldReader::fail_with(FieldReader& part) {
    if (!part.ok()) fail(part.error());
}

std::string FieldReader::path(std::string_view name) const {
    std::string out;
    out.reserve(path_.size() + 1 + name.size());
    out += path_;
    if (!path_.empty()) out += '.';
    out += name;
    return out;
}

void FieldReader::fail_type(std::string_view name, std::string_view what, JsonView value) {
    if (error_) return;
    const std::string where = path(name);
    fail(param_error(where, "{} must be {}, not {}", where, what, describe(value)));
}

tl::unexpected<Error> FieldReader::error() { return tl::unexpected<Error>(std::move(*error_)); }

}  // namespace stator::frontend
