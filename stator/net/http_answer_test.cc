#include "stator/net/http_answer.h"

#include <gtest/gtest.h>

namespace stator::net {
namespace {

TEST(HttpDate, IsTheRfcsExample) {
    EXPECT_EQ(http_date(784'111'777), "Sun, 06 Nov 1994 08:49:37 GMT");
    EXPECT_EQ(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    EXPECT_EQ(http_date(1'709'164'799), "Wed, 28 Feb 2024 23:59:59 GMT");
    EXPECT_EQ(http_date(1'709'164'800), "Thu, 29 Feb 2024 00:00:00 GMT");
}

TEST(DateLine, FollowsTheSecond) {
    DateLine line;
    EXPECT_EQ(line.at(784'111'777), "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    EXPECT_EQ(line.at(784'111'777), "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    EXPECT_EQ(line.at(784'111'778), "Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n");
}

TEST(AnswerHead, HasLengthOrChunks) {
    std::string out;
    append_head(out, {.status = 200, .content_type = "text/plain", .content_length = 12},
                "Date: x\r\n");
    EXPECT_EQ(out,
              "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Type: text/plain\r\nContent-Length: "
              "12\r\n\r\n");
    out.clear();
    append_head(
        out, {.status = 429, .extra = "a: b\r\n", .framing = Framing::kChunked, .close = true}, "");
    EXPECT_EQ(out,
              "HTTP/1.1 429 Too Many Requests\r\nTransfer-Encoding: chunked\r\nConnection: "
              "close\r\na: b\r\n\r\n");
}

TEST(AnswerHead, StatusWithoutBodyHasNoLength) {
    EXPECT_FALSE(status_has_body(204));
    EXPECT_FALSE(status_has_body(304));
    EXPECT_FALSE(status_has_body(100));
    EXPECT_TRUE(status_has_body(404));
    std::string out;
    append_head(out, {.status = 204, .framing = Framing::kNone, .keep_alive = true}, "");
    EXPECT_EQ(out, "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n");
}

TEST(AnswerHeader, CannotBeSplit) {
    std::string out;
    append_header(out, "x-request-id", "a\r\nSet-Cookie: b\n\x7f");
    EXPECT_EQ(out, "x-request-id: a  Set-Cookie: b  \r\n");
}

TEST(Chunk, StartsWithItsLengthInHex) {
    std::string out;
    append_chunk(out, "hello");
    append_chunk(out, std::string(0x1a0, 'x'));
    EXPECT_EQ(out, "5\r\nhello\r\n1a0\r\n" + std::string(0x1a0, 'x') + "\r\n");
}

}  // namespace
}  // namespace stator::net
