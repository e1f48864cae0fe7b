#pragma once

#include <fmt/format.h>

#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>

namespace stator {

/// Log lines are sentences with fields: log_info("The model is loaded.", {{"model", name},
/// {"took_ms", 153}}). To standard error, thread-safe. Fields are printed as key=value, quoted
/// where a value has spaces or quotes. Control characters in values are escaped: a value may come
/// from a client.
enum class LogLevel : unsigned char { kTrace, kDebug, kInfo, kWarn, kError, kOff };
enum class LogFormat : unsigned char { kText, kJson };

struct LogField {
    std::string_view key;
    std::string value;
    bool quoted = false;  ///< a string (JSON: in quotes), not a number or bool

    LogField(std::string_view k, std::string_view v) : key(k), value(v), quoted(true) {}
    LogField(std::string_view k, const char* v) : key(k), value(v), quoted(true) {}
    LogField(std::string_view k, const std::string& v) : key(k), value(v), quoted(true) {}
    LogField(std::string_view k, bool v) : key(k), value(v ? "true" : "false") {}
    template <std::integral T>
        requires(!std::same_as<T, bool>)
    LogField(std::string_view k, T v) : key(k), value(fmt::to_string(v)) {}
    LogField(std::string_view k, double v) : key(k), value(fmt::format("{:.6g}", v)) {}
};
using LogFields = std::initializer_list<LogField>;

void set_log(LogLevel level, LogFormat format);
[[nodiscard]] bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view sentence, LogFields fields);

inline void log_debug(std::string_view s, LogFields f = {}) {
    if (log_enabled(LogLevel::kDebug)) log_line(LogLevel::kDebug, s, f);
}
inline void log_info(std::string_view s, LogFields f = {}) {
    if (log_enabled(LogLevel::kInfo)) log_line(LogLevel::kInfo, s, f);
}
inline void log_warn(std::string_view s, LogFields f = {}) {
    if (log_enabled(LogLevel::kWarn)) log_line(LogLevel::kWarn, s, f);
}
inline void log_error(std::string_view s, LogFields f = {}) {
    if (log_enabled(LogLevel::kError)) log_line(LogLevel::kError, s, f);
}

}  // namespace stator
