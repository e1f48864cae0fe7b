#include "stator/net/http_parser.h"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <limits>
#include <utility>

#include "stator/net/http_chunks.h"
#include "stator/net/http_names.h"

namespace stator::net {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;

constexpr std::size_t kPadding = 64;                // what a vectorised reader may overread
constexpr std::size_t kFirstBodyBytes = 64 * 1024;  // reserved before any body byte came
constexpr std::size_t kMaxLeadingBreaks = 4;        // bytes: two CR LF

bool is_digit(char c) { return c >= '0' && c <= '9'; }

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
    if (ec == E::header_limit) return {431, "The headers are too long."};
    return {400, "The request is malformed: " + ec.message() + "."};
}

/// Beast's parser with our hooks: headers go straight into the request. For heads alone (skip());
/// bodies are framed here, because Beast's chunks come out differently for different cuts.
class HeadParser final : public http::basic_parser<true> {
  public:
    explicit HeadParser(HttpRequest& request) : request_(request) {
        header_limit(std::numeric_limits<std::uint32_t>::max());  // the head was measured before
        body_limit(boost::none);
        skip(true);
    }

    int version = 0;
    unsigned hosts = 0;
    unsigned content_lengths = 0;
    bool has_coding = false;
    bool continue_expected = false;
    std::optional<std::string> unknown_coding;
    std::optional<std::string> other_expectation;

