#include "stator/net/http_response.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "stator/net/http_names.h"

namespace stator::net {
namespace {

constexpr std::size_t kMaxFraming = 64 * 1024;  // extensions and trailers of a chunked body
constexpr std::size_t kMaxHeaders = 256;
constexpr std::size_t kShown = 60;  // of a bad line, in a message

bool is_blank(char c) { return c == ' ' || c == '\t'; }

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
    return text;
}

bool has_control(std::string_view text) {
    return std::ranges::any_of(text,
                               [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 127; });
}

/// For a message: control characters and what is not ASCII as '?'.
std::string shown(std::string_view line) {
    std::string out(line.substr(0, kShown));
    for (char& c : out) {
        if (c < ' ' || c == 127) c = '?';
    }
    return out;
}

/// Is `word` one of the words of a list such as "keep-alive, Upgrade"?
bool lists(std::string_view list, std::string_view word) {
    while (!list.empty()) {
        const auto comma = std::min(list.find(','), list.size());
        if (same_name(trimmed(list.substr(0, comma)), word)) return true;
        list.remove_prefix(std::min(comma + 1, list.size()));
    }
    return false;
}

}  // namespace

std::string_view HttpResponseHead::header(std::string_view name) const {
    for (const auto& [header_name, value] : headers) {
        if (same_name(header_name, name)) return value;
    }
    return {};
}

void HttpResponseParser::begin(bool to_head) {
    state_ = State::kHead;
    framing_ = Framing::kNone;
    to_head_ = to_head;
    keep_alive_ = false;
    text_.clear();
    interim_bytes_ = 0;
    head_.status = 0;
    head_.headers.clear();
    chunks_.reset();
    reason_.clear();
}

HttpResponseParser::State HttpResponseParser::fail(std::string reason) {
    reason_ = std::move(reason);
    keep_alive_ = false;
    return state_ = State::kBad;
}

HttpResponseParser::State HttpResponseParser::next(std::string_view& bytes,
                                                   std::string_view& body) {
    body = {};
    if (state_ == State::kHead) {
        read_head(bytes);
        return state_;
    }
    if (state_ != State::kBody) return state_;
    switch (framing_) {
        case Framing::kNone:
            break;
        case Framing::kLength:
            body = bytes.substr(
                0, static_cast<std::size_t>(std::min<std::uint64_t>(left_, bytes.size())));
            bytes.remove_prefix(body.size());
            left_ -= body.size();
            if (left_ == 0) state_ = State::kDone;
            break;
        case Framing::kChunked:
            read_chunked(bytes, body);
            break;
        case Framing::kUntilClose:
            body = std::exchange(bytes, {});
            break;
    }
    return state_;
}

void HttpResponseParser::read_chunked(std::string_view& bytes, std::string_view& body) {
    switch (chunks_->next(bytes, body)) {
        case ChunkDecoder::Outcome::kMore:
            return;
        case ChunkDecoder::Outcome::kEnd:
            state_ = State::kDone;
            return;
        case ChunkDecoder::Outcome::kMalformed:
            fail(chunks_->reason());
            return;
        case ChunkDecoder::Outcome::kTooLong:
            fail("The body is longer than can be counted.");
            return;
        case ChunkDecoder::Outcome::kTooMuchAround:
            fail("The chunks' extensions and trailers are too long.");
            return;
    }
}

HttpResponseParser::State HttpResponseParser::end() {
    if (state_ == State::kDone || state_ == State::kBad) return state_;
    if (state_ == State::kBody && framing_ == Framing::kUntilClose) return state_ = State::kDone;
    return fail("The connection was closed before the answer's end.");
}

