#include "stator/config/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

namespace stator::config {
namespace {

std::string_view trim(std::string_view s) {
    constexpr std::string_view kBlank = " \t\r\n";
    const auto first = s.find_first_not_of(kBlank);
    if (first == std::string_view::npos) return {};
    return s.substr(first, s.find_last_not_of(kBlank) - first + 1);
}

std::string lower(std::string_view s) {
    std::string out(s);
    for (char& c : out) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return out;
}

template <typename T>
std::optional<T> number(std::string_view text) {
    T value{};
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

struct Unit {
    std::string_view name;
    double factor;
};

constexpr std::array<Unit, 6> kDurationUnits{
    {{"h", 3'600'000}, {"min", 60'000}, {"m", 60'000}, {"s", 1000}, {"ms", 1}, {"", 1000}}};
constexpr double kKi = 1024;
constexpr double kMi = 1024 * kKi;
constexpr double kGi = 1024 * kMi;
constexpr double kTi = 1024 * kGi;
constexpr std::array<Unit, 10> kSizeUnits{{{"", 1},
                                           {"b", 1},
                                           {"k", kKi},
                                           {"kib", kKi},
                                           {"m", kMi},
                                           {"mib", kMi},
                                           {"g", kGi},
                                           {"gib", kGi},
                                           {"t", kTi},
                                           {"tib", kTi}}};

/// A non-negative number and a unit, in the smallest unit; empty where it is neither, or not a
/// whole number of them.
template <std::size_t kCount>
std::optional<std::int64_t> with_unit(std::string_view text,
                                      const std::array<Unit, kCount>& units) {
    const auto split = std::min(text.find_first_not_of("0123456789."), text.size());
    const auto amount = number<double>(text.substr(0, split));
    const std::string name = lower(trim(text.substr(split)));
    const auto unit = std::ranges::find(units, name, &Unit::name);
    if (!amount || unit == units.end()) return std::nullopt;
    const double total = *amount * unit->factor;
    constexpr double kExact = 9'007'199'254'740'992.0;  // 2^53
    if (!(total <= kExact) || total != std::floor(total)) return std::nullopt;
    return static_cast<std::int64_t>(total);
}

std::optional<bool> boolean(std::string_view text) {
    const std::string t = lower(text);
    if (t == "true" || t == "yes" || t == "on" || t == "1") return true;
    if (t == "false" || t == "no" || t == "off" || t == "0") return false;
    return std::nullopt;
}

std::vector<std::string> split_list(std::string_view text) {
    std::vector<std::string> items;
    while (!text.empty()) {
        const auto comma = std::min(text.find(','), text.size());
        const auto item = trim(text.substr(0, comma));
        if (!item.empty()) items.emplace_back(item);
        text.remove_prefix(std::min(comma + 1, text.size()));
    }
    return items;
}

std::string format_duration(std::int64_t ms) {
    if (ms == 0) return "0s";
    if (ms % 3'600'000 == 0) return fmt::format("{}h", ms / 3'600'000);
    if (ms % 60'000 == 0) return fmt::format("{}m", ms / 60'000);
    if (ms % 1000 == 0) return fmt::format("{}s", ms / 1000);
    return fmt::format("{}ms", ms);
}

std::string format_bytes(std::uint64_t bytes) {
    if (bytes == 0) return "0";
    for (const auto& [shift, suffix] : {std::pair{40, 'T'}, {30, 'G'}, {20, 'M'}, {10, 'K'}}) {
        const std::uint64_t unit = 1ULL << shift;
        if (bytes % unit == 0) return fmt::format("{}{}", bytes / unit, suffix);
    }
    return fmt::to_string(bytes);
}

/// The value on the scale of Option::min and max; empty for types without a range.
std::optional<double> magnitude(const Value& value) {
    if (const auto* i = std::get_if<std::int64_t>(&value)) return static_cast<double>(*i);
    if (const auto* d = std::get_if<double>(&value)) return *d;
    if (const auto* t = std::get_if<std::chrono::milliseconds>(&value))
        return static_cast<double>(t->count());
    if (const auto* b = std::get_if<ByteSize>(&value)) return static_cast<double>(b->bytes);
    return std::nullopt;
}

bool in_range(const Option& option, const Value& value) {
    const auto x = magnitude(value);
    if (!x) return true;
    return *x <= option.max && (option.min_excluded ? *x > option.min : *x >= option.min);
}

std::optional<Value> read(const Option& option, std::string_view text) {
    switch (option.type) {
        case OptionType::kBool:
            if (const auto b = boolean(text)) return *b;
            return std::nullopt;
        case OptionType::kInt:
            if (const auto i = number<std::int64_t>(text)) return *i;
            return std::nullopt;
        case OptionType::kFloat:
            if (const auto d = number<double>(text); d && std::isfinite(*d)) return *d;
            return std::nullopt;
        case OptionType::kString:
            return std::string(text);
        case OptionType::kDuration:
            if (const auto ms = with_unit(text, kDurationUnits))
                return std::chrono::milliseconds(*ms);
            return std::nullopt;
        case OptionType::kBytes:
            if (const auto b = with_unit(text, kSizeUnits))
                return ByteSize{static_cast<std::uint64_t>(*b)};
            return std::nullopt;
        case OptionType::kChoice: {
            const auto at = std::ranges::find(option.choices, lower(text));
            if (at == option.choices.end()) return std::nullopt;
            return Choice{static_cast<std::size_t>(at - option.choices.begin())};
        }
        case OptionType::kList:
            return split_list(text);
    }
    return std::nullopt;
}

std::string range_text(const Option& option) {
    const bool low = std::isfinite(option.min);
    const bool high = std::isfinite(option.max);
    const auto bound = [&](double b) { return format_bound(option, b); };
    if (low && high && option.min_excluded)
        return fmt::format(" above {} and at most {}", bound(option.min), bound(option.max));
    if (low && high) return fmt::format(" from {} to {}", bound(option.min), bound(option.max));
    if (low) return fmt::format(" of at least {}", bound(option.min));
    if (high) return fmt::format(" of at most {}", bound(option.max));
    return {};
}

}  // namespace

Result<Value> parse_value(const Option& option, std::string_view text) {
    const std::string_view trimmed = trim(text);
    if (std::ranges::any_of(trimmed, [](char c) { return static_cast<unsigned char>(c) < 0x20; })) {
        return error(ErrorCode::kInvalidArgument, "{} has control characters; it must be {}",
                     in_quotes(trimmed), expectation(option));
    }
    const auto value = read(option, trimmed);
    if (value && option.check != nullptr) {
        if (auto ok = option.check(std::get<std::vector<std::string>>(*value)); !ok) {
            return tl::unexpected(std::move(ok.error()));
        }
    }
    if (!value || !in_range(option, *value)) {
        return error(ErrorCode::kInvalidArgument, "{} is not possible here; it must be {}",
                     in_quotes(trimmed), expectation(option));
    }
    return *value;
}

std::string format_value(const Option& option, const Value& value) {
    struct Formatter {
        const Option& option;
        std::string operator()(std::monostate) const { return std::string(option.unset_means); }
        std::string operator()(bool b) const { return b ? "true" : "false"; }
        std::string operator()(std::int64_t i) const { return fmt::to_string(i); }
        std::string operator()(double d) const { return fmt::format("{}", d); }
        std::string operator()(const std::string& s) const { return s; }
        std::string operator()(std::chrono::milliseconds t) const {
            return format_duration(t.count());
        }
        std::string operator()(ByteSize b) const { return format_bytes(b.bytes); }
        std::string operator()(Choice c) const { return std::string(option.choices[c.index]); }
        std::string operator()(const std::vector<std::string>& list) const {
            return fmt::format("{}", fmt::join(list, ","));
        }
    };
    return std::visit(Formatter{option}, value);
}

std::string format_bound(const Option& option, double bound) {
    if (option.type == OptionType::kDuration) return format_duration(std::llround(bound));
    if (option.type == OptionType::kBytes)
        return format_bytes(static_cast<std::uint64_t>(std::llround(bound)));
    return fmt::format("{}", bound);
}

std::string expectation(const Option& option) {
    switch (option.type) {
        case OptionType::kBool:
            return "true or false";
        case OptionType::kInt:
            return "a whole number" + range_text(option);
        case OptionType::kFloat:
            return "a number" + range_text(option);
        case OptionType::kString:
            return "a text";
        case OptionType::kDuration:
            return "a time such as 500ms, 30s or 2m" + range_text(option);
        case OptionType::kBytes:
            return "a size such as 64K, 32M or 1G" + range_text(option);
        case OptionType::kChoice:
            return fmt::format("one of {}", fmt::join(option.choices, ", "));
        case OptionType::kList:
            return "a list of texts";
    }
    return "a text";
}

std::string in_quotes(std::string_view text, std::size_t max_bytes) {
    std::string out = "\"";
    const std::size_t length = std::min(text.size(), max_bytes);
    const auto continues = [&](std::size_t i) {
        return (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80;
    };
    std::size_t end = length;
    while (end > 0 && end < text.size() && continues(end)) --end;  // not within a character
    for (const char c : text.substr(0, end)) {
        const auto u = static_cast<unsigned char>(c);
        if (u < 0x20 || u == 0x7f) {
            out += fmt::format("\\x{:02x}", u);
        } else {
            if (c == '"' || c == '\\') out += '\\';
            out += c;
        }
    }
    out += end < text.size() ? "…\"" : "\"";
    return out;
}

}  // namespace stator::config
