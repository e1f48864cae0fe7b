#include "stator/kube/status.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace stator::kube {
namespace {

constexpr std::int64_t kMostSeconds = 600;

std::string_view string_of(codec::JsonView v) { return v.as_string().value_or(""); }

}  // namespace

std::string plain(std::string_view text, std::size_t most) {
    std::string out(text.substr(0, most));
    for (char& c : out) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7f) c = ' ';
        if (byte >= 0x80) c = '?';
    }
    return out;
}

Status read_status(codec::JsonView object, int http_status) {
    Status s;
    const auto code = object.find("code").as_int();
    s.code = code && *code >= 100 && *code < 600 ? static_cast<int>(*code) : http_status;
    s.reason = plain(string_of(object.find("reason")), 100);
    s.message = plain(string_of(object.find("message")), Status::kMaxMessage);
    const auto after = object.find("details").find("retryAfterSeconds").as_int();
    if (after && *after > 0) s.retry_after = std::chrono::seconds(std::min(*after, kMostSeconds));
    return s;
}

Status read_status(std::string_view body, int http_status) {
    codec::JsonDocument document;
    const auto read = document.parse(body);
    if (read && read->type() == codec::JsonType::kObject) return read_status(*read, http_status);
    Status s;
    s.code = http_status;
    s.message = plain(body, Status::kMaxMessage);
    return s;
}

std::optional<std::chrono::seconds> read_retry_after(std::string_view header) {
    std::int64_t seconds = 0;
    const auto [end, ec] = std::from_chars(header.data(), header.data() + header.size(), seconds);
    if (ec != std::errc{} || end != header.data() + header.size() || seconds < 0) return {};
    return std::chrono::seconds(std::min(seconds, kMostSeconds));
}

std::string describe(const Status& s) {
    std::string out = fmt::format("the API server answered {}", s.code);
    if (!s.reason.empty()) out += fmt::format(" ({})", s.reason);
    if (!s.message.empty()) out += ": " + s.message;
    return out;
}

std::string query_escape(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const bool safe = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == '~';
        if (safe) {
            out += c;
        } else {
            out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
        }
    }
    return out;
}

}  // namespace stator::kube
