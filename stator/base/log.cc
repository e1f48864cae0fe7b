#include "stator/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <iterator>

namespace stator {
namespace {

std::atomic<LogFormat> g_format{LogFormat::kText};
std::atomic<LogLevel> g_level{LogLevel::kInfo};

spdlog::level::level_enum to_spdlog(LogLevel level) {
    switch (level) {
        case LogLevel::kTrace:
            return spdlog::level::trace;
        case LogLevel::kDebug:
            return spdlog::level::debug;
        case LogLevel::kInfo:
            return spdlog::level::info;
        case LogLevel::kWarn:
            return spdlog::level::warn;
        case LogLevel::kError:
            return spdlog::level::err;
        case LogLevel::kOff:
            return spdlog::level::off;
    }
    return spdlog::level::off;
}

spdlog::logger& logger() {
    static const std::shared_ptr<spdlog::logger> instance = [] {
        auto l = spdlog::stderr_color_mt("stator");
        l->set_level(spdlog::level::trace);  // g_level decides
        l->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%-5l%$ %v");
        return l;
    }();
    return *instance;
}

/// Length of the well-formed UTF-8 character at text[at], whose first byte is not ASCII; 0 where
/// there is none. (The room codec does this faster and stands above this one.)
std::size_t character_length(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t i) -> unsigned {
        return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U;
    };
    const unsigned lead = byte(0);
    const std::size_t n = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    for (std::size_t i = 1; i < n; ++i) {
        if ((byte(i) & 0xC0) != 0x80) return 0;
    }
    const bool overlong = (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xF0 && byte(1) < 0x90);
    const bool no_character = (lead == 0xED && byte(1) > 0x9F) || (lead == 0xF4 && byte(1) > 0x8F);
    return overlong || no_character ? 0 : n;
}

/// So that a value from a client can neither end the line, nor speak to the reader's terminal, nor
/// spoil the JSON: control characters (the C1 ones too) become \u00XX, bytes that are no UTF-8
/// become U+FFFD.
void append_escaped(std::string& out, std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        const auto u = static_cast<unsigned char>(c);
        switch (c) {
            case '"':
                out += "\\\"";
                continue;
            case '\\':
                out += "\\\\";
                continue;
            case '\n':
                out += "\\n";
                continue;
            case '\r':
                out += "\\r";
                continue;
            case '\t':
                out += "\\t";
                continue;
            default:
                break;
        }
        if (u < 0x20 || u == 0x7f) {
            fmt::format_to(std::back_inserter(out), "\\u{:04x}", u);
        } else if (u < 0x80) {
            out += c;
        } else if (const std::size_t n = character_length(text, i); n == 0) {
            out += "\xEF\xBF\xBD";
        } else if (u == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0) {
            fmt::format_to(std::back_inserter(out), "\\u{:04x}",
                           static_cast<unsigned char>(text[++i]));
        } else {
            out += text.substr(i, n);
            i += n - 1;
        }
    }
}

/// Can stand in a text line without quotes. Beyond ASCII nothing can: it is looked at while it is
/// escaped.
bool plain(std::string_view text) {
    if (text.empty()) return false;
    for (const char c : text) {
        const auto u = static_cast<unsigned char>(c);
        if (u <= 0x20 || u >= 0x7f || c == '"' || c == '\\' || c == '=') return false;
    }
    return true;
}

/// Numbers that JSON has no number for.
bool not_finite(const LogField& f) {
    return !f.quoted && (f.value.ends_with("nan") || f.value.ends_with("inf"));
}

std::string text_line(std::string_view sentence, LogFields fields) {
    std::string line(sentence);
    for (const LogField& f : fields) {
        line += ' ';
        line += f.key;
        line += '=';
        if (!f.quoted || plain(f.value)) {
            line += f.value;
        } else {
            line += '"';
            append_escaped(line, f.value);
            line += '"';
        }
    }
    return line;
}

std::string json_line(LogLevel level, std::string_view sentence, LogFields fields) {
    std::string line = "{\"level\":\"";
    const auto name = spdlog::level::to_string_view(to_spdlog(level));
    line.append(name.data(), name.size());
    line += "\",\"msg\":\"";
    append_escaped(line, sentence);
    line += '"';
    for (const LogField& f : fields) {
        line += ",\"";
        append_escaped(line, f.key);
        line += "\":";
        const bool quotes = f.quoted || not_finite(f);
        if (quotes) line += '"';
        append_escaped(line, f.value);
        if (quotes) line += '"';
    }
    line += '}';
    return line;
}

}  // namespace

void set_log(LogLevel level, LogFormat format) {
    g_level.store(level, std::memory_order_relaxed);
    g_format.store(format, std::memory_order_relaxed);
    if (format == LogFormat::kJson) {
        logger().set_pattern("{\"time\":\"%Y-%m-%dT%H:%M:%S.%e%z\",%v");
    } else {
        logger().set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%-5l%$ %v");
    }
}

bool log_enabled(LogLevel level) { return level >= g_level.load(std::memory_order_relaxed); }

void log_line(LogLevel level, std::string_view sentence, LogFields fields) {
    if (g_format.load(std::memory_order_relaxed) == LogFormat::kJson) {
        // The pattern has written the opening brace with the time.
        logger().log(to_spdlog(level),
                     std::string_view(json_line(level, sentence, fields)).substr(1));
    } else {
        logger().log(to_spdlog(level), text_line(sentence, fields));
    }
}

}  // namespace stator
