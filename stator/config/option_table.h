#pragma once

#include <array>
#include <chrono>
#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "stator/config/options.h"

/// How a member of Settings becomes an Option: for the sources that fill the table, nobody else.
namespace stator::config::table {

/// Names in the order of the enumerators, which count from 0.
template <typename E>
struct Names;

template <>
struct Names<LogLevel> {
    static constexpr std::array<std::string_view, 6> kAll{"trace", "debug", "info",
                                                          "warn",  "error", "off"};
};
template <>
struct Names<PlannerMode> {
    static constexpr std::array<std::string_view, 3> kAll{"off", "advise", "act"};
};
template <>
struct Names<PodHints> {
    static constexpr std::array<std::string_view, 4> kAll{"none", "stator", "dynamo", "both"};
};
template <>
struct Names<GatewayBodies> {
    static constexpr std::array<std::string_view, 5> kAll{"none", "streamed", "buffered",
                                                          "buffered-partial", "full-duplex"};
};
template <>
struct Names<LogFormat> {
    static constexpr std::array<std::string_view, 2> kAll{"text", "json"};
};

/// How a member's C++ type is written by people and carried in a Value.
template <typename T>
struct Carried;

template <>
struct Carried<bool> {
    static constexpr OptionType kType = OptionType::kBool;
    static Value wrap(bool v) { return v; }
    static bool unwrap(const Value& v) { return std::get<bool>(v); }
};
template <std::integral T>
    requires(!std::same_as<T, bool>)
struct Carried<T> {
    static constexpr OptionType kType = OptionType::kInt;
    static Value wrap(T v) { return static_cast<std::int64_t>(v); }
    static T unwrap(const Value& v) { return static_cast<T>(std::get<std::int64_t>(v)); }
};
template <>
struct Carried<double> {
    static constexpr OptionType kType = OptionType::kFloat;
    static Value wrap(double v) { return v; }
    static double unwrap(const Value& v) { return std::get<double>(v); }
};
template <>
struct Carried<std::string> {
    static constexpr OptionType kType = OptionType::kString;
    static Value wrap(const std::string& v) { return v; }
    static std::string unwrap(const Value& v) { return std::get<std::string>(v); }
};
template <>
struct Carried<std::chrono::milliseconds> {
    static constexpr OptionType kType = OptionType::kDuration;
    static Value wrap(std::chrono::milliseconds v) { return v; }
    static std::chrono::milliseconds unwrap(const Value& v) {
        return std::get<std::chrono::milliseconds>(v);
    }
};
template <>
struct Carried<ByteSize> {
    static constexpr OptionType kType = OptionType::kBytes;
    static Value wrap(ByteSize v) { return v; }
    static ByteSize unwrap(const Value& v) { return std::get<ByteSize>(v); }
};
template <>
struct Carried<std::vector<std::string>> {
    static constexpr OptionType kType = OptionType::kList;
    static Value wrap(const std::vector<std::string>& v) { return v; }
    static std::vector<std::string> unwrap(const Value& v) {
        return std::get<std::vector<std::string>>(v);
    }
};
template <typename E>
    requires std::is_enum_v<E>
struct Carried<E> {
    static constexpr OptionType kType = OptionType::kChoice;
    static Value wrap(E v) { return Choice{static_cast<std::size_t>(v)}; }
    static E unwrap(const Value& v) { return static_cast<E>(std::get<Choice>(v).index); }
};
template <typename T>
struct Carried<std::optional<T>> {
    static constexpr OptionType kType = Carried<T>::kType;
    static Value wrap(const std::optional<T>& v) {
        return v ? Carried<T>::wrap(*v) : Value(std::monostate{});
    }
    static std::optional<T> unwrap(const Value& v) {
        if (std::holds_alternative<std::monostate>(v)) return std::nullopt;
        return Carried<T>::unwrap(v);
    }
};

/// An Option under construction.
struct Draft : Option {
    Draft range(double low, double high) && {
        min = low;
        max = high;
        return *this;
    }
    Draft above(double low) && {
        min = low;
        min_excluded = true;
        return *this;
    }
    Draft in(std::string_view u) && {
        unit = u;
        return *this;
    }
    Draft unset(std::string_view means) && {
        unset_means = means;
        return *this;
    }
};

template <auto kSection, auto kField>
Draft option(std::string_view key, std::string_view flag, std::string_view meaning) {
    using Member = std::remove_cvref_t<decltype(Settings{}.*kSection.*kField)>;
    Draft d;
    d.key = key;
    d.flag = flag;
    d.meaning = meaning;
    d.type = Carried<Member>::kType;
    d.get = [](const Settings& s) { return Carried<Member>::wrap(s.*kSection.*kField); };
    d.set = [](Settings& s, const Value& v) { s.*kSection.*kField = Carried<Member>::unwrap(v); };
    if constexpr (std::is_enum_v<Member>) d.choices = Names<Member>::kAll;
    return d;
}

inline constexpr double kMaxCount = 1e9;
inline constexpr double kKiB = 1024;
inline constexpr double kGiB = 1024.0 * 1024 * 1024;
inline constexpr double kDay_ms = 24.0 * 3600 * 1000;

/// The options of a fleet's processes, kept in a source of their own.
void add_fleet_options(std::vector<Option>& t);
/// Of engines attached, likewise; the first option is which engine there is.
void add_attached_options(std::vector<Option>& t);
/// Of images and videos, likewise.
void add_media_options(std::vector<Option>& t);
/// The planner's, likewise.
void add_planner_options(std::vector<Option>& t);
/// The endpoint picker's, likewise.
void add_gateway_options(std::vector<Option>& t);
/// The mock engine's, likewise.
void add_mock_options(std::vector<Option>& t);

}  // namespace stator::config::table
