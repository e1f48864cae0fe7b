#include "stator/net/http_parser.h"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <charconv>
#include <limits>
#include <utility>

#include "stator/base/check.h"

namespace stator::net {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;

constexpr std::size_t kPadding = 64;                // what a vectorised reader may overread
constexpr std::size_t kFirstBodyBytes = 64 * 1024;  // reserved before any body byte came
constexpr std::size_t kMaxChunkLine = 1024;
constexpr std::size_t kMaxLeadingBreaks = 4;  // bytes: two CRLF
// "0\r\n\r\n": no chunk header and what must follow it is shorter. Beast counts on being asked
// with that much.
constexpr std::size_t kLeastChunkBytes = 5;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool equals_ignoring_case(std::string_view a, std::string_view b) {
    return std::ranges::equal(a, b, {}, lower, lower);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alpha(char c) { return lower(c) >= 'a' && lower(c) <= 'z'; }
bool is_hex(char c) { return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'f'); }

bool is_token_char(char c) {
    return is_digit(c) || is_alpha(c) || std::string_view("!#$%&'*+-.^_`|~").contains(c);
}

bool is_port(std::string_view text) {
    if (text.empty()) return true;  // "host:" is legal
    unsigned value = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    return ec == std::errc() && end == text.data() + text.size() && value <= 65'535;
}

std::string_view to_std(beast::string_view s) { return {s.data(), s.size()}; }

/// What a client sent, short enough for a message.
std::string shown(std::string_view text) {
    constexpr std::size_t kMost = 60;
    std::string out;
    for (const char c : text.substr(0, kMost)) out += c >= ' ' && c < 127 ? c : '?';
    if (text.size() > kMost) out += "...";
    return out;
}

HttpRefusal refusal_of(const beast::error_code& ec) {
    using E = http::error;
    if (ec == E::bad_method) return {400, "The request line's method is not a token."};
    if (ec == E::bad_target) return {400, "The request line's target is missing or malformed."};
    if (ec == E::bad_version) {
        return {400, "The request line must end in HTTP/1.1 (or HTTP/1.0) and one line break."};
    }
    if (ec == E::bad_field) return {400, "A header's name is empty or not a token."};
    if (ec == E::bad_value) return {400, "A header's value is malformed."};
    if (ec == E::bad_line_ending) return {400, "A line must end with CR LF."};
    if (ec == E::bad_content_length) {
        return {400, "Content-Length must be one decimal number, without Transfer-Encoding."};
    }
    if (ec == E::multiple_content_length) {
        return {400, "There is more than one Content-Length: how long is the body?"};
    }
    if (ec == E::bad_transfer_encoding) {
        return {400, "Transfer-Encoding must come once and without Content-Length."};
    }
    if (ec == E::bad_chunk) return {400, "A chunk of the body does not start with its length."};
    if (ec == E::bad_chunk_extension) return {400, "A chunk's extension is malformed."};
    if (ec == E::header_limit) return {431, "The headers are too long."};
    return {400, "The request is malformed: " + ec.message() + "."};
}

}  // namespace

bool is_valid_host(std::string_view host) {
    if (host.starts_with('[')) {
        const auto end = host.find(']');
        if (end == std::string_view::npos || end < 3) return false;
        for (const char c : host.substr(1, end - 1)) {
            if (!is_hex(c) && c != ':' && c != '.') return false;
        }
        const std::string_view rest = host.substr(end + 1);
        return rest.empty() || (rest[0] == ':' && is_port(rest.substr(1)));
    }
    const auto colon = host.find(':');
    const std::string_view name = host.substr(0, colon);
    if (name.empty()) return false;
    for (const char c : name) {
        if (!is_digit(c) && !is_alpha(c) && !std::string_view("-._~%!$&'()*+;=").contains(c)) {
            return false;
        }
    }
    return colon == std::string_view::npos || is_port(host.substr(colon + 1));
}

/// Beast's parser with our hooks: fields go straight into the request.
class BeastParser final : public http::basic_parser<true> {
  public:
    BeastParser(HttpRequest& request, const HttpLimits& limits) : request_(request) {
        header_limit(std::numeric_limits<std::uint32_t>::max());  // the head is measured before
        body_limit(limits.max_body_bytes);
    }

    // What the head said, for the checks behind it.
    int version = 0;
    unsigned hosts = 0;
    unsigned content_lengths = 0;
    bool has_coding = false;
    bool continue_expected = false;
    bool bad_chunk_extension = false;
    std::optional<std::string> unknown_coding;
    std::optional<std::string> other_expectation;

    /// Is the next byte a chunk's data (not its line, its end or a trailer)?
    [[nodiscard]] bool in_chunk() const { return chunk_left_ > 0; }