  private:
    void on_request_impl(http::verb, beast::string_view method, beast::string_view target, int v,
                         beast::error_code&) override {
        request_.method = to_std(method);
        request_.target = to_std(target);
        version = v;
    }
    void on_field_impl(http::field field, beast::string_view name, beast::string_view value,
                       beast::error_code&) override {
        switch (field) {
            case http::field::host:
                ++hosts;
                break;
            case http::field::content_length:
                ++content_lengths;
                break;
            case http::field::transfer_encoding:
                has_coding = true;
                if (!same_name(to_std(value), "chunked")) unknown_coding = to_std(value);
                break;
            case http::field::expect:
                if (same_name(to_std(value), "100-continue")) {
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

    void on_response_impl(int, beast::string_view, int, beast::error_code&) override {}
    void on_header_impl(beast::error_code&) override {}
    void on_body_init_impl(const boost::optional<std::uint64_t>&, beast::error_code&) override {}
    std::size_t on_body_impl(beast::string_view, beast::error_code&) override { return 0; }
    void on_chunk_header_impl(std::uint64_t, beast::string_view, beast::error_code&) override {}
    std::size_t on_chunk_body_impl(std::uint64_t, beast::string_view, beast::error_code&) override {
        return 0;
    }
    void on_finish_impl(beast::error_code&) override {}

    HttpRequest& request_;
};

}  // namespace

struct HttpParser::Impl {
    explicit Impl(const HttpLimits& l) : limits(l) {}

    std::size_t feed(std::string_view bytes);
    std::size_t feed_head(std::string_view bytes);
    std::size_t feed_body(std::string_view bytes);
    std::size_t feed_chunks(std::string_view bytes);
    void append_body(std::string_view bytes, std::size_t most);

    /// Looks at new lines in `text`; the head's length once it is whole, 0 before.
    std::size_t scan_head(std::string_view text);
    void parse_head(std::string_view head);
    bool check_request_line(std::string_view head);
    bool check_head(const HeadParser& head);
    bool check_target();
    void begin_body();
    void refuse(int status, std::string message);
    void refuse_long_body();

    HttpLimits limits;
    State state = State::kHead;
    HttpRequest request;
    HttpRefusal refusal;

    // Of the head on its way.
    std::string pending;  ///< what has come of it
    std::size_t scanned = 0;
    std::size_t line_start = 0;
    std::size_t lines = 0;
    std::size_t breaks = 0;  ///< bytes of line breaks before the request line
    bool started = false;

    // What it said.
    bool http_1_0 = false;
    bool continue_expected = false;
    std::optional<std::uint64_t> content_length;
    std::optional<ChunkDecoder> chunks;
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
        if (breaks % 2 != 0 || !is_token({&c, 1})) {
            refuse(400, c == '\x16' ? "This looks like TLS; here is plain HTTP: use http://."
                                    : "A request starts with its method, such as GET.");
            return bytes.size();
        }
        started = true;
        bytes.remove_prefix(skip);
        return skip + feed_head(bytes);
    }
    const std::size_t before = pending.size();
    // Nothing behind the limit is looked at, however much came at once.
    std::string_view text = bytes.substr(0, limits.max_header_bytes + 1);
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
    HeadParser parser(request);
    beast::error_code ec;
    parser.put(boost::asio::const_buffer(head.data(), head.size()), ec);
    if (ec) {
        refusal = refusal_of(ec);
        state = State::kRefused;
        return;
    }
    if (!check_head(parser) || !check_target()) return;
    request.keep_alive = parser.keep_alive();
    http_1_0 = parser.version < 11;
    continue_expected = parser.continue_expected && !http_1_0;
    if (const auto length = parser.content_length()) content_length = *length;
    if (parser.chunked()) chunks.emplace(limits.max_body_bytes, limits.max_header_bytes);
    begin_body();
}

void HttpParser::Impl::begin_body() {
    const std::uint64_t length = content_length.value_or(0);
    if (length > limits.max_body_bytes) {
        refuse_long_body();
    } else if (length == 0 && !chunks) {
        state = State::kDone;
    } else {
        state = State::kBody;
        request.body.reserve(std::min<std::size_t>(length, kFirstBodyBytes) + kPadding);
    }
}

void HttpParser::Impl::refuse_long_body() {
    refuse(413, "The body is longer than " + std::to_string(limits.max_body_bytes) +
                    " bytes, the most that is accepted here.");
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

bool HttpParser::Impl::check_head(const HeadParser& head) {
    if (head.unknown_coding) {
        refuse(501, "Transfer-Encoding '" + shown(*head.unknown_coding) +
                        "' is not supported; use 'chunked' or Content-Length.");
    } else if (head.has_coding && head.version < 11) {
        refuse(400, "Transfer-Encoding needs HTTP/1.1.");
    } else if (head.content_lengths > 1) {
        refuse(400, "There is more than one Content-Length.");
    } else if (head.other_expectation && head.version >= 11) {
        refuse(417, "Expect '" + shown(*head.other_expectation) +
                        "' can't be met; only '100-continue' can.");
    } else if (head.hosts > 1) {
        refuse(400, "There is more than one Host header.");
    } else if (head.hosts == 0 && head.version >= 11) {
        refuse(400, "The Host header is missing.");
    } else if (head.hosts == 1 && !is_valid_host(request.header("host"))) {
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
        same_name(std::string_view(target).substr(0, kScheme.size()), kScheme)) {
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
    if (chunks) return feed_chunks(bytes);
    const std::size_t left = static_cast<std::size_t>(*content_length) - request.body.size();
    bytes = bytes.substr(0, left);
    append_body(bytes, static_cast<std::size_t>(*content_length));
    if (bytes.size() == left) state = State::kDone;
    return bytes.size();
}

std::size_t HttpParser::Impl::feed_chunks(std::string_view bytes) {
    const std::size_t all = bytes.size();
    std::string_view data;
    auto outcome = ChunkDecoder::Outcome::kMore;
    while (!bytes.empty() && outcome == ChunkDecoder::Outcome::kMore) {
        outcome = chunks->next(bytes, data);
        append_body(data, limits.max_body_bytes);
    }
    switch (outcome) {
        case ChunkDecoder::Outcome::kMore:
            break;
        case ChunkDecoder::Outcome::kEnd:
            state = State::kDone;
            break;
        case ChunkDecoder::Outcome::kMalformed:
            refuse(400, chunks->reason());
            break;
        case ChunkDecoder::Outcome::kTooLong:
            refuse_long_body();
            break;
        case ChunkDecoder::Outcome::kTooMuchAround:
            refuse(431, "Chunk extensions and trailers are longer than " +
                            std::to_string(limits.max_header_bytes) + " bytes.");
            break;
    }
    return all - bytes.size();
}

/// Memory follows what has come, not what was announced: it doubles, up to `most`.
void HttpParser::Impl::append_body(std::string_view bytes, std::size_t most) {
    std::string& body = request.body;
    const std::size_t needed = body.size() + bytes.size();
    if (needed + kPadding > body.capacity()) {
        body.reserve(std::max(needed, std::min(2 * needed, most)) + kPadding);
    }
    body.append(bytes);
}

HttpParser::HttpParser(const HttpLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
HttpParser::~HttpParser() = default;

std::size_t HttpParser::feed(std::string_view bytes) { return impl_->feed(bytes); }
HttpParser::State HttpParser::state() const { return impl_->state; }
bool HttpParser::started() const { return impl_->started; }
HttpRequest& HttpParser::request() { return impl_->request; }
bool HttpParser::http_1_0() const { return impl_->http_1_0; }
const HttpRefusal& HttpParser::refusal() const { return impl_->refusal; }
bool HttpParser::expects_continue() const { return impl_->continue_expected; }
std::optional<std::uint64_t> HttpParser::content_length() const { return impl_->content_length; }

void HttpParser::reset() {
    Impl& impl = *impl_;
    impl.state = State::kHead;
    impl.request = {};
    impl.pending.clear();
    impl.scanned = impl.line_start = impl.lines = impl.breaks = 0;
    impl.started = impl.http_1_0 = impl.continue_expected = false;
    impl.content_length.reset();
    impl.chunks.reset();
}

}  // namespace stator::net
