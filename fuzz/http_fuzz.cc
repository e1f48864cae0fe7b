// Bytes from a socket through the request parser. The first byte says how they are cut; whatever
// the cut, the same requests must come out as from the whole, within the limits. Chunked bodies
// that we accept must decode to what Beast makes of them: where we are stricter, we refuse.
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/check.h"
#include "stator/net/http_names.h"
#include "stator/net/http_parser.h"

namespace {

namespace http = boost::beast::http;
using stator::net::HttpLimits;
using stator::net::HttpParser;
using stator::net::HttpRequest;
using State = HttpParser::State;

HttpLimits limits() {
    HttpLimits out;
    out.max_header_bytes = 1024;
    out.max_headers = 12;
    out.max_body_bytes = 4096;
    return out;
}

void check_request(HttpParser& parser) {
    const HttpRequest& request = parser.request();
    STATOR_CHECK(request.body.size() <= limits().max_body_bytes, "the body is over its limit");
    STATOR_CHECK(request.headers.size() <= limits().max_headers, "too many headers");
    STATOR_CHECK(stator::net::is_token(request.method), "the method is no token");
    STATOR_CHECK(request.target.starts_with('/') || request.target == "*", "the target is no path");
    STATOR_CHECK(request.target.starts_with(request.path), "the path is not the target's");
    STATOR_CHECK(request.body.empty() || request.body.capacity() >= request.body.size() + 64,
                 "the body has no room behind it");
    for (const auto& header : request.headers) {
        STATOR_CHECK(stator::net::is_token(header.name), "a header's name is no token");
        for (const char c : header.value) {
            STATOR_CHECK(c < 0 || c >= ' ' || c == '\t', "a header's value can split an answer");
        }
    }
}

/// What one request's bytes are to Beast alone.
void check_against_beast(std::string_view bytes, const HttpRequest& ours) {
    while (bytes.starts_with("\r\n")) bytes.remove_prefix(2);
    http::request_parser<http::string_body> parser;
    parser.header_limit(64 * 1024);
    parser.eager(true);
    boost::beast::error_code ec;
    const std::size_t used = parser.put(boost::asio::const_buffer(bytes.data(), bytes.size()), ec);
    // We drop extensions and trailers without reading sense into them; Beast does, and may object.
    STATOR_CHECK(!ec || ec == http::error::bad_chunk_extension || ec == http::error::bad_value ||
                     ec == http::error::bad_transfer_encoding ||
                     ec == http::error::bad_content_length,
                 "we take what Beast refuses");
    if (ec) return;
    STATOR_CHECK(parser.is_done() && used == bytes.size(), "Beast sees another end");
    STATOR_CHECK(parser.get().body() == ours.body, "Beast sees another body");
}

/// All that comes out, as text.
std::string outcome(std::string_view bytes, std::size_t cut, bool against_beast) {
    HttpParser parser(limits());
    std::string out;
    std::string_view request_start = bytes;
    while (!bytes.empty()) {
        const std::string_view piece = bytes.substr(0, cut);
        const std::size_t used = parser.feed(piece);
        STATOR_CHECK(used <= piece.size(), "more used than given");
        bytes.remove_prefix(used);
        if (parser.state() == State::kRefused) {
            STATOR_CHECK(parser.refusal().status >= 400 && !parser.refusal().message.empty(),
                         "a refusal says why");
            return out + "refused: " + parser.refusal().message;
        }
        if (parser.state() != State::kDone) {
            STATOR_CHECK(used == piece.size(), "bytes are left though the request goes on");
            continue;
        }
        check_request(parser);
        const HttpRequest& request = parser.request();
        if (against_beast) {
            check_against_beast(request_start.substr(0, request_start.size() - bytes.size()),
                                request);
        }
        out += request.method + " " + request.target + " " + request.body + "\n";
        for (const auto& header : request.headers) out += header.name + ":" + header.value + "\n";
        parser.reset();
        request_start = bytes;
    }
    return out + (parser.state() == State::kBody ? "in body" : "in head");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
    const std::string whole = outcome(bytes, std::string_view::npos, true);
    const std::string cut = outcome(bytes, 1 + data[0] % 64U, false);
    STATOR_CHECK(whole == cut, "the cut changes the outcome");
    return 0;
}