  private:
    void on_request_impl(http::verb, beast::string_view method, beast::string_view target, int v,
                         beast::error_code&) override {
        request_.method = to_std(method);
        request_.target = to_std(target);
        version = v;
    }
    void on_response_impl(int, beast::string_view, int, beast::error_code&) override {}

    void on_field_impl(http::field field, beast::string_view name, beast::string_view value,
                       beast::error_code&) override {
        if (in_trailer_) return;  // nothing here needs trailers; merging them would be a risk
        switch (field) {
            case http::field::host:
                ++hosts;
                break;
            case http::field::content_length:
                ++content_lengths;
                break;
            case http::field::transfer_encoding:
                if (!equals_ignoring_case(to_std(value), "chunked")) {
                    unknown_coding = to_std(value);
                }
                has_coding = true;
                break;
            case http::field::expect:
                if (equals_ignoring_case(to_std(value), "100-continue")) {
                    continue_expected = true;
                } else {
                    other_expectation = to_std(value);
                }
                break;
            default:
                break;
        }
        request_.headers.push_back({std::string(to_std(name)), std::string(to_std(value))});
    }

    void on_header_impl(beast::error_code&) override {}

    void on_body_init_impl(const boost::optional<std::uint64_t>& length,
                           beast::error_code&) override {
        in_trailer_ = true;  // fields from here on
        const std::size_t first =
            length ? static_cast<std::size_t>(std::min<std::uint64_t>(*length, kFirstBodyBytes))
                   : 0;
        most_ =
            length ? static_cast<std::size_t>(*length) : std::numeric_limits<std::size_t>::max();
        request_.body.reserve(first + kPadding);
    }
    std::size_t on_body_impl(beast::string_view bytes, beast::error_code&) override {
        append(to_std(bytes));
        return bytes.size();
    }
    void on_chunk_header_impl(std::uint64_t size, beast::string_view extension,
                              beast::error_code&) override {
        const bool control = std::ranges::any_of(
            to_std(extension), [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 127; });
        bad_chunk_extension = bad_chunk_extension || control;
        chunk_left_ = size;
    }
    std::size_t on_chunk_body_impl(std::uint64_t, beast::string_view bytes,
                                   beast::error_code&) override {
        append(to_std(bytes));
        chunk_left_ -= bytes.size();
        return bytes.size();
    }
    void on_finish_impl(beast::error_code&) override {}

    // Memory follows what has come, not what was announced: it doubles, up to the known length.
    void append(std::string_view bytes) {
        std::string& body = request_.body;
        const std::size_t needed = body.size() + bytes.size();
        if (needed + kPadding > body.capacity()) {
            const std::size_t roomy = std::min(std::max(2 * body.size(), needed), most_);
            body.reserve(std::max(roomy, needed) + kPadding);
        }
        body.append(bytes);
    }

    HttpRequest& request_;
    std::size_t most_ = 0;
    std::uint64_t chunk_left_ = 0;
    bool in_trailer_ = false;
};

struct HttpParser::Impl {
    explicit Impl(const HttpLimits& l) : limits(l) {}

    std::size_t feed(std::string_view bytes);
    std::size_t feed_head(std::string_view bytes);
    std::size_t feed_body(std::string_view bytes);
    /// Parses as much as it can and returns how much that is.
    std::size_t parse_body(std::string_view bytes);
    void check_pending();

    /// Looks at new lines in `text`; the head's length once it is whole, 0 before.
    std::size_t scan_head(std::string_view text);
    bool check_line(std::string_view text, std::size_t begin, std::size_t end);
    void parse_head(std::string_view head);
    bool check_request_line(std::string_view head);
    bool check_head();
    bool check_target();
    void refuse(int status, std::string message);

    HttpLimits limits;
    State state = State::kHead;
    HttpRequest request;
    HttpRefusal refusal;
    std::optional<BeastParser> parser;
    std::string pending;      ///< bytes that can't be parsed before more come
    std::size_t scanned = 0;  ///< of the head, from its start
    std::size_t line_start = 0;
    std::size_t lines = 0;
    std::size_t breaks = 0;  ///< bytes of line breaks before the request line
    bool started = false;
};

void HttpParser::Impl::refuse(int status, std::string message) {
    state = State::kRefused;
    refusal = {status, std::move(message)};
}

std::size_t HttpParser::Impl::feed(std::string_view bytes) {
    const std::size_t all = bytes.size();
    while (!bytes.empty() && (state == State::kHead || state == State::kBody)) {
        bytes.remove_prefix(state == State::kHead ? feed_head(bytes) : feed_body(bytes));
    }
    return all - bytes.size();
}

