#include "stator/net/http_parser.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>
#include <string_view>
#include <vector>

#include "stator/net/http_names.h"

namespace stator::net {
namespace {

using State = HttpParser::State;

HttpLimits small_limits() {
    HttpLimits limits;
    limits.max_header_bytes = 2048;
    limits.max_headers = 10;
    limits.max_body_bytes = 5000;
    return limits;
}

/// Everything that comes out of a stream of bytes, as text: what may not depend on how it is cut.
std::string outcome(const std::vector<std::string>& pieces) {
    HttpParser parser(small_limits());
    std::string out;
    for (std::string_view bytes : pieces) {
        while (!bytes.empty()) {
            bytes.remove_prefix(parser.feed(bytes));
            if (parser.state() == State::kRefused) {
                return out + "refused " + std::to_string(parser.refusal().status) + " " +
                       parser.refusal().message;
            }
            if (parser.state() != State::kDone) continue;
            const HttpRequest& request = parser.request();
            out += request.method + "|" + request.target + "|" + request.path + "|" +
                   (request.keep_alive ? "keep|" : "close|");
            for (const auto& header : request.headers) {
                out += header.name + "=" + header.value + "|";
            }
            out += request.body + "\n";
            parser.reset();
        }
    }
    return out + (parser.state() == State::kBody ? "in body"
                  : parser.started()             ? "in head"
                                                 : "idle");
}

std::string outcome(const std::string& bytes) { return outcome(std::vector<std::string>{bytes}); }

int refused_status(const std::string& bytes) {
    HttpParser parser(small_limits());
    parser.feed(bytes);
    return parser.state() == State::kRefused ? parser.refusal().status : 0;
}

const std::string kChunkedHead = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

struct Refusal {
    const char* why;
    std::string bytes;
    int status;
};

std::vector<Refusal> refusals() {
    const std::string host = "Host: a\r\n";
    const std::string get = "GET / HTTP/1.1\r\n" + host;
    const std::string post = "POST / HTTP/1.1\r\n" + host;
    std::string many = get;
    for (int i = 0; i < 10; ++i) many += "h" + std::to_string(i) + ": v\r\n";
    return {
        {"length beside chunks", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
         400},
        {"chunks beside length", post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
         400},
        {"two lengths", post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
        {"two equal lengths", post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
        {"list of lengths", post + "Content-Length: 5, 6\r\n\r\n", 400},
        {"signed length", post + "Content-Length: +5\r\n\r\n", 400},
        {"negative length", post + "Content-Length: -1\r\n\r\n", 400},
        {"hex length", post + "Content-Length: 0x5\r\n\r\n", 400},
        {"length with text", post + "Content-Length: 5 bytes\r\n\r\n", 400},
        {"empty length", post + "Content-Length:\r\n\r\n", 400},
        {"overflowing length", post + "Content-Length: 18446744073709551616\r\n\r\n", 400},
        {"length over the limit", post + "Content-Length: 5001\r\n\r\n", 413},
        {"huge length", post + "Content-Length: 18446744073709551615\r\n\r\n", 413},
        {"gzip coding", post + "Transfer-Encoding: gzip\r\n\r\n", 501},
        {"gzip, chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
        {"chunked, identity", post + "Transfer-Encoding: chunked, identity\r\n\r\n", 501},
        {"xchunked", post + "Transfer-Encoding: xchunked\r\n\r\n", 501},
        {"vertical tab in coding", post + "Transfer-Encoding: \vchunked\r\n\r\n", 400},
        {"two codings", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
         400},
        {"chunks on 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"space before colon", post + "Content-Length : 5\r\n\r\n", 400},
        {"empty name", get + ": x\r\n\r\n", 400},
        {"name with space", get + "a b: x\r\n\r\n", 400},
        {"name with parenthesis", get + "a(b: x\r\n\r\n", 400},
        {"no colon", get + "abc\r\n\r\n", 400},
        {"folded header", get + "a: b\r\n c\r\n\r\n", 400},
        {"folded with tab", get + "a: b\r\n\tc\r\n\r\n", 400},
        {"space before first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
        {"bare LF after header", "GET / HTTP/1.1\r\nHost: a\n\r\n", 400},
        {"bare LF after request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
        {"bare LF as end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
        {"bare CR in value", get + "a: b\rc\r\n\r\n", 400},
        {"NUL in value", get + std::string("a: b\0c\r\n\r\n", 10), 400},
        {"NUL in target", std::string("GET /\0 HTTP/1.1\r\n", 17) + host + "\r\n", 400},
        {"no host", "GET / HTTP/1.1\r\n\r\n", 400},
        {"two hosts", get + "Host: b\r\n\r\n", 400},
        {"two equal hosts", get + "Host: a\r\n\r\n", 400},
        {"empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
        {"host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
        {"host with user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
        {"host with space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
        {"host list", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400},
        {"host with bad port", "GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400},
        {"bad host on 1.0", "GET / HTTP/1.0\r\nHost: a?b\r\n\r\n", 400},
        {"HTTP/2.0", "GET / HTTP/2.0\r\n" + host + "\r\n", 505},
        {"HTTP/1.2", "GET / HTTP/1.2\r\n" + host + "\r\n", 505},
        {"HTTP/0.9", "GET / HTTP/0.9\r\n" + host + "\r\n", 505},
        {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
        {"lower-case http", "GET / http/1.1\r\n" + host + "\r\n", 400},
        {"no version", "GET /\r\n" + host + "\r\n", 400},
        {"no target", "GET HTTP/1.1\r\n" + host + "\r\n", 400},
        {"two spaces", "GET  / HTTP/1.1\r\n" + host + "\r\n", 400},
        {"space in target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", 400},
        {"space behind version", "GET / HTTP/1.1 \r\n" + host + "\r\n", 400},
        {"method not a token", "GE{T / HTTP/1.1\r\n" + host + "\r\n", 400},
        {"CONNECT", "CONNECT a:443 HTTP/1.1\r\n" + host + "\r\n", 501},
        {"authority target", "GET a:80 HTTP/1.1\r\n" + host + "\r\n", 400},
        {"relative target", "GET v1/models HTTP/1.1\r\n" + host + "\r\n", 400},
        {"asterisk with GET", "GET * HTTP/1.1\r\n" + host + "\r\n", 400},
        {"https target", "GET https://a/ HTTP/1.1\r\n" + host + "\r\n", 400},
        {"absolute with user", "GET http://u@a/ HTTP/1.1\r\n" + host + "\r\n", 400},
        {"absolute without host", "GET http:///x HTTP/1.1\r\n" + host + "\r\n", 400},
        {"fragment", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", 400},
        {"other expectation", post + "Expect: 200-maybe\r\nContent-Length: 1\r\n\r\n", 417},
        {"too many headers", many + "\r\n", 431},
        {"long header", get + "a: " + std::string(2100, 'x') + "\r\n\r\n", 431},
        {"endless header", get + "a: " + std::string(2100, 'x'), 431},
        {"endless target", "GET /" + std::string(2100, 'x'), 431},
        {"long target, then a bare LF", "GET /" + std::string(2100, 'x') + "\n", 431},
        {"TLS", "\x16\x03\x01\x02\x01\x01", 400},
        {"line breaks only", "\r\n\r\n\r\n\r\n", 400},
        {"lone LF first", "\nGET / HTTP/1.1\r\n", 400},
        {"bad chunk length", kChunkedHead + "xyz\r\n", 400},
        {"signed chunk length", kChunkedHead + "+5\r\nhello\r\n", 400},
        {"0x chunk length", kChunkedHead + "0x5\r\nhello\r\n", 400},
        {"space behind chunk length", kChunkedHead + "5 \r\nhello\r\n", 400},
        {"long chunk length", kChunkedHead + "00000000000000005\r\n", 400},
        {"space before chunk length", kChunkedHead + " 5\r\nhello\r\n", 400},
        {"overflowing chunk length", kChunkedHead + "fffffffffffffffff\r\n", 400},
        {"chunk over the limit", kChunkedHead + "1389\r\n", 413},
        {"chunk without its end", kChunkedHead + "5\r\nhello5\r\n", 400},
        {"LF behind chunk length", kChunkedHead + "5\nhello\r\n0\r\n\r\n", 400},
        {"LF behind chunk", kChunkedHead + "5\r\nhello\n0\r\n\r\n", 400},
        {"endless chunk line", kChunkedHead + "5;a=" + std::string(2100, 'x'), 431},
        {"quote in chunk extension", kChunkedHead + "5;a=\"\r\nhello\r\n0\r\n\r\n", 400},
        {"LF in chunk extension", kChunkedHead + "5;a=\n\r\nhello\r\n0\r\n\r\n", 400},
        {"endless trailers",
         kChunkedHead + "0\r\n" +
             [] {
                 std::string lines;
                 for (int i = 0; i < 400; ++i) lines += "trailer: " + std::string(20, 'x') + "\r\n";
                 return lines;
             }(),
         431},
        {"bad trailer", kChunkedHead + "0\r\na b: c\r\n\r\n", 400},
    };
}

TEST(HttpParser, RefusesWithTheRightStatus) {
    for (const Refusal& refusal : refusals()) {
        EXPECT_EQ(refused_status(refusal.bytes), refusal.status) << refusal.why;
        HttpParser parser(small_limits());
        parser.feed(refusal.bytes);
        EXPECT_FALSE(parser.refusal().message.empty()) << refusal.why;
        for (const char c : parser.refusal().message) {
            EXPECT_TRUE(c >= ' ' && c < 127) << refusal.why;
        }
    }
}

std::vector<std::string> accepted() {
    const std::string get = "GET /x?y=z HTTP/1.1\r\nHost: a\r\n\r\n";
    return {
        get,
        get + get + get,
        "\r\n" + get + "\r\n\r\n" + get,
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: [::1]:80\r\nConnection: foo, Close\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://b.example:8080/p?q HTTP/1.1\r\nHost: b.example:8080\r\n\r\n",
        "GET HTTP://b HTTP/1.1\r\nHost: b\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nX: \t y \t\r\n\r\nhello world" + get,
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" + get,
        kChunkedHead + "0\r\n\r\n" + get,
        kChunkedHead + "5\r\nhello\r\n6;a=b;c\r\n world\r\n0\r\n\r\n" + get,
        kChunkedHead + "005\r\nhello\r\n000\r\nA-Trailer: b\r\nB: c\r\n\r\n" + get,
        kChunkedHead + "1f4\r\n" + std::string(500, 'x') + "\r\n1\r\n\r\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + std::string(5000, 'b') + get,
    };
}

TEST(HttpParser, AcceptsWhatIsRight) {
    for (const std::string& bytes : accepted()) {
        const std::string out = outcome(bytes);
        EXPECT_TRUE(out.ends_with("\nidle")) << bytes << "\n-> " << out;
    }
    EXPECT_EQ(outcome(accepted()[0]), "GET|/x?y=z|/x|keep|Host=a|\nidle");
    EXPECT_EQ(outcome(accepted()[5]), "GET|/|/|close|host=[::1]:80|Connection=foo, Close|\nidle");
    EXPECT_EQ(outcome(accepted()[7]), "GET|/p?q|/p|keep|Host=b.example:8080|\nidle");
    EXPECT_EQ(outcome(accepted()[8]), "GET|/|/|keep|Host=b|\nidle");
    EXPECT_EQ(outcome(kChunkedHead +
                      "5\r\nhello\r\n6\r\n world\r\n0\r\nHost: evil\r\nContent-Length: 3\r\n\r\n"),
              "POST|/|/|keep|Host=a|Transfer-Encoding=chunked|hello world\nidle");
}

TEST(HttpParser, OneByteAtATimeChangesNothing) {
    std::vector<std::string> all = accepted();
    for (Refusal& refusal : refusals()) all.push_back(std::move(refusal.bytes));
    for (const std::string& bytes : all) {
        std::vector<std::string> pieces;
        for (const char c : bytes) pieces.emplace_back(1, c);
        EXPECT_EQ(outcome(pieces), outcome(bytes)) << bytes;
    }
}

TEST(HttpParser, CuttingTheBytesChangesNothing) {
    std::vector<std::string> all = accepted();
    for (Refusal& refusal : refusals()) all.push_back(std::move(refusal.bytes));
    EXPECT_TRUE(rc::check([&] {
        std::string bytes = *rc::gen::elementOf(all);
        if (*rc::gen::arbitrary<bool>()) bytes += *rc::gen::elementOf(all);
        // Half of the time with a byte changed: the odd inputs that nobody thinks of.
        if (*rc::gen::arbitrary<bool>()) {
            bytes[*rc::gen::inRange<std::size_t>(0, bytes.size())] = *rc::gen::arbitrary<char>();
        }
        std::vector<std::string> pieces;
        for (std::size_t at = 0; at < bytes.size();) {
            const auto n = *rc::gen::inRange<std::size_t>(1, 40);
            pieces.push_back(bytes.substr(at, n));
            at += n;
        }
        RC_ASSERT(outcome(pieces) == outcome(bytes));
    }));
}

TEST(HttpParser, ChunksCarryAnyBody) {
    EXPECT_TRUE(rc::check([] {
        const auto body = *rc::gen::container<std::string>(rc::gen::arbitrary<char>());
        std::string bytes = kChunkedHead;
        for (std::size_t at = 0; at < body.size();) {
            const auto n = std::min(*rc::gen::inRange<std::size_t>(1, 30), body.size() - at);
            char line[16];
            std::snprintf(line, sizeof line, "%zX\r\n", n);
            bytes += line + body.substr(at, n) + "\r\n";
            at += n;
        }
        bytes += "0\r\n\r\n";
        HttpParser parser(small_limits());
        RC_ASSERT(parser.feed(bytes + "GET") == bytes.size());
        RC_ASSERT(parser.state() == State::kDone);
        RC_ASSERT(parser.request().body == body);
    }));
}

TEST(HttpParser, BodyHasRoomBehindItsEnd) {
    for (const std::size_t n : {1U, 100U, 4096U, 5000U}) {
        HttpParser parser(small_limits());
        const std::string head =
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(n) + "\r\n\r\n";
        parser.feed(head);
        for (std::size_t i = 0; i < n; ++i) parser.feed("x");
        ASSERT_EQ(parser.state(), State::kDone);
        EXPECT_GE(parser.request().body.capacity(), n + 64);
    }
}

TEST(HttpParser, AnnouncedLengthTakesNoMemoryBeforeItsBytes) {
    HttpParser parser(HttpLimits{});
    parser.feed("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\nx");
    ASSERT_EQ(parser.state(), State::kBody);
    EXPECT_LT(parser.request().body.capacity(), 100'000U);
    EXPECT_EQ(parser.content_length(), 30'000'000U);
}

TEST(HttpParser, TellsThatTheClientWaits) {
    HttpParser parser(small_limits());
    parser.feed("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    ASSERT_EQ(parser.state(), State::kBody);
    EXPECT_TRUE(parser.expects_continue());
    parser.reset();
    parser.feed("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    ASSERT_EQ(parser.state(), State::kBody);
    EXPECT_FALSE(parser.expects_continue()) << "HTTP/1.0 knows no interim answers";
}

TEST(HttpHost, IsNameOrAddressWithPort) {
    for (const char* good : {"a", "a.b-c_d", "127.0.0.1", "127.0.0.1:80", "a:", "[::1]",
                             "[fe80::1]:65535", "xn--bcher-kva.example:8080"}) {
        EXPECT_TRUE(is_valid_host(good)) << good;
    }
    for (const char* bad :
         {"",     ":80", "a:65536", "a:-1",    "a:8 0",  "a/b",   "a?b", "a#b",  "u@h", "a\tb",
          "[::1", "[]",  "[::1]x",  "[::1]:x", "[g::1]", "a:1:2", "a,b", "a\\b", "<a>", "\"a\""}) {
        EXPECT_FALSE(is_valid_host(bad)) << bad;
    }
}

}  // namespace
}  // namespace stator::net