void HttpResponseParser::read_head(std::string_view& bytes) {
    constexpr std::string_view kEnd = "\r\n\r\n";
    const std::size_t before = text_.size();
    // As much as a head of the greatest length has with its end, however the bytes come.
    const std::size_t most = max_head_bytes_ + kEnd.size();
    text_.append(bytes.substr(0, most - std::min(before, most)));
    const std::size_t from = before < kEnd.size() ? 0 : before - (kEnd.size() - 1);
    const std::size_t end = text_.find(kEnd, from);
    if (end == std::string::npos) {
        constexpr std::string_view kBegin = "HTTP/1.";
        if (!text_.starts_with(std::string_view(kBegin).substr(0, text_.size()))) {
            // At once: what is no HTTP may never send an empty line.
            fail(fmt::format("The answer is not HTTP: '{}'", shown(text_)));
        } else if (text_.size() >= most) {
            fail(fmt::format("The head of the answer is longer than {} bytes.", max_head_bytes_));
        } else {
            bytes = {};
        }
        return;
    }
    bytes.remove_prefix(end + kEnd.size() - before);
    text_.resize(end);
    take_head();
    interim_bytes_ += text_.size();
    text_.clear();
    if (interim_bytes_ > max_head_bytes_ && state_ == State::kHead) {
        fail("There are too many interim answers.");
    }
}

/// text_ is a whole head, without the empty line.
void HttpResponseParser::take_head() {
    head_.headers.clear();
    std::string_view rest = text_;
    bool first = true;
    while (first || !rest.empty()) {
        const auto end = std::min(rest.find("\r\n"), rest.size());
        const std::string_view line = rest.substr(0, end);
        rest.remove_prefix(std::min(end + 2, rest.size()));
        if (has_control(line) || !(first ? take_status_line(line) : take_header(line))) {
            fail(fmt::format("The answer is not HTTP: '{}'", shown(line)));
            return;
        }
        first = false;
    }
    if (head_.status == 101) {
        fail("The server switched protocols, which nobody asked for.");
    } else if (head_.status >= 200) {
        state_ = State::kBody;
        choose_framing();
    }
}

/// "HTTP/1.1 200 OK"
bool HttpResponseParser::take_status_line(std::string_view line) {
    constexpr std::size_t kShortest = 12;
    if (line.size() < kShortest || !line.starts_with("HTTP/1.")) return false;
    const char minor = line[7];
    if ((minor != '0' && minor != '1') || line[8] != ' ') return false;
    if (line.size() > kShortest && line[kShortest] != ' ') return false;
    int status = 0;
    for (const char c : line.substr(9, 3)) {
        if (c < '0' || c > '9') return false;
        status = status * 10 + (c - '0');
    }
    http_1_0_ = minor == '0';
    head_.status = status;
    return status >= 100 && status < 600;
}

bool HttpResponseParser::take_header(std::string_view line) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) return false;
    if (head_.headers.size() == kMaxHeaders) return false;
    head_.headers.emplace_back(line.substr(0, colon), trimmed(line.substr(colon + 1)));
    return true;
}

void HttpResponseParser::choose_framing() {
    keep_alive_ = !http_1_0_;
    const std::string* length = nullptr;
    const std::string* coding = nullptr;
    for (const auto& [name, value] : head_.headers) {
        if (same_name(name, "connection")) {
            if (lists(value, "close")) keep_alive_ = false;
            if (http_1_0_ && lists(value, "keep-alive")) keep_alive_ = true;
        } else if (same_name(name, "content-length")) {
            if (length != nullptr) {
                fail("The answer has two lengths.");
                return;
            }
            length = &value;
        } else if (same_name(name, "transfer-encoding")) {
            if (coding != nullptr || http_1_0_ || !same_name(value, "chunked")) {
                fail("The answer has a transfer coding other than chunked.");
                return;
            }
            coding = &value;
        }
    }
    if (length != nullptr && coding != nullptr) {
        fail("The answer has a length and chunks.");
        return;
    }
    if (length != nullptr) {
        constexpr std::size_t kMaxDigits = 18;
        const auto [end, ec] =
            std::from_chars(length->data(), length->data() + length->size(), left_);
        if (ec != std::errc() || end != length->data() + length->size() ||
            length->size() > kMaxDigits) {
            fail(fmt::format("'{}' is no length of an answer.", shown(*length)));
            return;
        }
    }
    if (to_head_ || head_.status == 204 || head_.status == 304 ||
        (length != nullptr && left_ == 0)) {
        state_ = State::kDone;
    } else if (length != nullptr) {
        framing_ = Framing::kLength;
    } else if (coding != nullptr) {
        framing_ = Framing::kChunked;
        chunks_.emplace(std::numeric_limits<std::size_t>::max(), kMaxFraming);
    } else {
        framing_ = Framing::kUntilClose;
        keep_alive_ = false;
    }
}

}  // namespace stator::net