std::size_t HttpParser::Impl::feed_head(std::string_view bytes) {
    if (!started) {
        std::size_t skip = 0;
        while (skip < bytes.size() && (bytes[skip] == '\r' || bytes[skip] == '\n')) {
            if (bytes[skip] != (breaks % 2 == 0 ? '\r' : '\n') || breaks == kMaxLeadingBreaks) {
                refuse(400, "A request starts with its method, not with a line break.");
                return bytes.size();
            }
            ++skip;
            ++breaks;
        }
        if (skip == bytes.size()) return skip;
        const char c = bytes[skip];
        if (breaks % 2 != 0 || !is_token_char(c)) {
            refuse(400, c == '\x16' ? "This looks like TLS; here is plain HTTP: use http://."
                                    : "A request starts with its method, such as GET.");
            return bytes.size();
        }
        started = true;
        bytes.remove_prefix(skip);
        return skip + feed_head(bytes);
    }
    const std::size_t before = pending.size();
    std::string_view text = bytes;
    if (before != 0) {
        pending.append(bytes.substr(0, limits.max_header_bytes + 1 - before));
        text = pending;
    }
    const std::size_t length = scan_head(text);
    if (state == State::kRefused) return bytes.size();
    if (length > limits.max_header_bytes ||
        (length == 0 && text.size() > limits.max_header_bytes)) {
        refuse(431, "The request line and headers are longer than " +
                        std::to_string(limits.max_header_bytes) + " bytes.");
        return bytes.size();
    }
    if (length == 0) {
        if (before == 0) pending.assign(bytes);
        return bytes.size();
    }
    parse_head(text.substr(0, length));
    pending.clear();
    return length - before;
}

std::size_t HttpParser::Impl::scan_head(std::string_view text) {
    while (true) {
        const auto lf = text.find('\n', scanned);
        if (lf == std::string_view::npos) {
            scanned = text.size();
            return 0;
        }
        scanned = lf + 1;
        if (lf == 0 || text[lf - 1] != '\r') {
            refuse(400, "A line must end with CR LF, not with LF alone.");
            return 0;
        }
        if (lf - 1 == line_start) return lf + 1;  // the empty line; never the first
        const char first = text[line_start];
        if (first == ' ' || first == '\t') {
            refuse(400, "A header line starts with white space (folded headers are not accepted).");
            return 0;
        }
        if (lines++ > limits.max_headers) {
            refuse(431, "There are more than " + std::to_string(limits.max_headers) + " headers.");
            return 0;
        }
        line_start = lf + 1;
    }
}

void HttpParser::Impl::parse_head(std::string_view head) {
    if (!check_request_line(head)) return;
    request.headers.reserve(std::min<std::size_t>(lines, 32));
    parser.emplace(request, limits);
    beast::error_code ec;
    parser->put(boost::asio::const_buffer(head.data(), head.size()), ec);
    if (ec == http::error::body_limit) {
        refuse(413, "The body is longer than " + std::to_string(limits.max_body_bytes) +
                        " bytes, the most that is accepted here.");
        return;
    }
    if (ec) {
        refusal = refusal_of(ec);
        state = State::kRefused;
        return;
    }
    if (!check_head() || !check_target()) return;
    request.keep_alive = parser->keep_alive();
    state = parser->is_done() ? State::kDone : State::kBody;
}

bool HttpParser::Impl::check_request_line(std::string_view head) {
    const std::string_view line = head.substr(0, head.find('\r'));
    const std::string_view version = line.substr(std::min(line.rfind(' ') + 1, line.size()));
    if (version.size() == 8 && version.starts_with("HTTP/") && is_digit(version[5]) &&
        version[6] == '.' && is_digit(version[7]) && version != "HTTP/1.1" &&
        version != "HTTP/1.0") {
        refuse(505, shown(version) + " is not spoken here; use HTTP/1.1.");
        return false;
    }
    return true;
}

bool HttpParser::Impl::check_head() {
    if (parser->unknown_coding) {
        refuse(501, "Transfer-Encoding '" + shown(*parser->unknown_coding) +
                        "' is not supported; use 'chunked' or Content-Length.");
    } else if (parser->has_coding && parser->version < 11) {
        refuse(400, "Transfer-Encoding needs HTTP/1.1.");
    } else if (parser->content_lengths > 1) {
        refuse(400, "There is more than one Content-Length.");
    } else if (parser->other_expectation && parser->version >= 11) {
        refuse(417, "Expect '" + shown(*parser->other_expectation) +
                        "' can't be met; only '100-continue' can.");
    } else if (parser->hosts > 1) {
        refuse(400, "There is more than one Host header.");
    } else if (parser->hosts == 0 && parser->version >= 11) {
        refuse(400, "The Host header is missing.");
    } else if (parser->hosts == 1 && !is_valid_host(request.header("host"))) {
        refuse(400, "The Host header '" + shown(request.header("host")) +
                        "' is not a name or address with an optional port.");
    }
    return state != State::kRefused;
}

