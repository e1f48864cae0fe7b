#include "stator/net/http_answer.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <chrono>
#include <iterator>

#include "stator/base/check.h"

namespace stator::net {
namespace {

void append_decimal(std::string& out, std::uint64_t value) {
    std::array<char, 20> digits{};
    const auto end = std::to_chars(digits.begin(), digits.end(), value).ptr;
    out.append(digits.data(), static_cast<std::size_t>(end - digits.data()));
}

void append_clean(std::string& out, std::string_view text) {
    for (const char c : text) {
        const bool control = (c >= 0 && c < ' ' && c != '\t') || c == 127;
        out += control ? ' ' : c;
    }
}

}  // namespace

std::string_view reason_phrase(int status) {
    switch (status) {
        case 100:
            return "Continue";
        case 200:
            return "OK";
        case 201:
            return "Created";
        case 202:
            return "Accepted";
        case 204:
            return "No Content";
        case 304:
            return "Not Modified";
        case 400:
            return "Bad Request";
        case 401:
            return "Unauthorized";
        case 403:
            return "Forbidden";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 408:
            return "Request Timeout";
        case 409:
            return "Conflict";
        case 413:
            return "Content Too Large";
        case 415:
            return "Unsupported Media Type";
        case 417:
            return "Expectation Failed";
        case 422:
            return "Unprocessable Content";
        case 429:
            return "Too Many Requests";
        case 431:
            return "Request Header Fields Too Large";
        case 499:
            return "Client Closed Request";
        case 500:
            return "Internal Server Error";
        case 501:
            return "Not Implemented";
        case 502:
            return "Bad Gateway";
        case 503:
            return "Service Unavailable";
        case 504:
            return "Gateway Timeout";
        case 505:
            return "HTTP Version Not Supported";
        default:
            return "Unknown";
    }
}

bool status_has_body(int status) { return status >= 200 && status != 204 && status != 304; }

std::string http_date(std::int64_t unix_seconds) {
    static constexpr std::array<std::string_view, 7> kDays = {"Sun", "Mon", "Tue", "Wed",
                                                              "Thu", "Fri", "Sat"};
    static constexpr std::array<std::string_view, 12> kMonths = {
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const std::chrono::sys_seconds time{std::chrono::seconds(unix_seconds)};
    const auto day = std::chrono::floor<std::chrono::days>(time);
    const std::chrono::year_month_day date(day);
    const std::chrono::hh_mm_ss clock(time - day);
    return fmt::format(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT", kDays[std::chrono::weekday(day).c_encoding()],
        static_cast<unsigned>(date.day()), kMonths[static_cast<unsigned>(date.month()) - 1],
        static_cast<int>(date.year()), clock.hours().count(), clock.minutes().count(),
        clock.seconds().count());
}

std::string_view DateLine::at(std::int64_t unix_seconds) {
    if (unix_seconds != second_) {
        second_ = unix_seconds;
        line_ = "Date: " + http_date(unix_seconds) + "\r\n";
    }
    return line_;
}

void append_head(std::string& out, const AnswerHead& head, std::string_view date_line) {
    out += "HTTP/1.1 ";
    append_decimal(out, static_cast<std::uint64_t>(head.status));
    out += ' ';
    out += reason_phrase(head.status);
    out += "\r\n";
    out += date_line;
    if (!head.content_type.empty()) append_header(out, "Content-Type", head.content_type);
    switch (head.framing) {
        case Framing::kNone:
        case Framing::kUntilClose:
            break;
        case Framing::kLength:
            out += "Content-Length: ";
            append_decimal(out, head.content_length);
            out += "\r\n";
            break;
        case Framing::kChunked:
            out += "Transfer-Encoding: chunked\r\n";
            break;
    }
    if (head.close) {
        out += "Connection: close\r\n";
    } else if (head.keep_alive) {
        out += "Connection: keep-alive\r\n";
    }
    out += head.extra;
    out += "\r\n";
}

void append_header(std::string& out, std::string_view name, std::string_view value) {
    append_clean(out, name);
    out += ": ";
    append_clean(out, value);
    out += "\r\n";
}

void append_chunk(std::string& out, std::string_view bytes) {
    STATOR_ASSERT(!bytes.empty());
    std::array<char, 16> digits{};
    const auto end = std::to_chars(digits.begin(), digits.end(), bytes.size(), 16).ptr;
    out.append(digits.data(), static_cast<std::size_t>(end - digits.data()));
    out += "\r\n";
    out += bytes;
    out += "\r\n";
}

}  // namespace stator::net
