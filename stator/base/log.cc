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
        case LogLevel::kTrace: return spdlog::level::trace;
        case LogLevel::kDebug: return spdlog::level::debug;
        case LogLevel::kInfo: return spdlog::level::info;
        case LogLevel::kWarn: return spdlog::level::warn;
        case LogLevel::kError: return spdlog::level::err;
        case LogLevel::kOff: return spdlog::level::off;
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

void append_escaped(std::string& out, std::string_view text) {
    for (const char c : text) {
        const auto u = static_cast<unsigned char>(c);
        switch (c) {
            case '"': out += "\\\""; break;
            case '\\': out += "\\\\"; break;
            case '\n': out += "\\n"; break;
            case '\r': out += "\\r"; break;
            case '\t': out += "\\t"; break;
            default:
                if (u < 0x20 || u == 0x7f) {
                    fmt::format_to(std::back_inserter(out), "\\u{:04x}", u);
                } else {
                    out += c;
                }
        }
    }
}

bool plain(std::string_view text) {
    if (text.empty()) return false;
    for (const char c : text) {
        const auto u = static_cast<unsigned char>(c);
        if (u <= 0x20 || u == 0x7f || c == '"' || c == '\\' || c == '=') return false;
    }
    return true;
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
        if (f.quoted) line += '"';
        append_escaped(line, f.value);
        if (f.quoted) line += '"';
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
        logger().log(to_spdlog(level), std::string_view(json_line(level, sentence, fields)).substr(1));
    } else {
        logger().log(to_spdlog(level), text_line(sentence, fields));
    }
}

}  // namespace stator