bool HttpParser::Impl::check_target() {
    if (request.method == "CONNECT") {
        refuse(501, "CONNECT is not served: this is not a proxy.");
        return false;
    }
    constexpr std::string_view kScheme = "http://";
    std::string& target = request.target;
    if (target.size() > kScheme.size() &&
        equals_ignoring_case(std::string_view(target).substr(0, kScheme.size()), kScheme)) {
        const auto end = std::min(target.find_first_of("/?#", kScheme.size()), target.size());
        if (!is_valid_host(std::string_view(target).substr(kScheme.size(), end - kScheme.size()))) {
            refuse(400, "The target '" + shown(target) + "' names no valid host.");
            return false;
        }
        target.erase(0, end);
        if (!target.starts_with('/')) target.insert(0, "/");
    }
    const bool whole_server = target == "*" && request.method == "OPTIONS";
    if ((!target.starts_with('/') && !whole_server) || target.contains('#')) {
        refuse(400, "The target '" + shown(target) + "' is not a path such as /v1/models.");
        return false;
    }
    request.path = target.substr(0, target.find('?'));
    return true;
}

std::size_t HttpParser::Impl::feed_body(std::string_view bytes) {
    if (pending.empty()) {
        const std::size_t used = parse_body(bytes);
        if (state == State::kBody && used < bytes.size()) {
            pending.assign(bytes.substr(used));
            check_pending();
            return bytes.size();
        }
        return used;
    }
    // Little at a time: only a chunk's line or trailers wait here, the rest takes the way above.
    const std::size_t before = pending.size();
    const std::string_view more = bytes.substr(0, kMaxChunkLine);
    pending.append(more);
    const std::size_t used = parse_body(pending);
    if (state == State::kBody) {
        pending.erase(0, used);
        check_pending();
        return more.size();
    }
    pending.clear();
    // A request never ends within what waited: that was too short for it.
    STATOR_ASSERT(state == State::kRefused || used >= before);
    return state == State::kRefused ? bytes.size() : used - before;
}

void HttpParser::Impl::check_pending() {
    const std::size_t line_start_at = pending.starts_with("\r\n") ? 2 : 0;  // the chunk before
    const bool line_whole = pending.find("\r\n", line_start_at) != std::string::npos;
    if (!line_whole && pending.size() > kMaxChunkLine) {
        refuse(400,
               "A chunk's first line is longer than " + std::to_string(kMaxChunkLine) + " bytes.");
    } else if (pending.size() > limits.max_header_bytes + kMaxChunkLine) {
        refuse(431, "The trailers are longer than " + std::to_string(limits.max_header_bytes) +
                        " bytes.");
    }
}

std::size_t HttpParser::Impl::parse_body(std::string_view bytes) {
    const bool chunked = parser->chunked();
    std::size_t used = 0;
    while (used < bytes.size()) {
        const std::string_view rest = bytes.substr(used);
        if (chunked && rest.size() < kLeastChunkBytes && !parser->in_chunk()) return used;
        beast::error_code ec;
        used += parser->put(boost::asio::const_buffer(rest.data(), rest.size()), ec);
        if (ec == http::error::need_more) return used;
        if (ec == http::error::body_limit) {
            refuse(413, "The body is longer than " + std::to_string(limits.max_body_bytes) +
                            " bytes, the most that is accepted here.");
            return used;
        }
        if (!ec && parser->bad_chunk_extension) ec = http::error::bad_chunk_extension;
        if (ec) {
            refusal = refusal_of(ec);
            state = State::kRefused;
            return used;
        }
        if (parser->is_done()) {
            state = State::kDone;
            return used;
        }
    }
    return used;
}

HttpParser::HttpParser(const HttpLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
HttpParser::~HttpParser() = default;

std::size_t HttpParser::feed(std::string_view bytes) { return impl_->feed(bytes); }
HttpParser::State HttpParser::state() const { return impl_->state; }
bool HttpParser::started() const { return impl_->started; }
HttpRequest& HttpParser::request() { return impl_->request; }
bool HttpParser::http_1_0() const { return impl_->parser && impl_->parser->version < 11; }
const HttpRefusal& HttpParser::refusal() const { return impl_->refusal; }

std::optional<std::uint64_t> HttpParser::content_length() const {
    const auto length = impl_->parser->content_length();
    return length ? std::optional<std::uint64_t>(*length) : std::nullopt;
}

bool HttpParser::expects_continue() const {
    return impl_->parser->continue_expected && impl_->parser->version >= 11;
}

void HttpParser::reset() {
    impl_->state = State::kHead;
    impl_->request = {};
    impl_->refusal = {};
    impl_->parser.reset();
    impl_->pending.clear();
    impl_->scanned = impl_->line_start = impl_->lines = impl_->breaks = 0;
    impl_->started = false;
}

}  // namespace stator::net
