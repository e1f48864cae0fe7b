#include "stator/net/http_response.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>

#include <string>
#include <vector>

namespace stator::net {
namespace {

using State = HttpResponseParser::State;
using testing::HasSubstr;

constexpr std::size_t kMaxHead = 1'000;

struct Read {
    State state = State::kHead;
    std::string body;
    std::string rest;
    bool operator==(const Read&) const = default;
};

/// Feeds the pieces in turn; what a piece has left when the answer is whole is the rest.
Read read_pieces(HttpResponseParser& parser, const std::vector<std::string>& pieces,
                 bool to_head = false) {
    parser.begin(to_head);
    Read out;
    for (const std::string& piece : pieces) {
        std::string_view bytes = piece;
        while (!bytes.empty() && (out.state == State::kHead || out.state == State::kBody)) {
            std::string_view body;
            out.state = parser.next(bytes, body);
            out.body += body;
        }
        out.rest += bytes;
    }
    return out;
}

Read read_whole(const std::string& text, bool to_head = false) {
    HttpResponseParser parser(kMaxHead);
    return read_pieces(parser, {text}, to_head);
}

TEST(HttpResponseParser, ReadsHeadAndBodyOfALength) {
    HttpResponseParser parser(kMaxHead);
    const auto read =
        read_pieces(parser, {"HTTP/1.1 404 Not Found\r\nContent-Type:  text/plain \r\n"
                             "content-length: 5\r\nX-Empty:\r\n\r\nhelloHTTP"});
    EXPECT_EQ(read, (Read{State::kDone, "hello", "HTTP"}));
    EXPECT_EQ(parser.head().status, 404);
    EXPECT_EQ(parser.head().header("CONTENT-TYPE"), "text/plain");
    EXPECT_EQ(parser.head().header("x-empty"), "");
    EXPECT_TRUE(parser.keep_alive());
}

TEST(HttpResponseParser, ReadsChunks) {
    EXPECT_EQ(read_whole("HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n"
                         "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\nrest"),
              (Read{State::kDone, "abcde", "rest"}));
}

TEST(HttpResponseParser, AnyCutGivesTheSame) {
    const std::string texts[] = {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n "
        "world\r\n0\r\n\r\nX",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello worldX",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nBad Header: 1\r\n\r\nhe",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
    };
    EXPECT_TRUE(rc::check([&] {
        const std::string text =
            *rc::gen::elementOf(std::vector<std::string>(std::begin(texts), std::end(texts)));
        std::vector<std::string> pieces;
        for (std::size_t at = 0; at < text.size();) {
            const auto n = *rc::gen::inRange<std::size_t>(1, 12);
            pieces.push_back(text.substr(at, n));
            at += n;
        }
        HttpResponseParser one(kMaxHead);
        HttpResponseParser many(kMaxHead);
        const Read whole = read_pieces(one, {text});
        const Read cut = read_pieces(many, pieces);
        RC_ASSERT(cut.state == whole.state);
        RC_ASSERT(cut.body == whole.body);
        if (whole.state == State::kDone) RC_ASSERT(cut.rest == whole.rest);
    }));
}

TEST(HttpResponseParser, TheEndOfTheConnectionEndsABodyWithoutLength) {
    HttpResponseParser parser(kMaxHead);
    EXPECT_EQ(read_pieces(parser, {"HTTP/1.1 200 OK\r\n\r\nall ", "of it"}),
              (Read{State::kBody, "all of it", ""}));
    EXPECT_EQ(parser.end(), State::kDone);
    EXPECT_FALSE(parser.keep_alive());
    for (const char* cut :
         {"", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "HTTP/1.1 200 OK\r\nContent-Le",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"}) {
        static_cast<void>(read_pieces(parser, {cut}));
        EXPECT_EQ(parser.end(), State::kBad) << cut;
    }
}

TEST(HttpResponseParser, SomeAnswersHaveNoBody) {
    const std::string length = "\r\nContent-Length: 5\r\n\r\nnext";
    EXPECT_EQ(read_whole("HTTP/1.1 200 OK" + length, true), (Read{State::kDone, "", "next"}));
    EXPECT_EQ(read_whole("HTTP/1.1 204 No" + length), (Read{State::kDone, "", "next"}));
    EXPECT_EQ(read_whole("HTTP/1.1 304 No" + length), (Read{State::kDone, "", "next"}));
    EXPECT_EQ(read_whole("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nnext"),
              (Read{State::kDone, "", "next"}));
}

TEST(HttpResponseParser, KnowsWhichConnectionsStay) {
    HttpResponseParser parser(kMaxHead);
    const auto stays = [&](const std::string& line, const std::string& header) {
        const auto read =
            read_pieces(parser, {line + "\r\nContent-Length: 0\r\n" + header + "\r\n"});
        EXPECT_EQ(read.state, State::kDone) << parser.reason();
        return parser.keep_alive();
    };
    EXPECT_TRUE(stays("HTTP/1.1 200 OK", ""));
    EXPECT_FALSE(stays("HTTP/1.1 200 OK", "Connection: x, Close\r\n"));
    EXPECT_FALSE(stays("HTTP/1.0 200 OK", ""));
    EXPECT_TRUE(stays("HTTP/1.0 200 OK", "Connection: keep-alive\r\n"));
}

TEST(HttpResponseParser, RefusesWhatIsNotHttp) {
    const std::string ok = "HTTP/1.1 200 OK\r\n";
    for (const std::string& text : std::vector<std::string>{
             "SSH-2.0-OpenSSH_9.2\r\n",
             "\x16\x03\x01",
             "HTTP/2 200\r\n\r\n",
             "HTTP/1.1 20x OK\r\n\r\n",
             "HTTP/1.1 099 OK\r\n\r\n",
             "HTTP/1.1 2000\r\n\r\n",
             "HTTP/1.1 101 Switching Protocols\r\n\r\n",
             ok + " folded: 1\r\n\r\n",
             ok + "no colon\r\n\r\n",
             ok + "Bare: line\nfeed\r\n\r\n",
             ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
             ok + "Content-Length: -1\r\n\r\n",
             ok + "Content-Length: 5, 5\r\n\r\n",
             ok + "Content-Length: 9999999999999999999\r\n\r\n",
             ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
             ok + "Transfer-Encoding: gzip, chunked\r\n\r\n",
             ok + "Transfer-Encoding: chunked\r\n\r\nno length\r\n",
             "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
         }) {
        EXPECT_EQ(read_whole(text).state, State::kBad) << text;
    }
}

TEST(HttpResponseParser, HeadsAreBounded) {
    const std::string line = "X: " + std::string(500, 'x') + "\r\n";
    EXPECT_EQ(read_whole("HTTP/1.1 200 OK\r\n" + line + line + line).state, State::kBad);
    std::string interim;
    for (int i = 0; i < 100; ++i) interim += "HTTP/1.1 100 Continue\r\n\r\n";
    EXPECT_EQ(read_whole(interim).state, State::kBad);
}

}  // namespace
}  // namespace stator::net
