#include "stator/net/http_url.h"

#include <gtest/gtest.h>

#include <string>

namespace stator::net {
namespace {

TEST(HttpUrl, ReadsItsParts) {
    const auto plain = parse_http_url("HTTP://host:81/a/b?c=d#e");
    ASSERT_TRUE(plain.has_value()) << plain.error().message;
    EXPECT_FALSE(plain->tls);
    EXPECT_EQ(to_string(plain->address), "tcp://host:81");
    EXPECT_EQ(plain->authority, "host:81");
    EXPECT_EQ(plain->path, "/a/b?c=d");

    const auto secure = parse_http_url("https://[::1]");
    ASSERT_TRUE(secure.has_value());
    EXPECT_TRUE(secure->tls);
    EXPECT_EQ(to_string(secure->address), "tcp://[::1]:443");
    EXPECT_EQ(secure->path, "/");
    EXPECT_EQ(parse_http_url("http://h?x")->path, "/?x");
    EXPECT_EQ(parse_http_url("http://h:")->address.port, 80);

    const auto local = parse_http_url("unix:/run/s.sock");
    ASSERT_TRUE(local.has_value());
    EXPECT_EQ(to_string(local->address), "unix:/run/s.sock");
    EXPECT_EQ(local->authority, "localhost");
}

TEST(HttpUrl, SaysWhatIsWrong) {
    for (const char* text :
         {"", "host:80", "ftp://h/", "http://", "http:///x", "http://h:70000/", "http://h:x/",
          "http://a b/", "http://h/\n", "http://[::1/", "unix:x"}) {
        const auto url = parse_http_url(text);
        ASSERT_FALSE(url.has_value()) << text;
        EXPECT_EQ(url.error().code, ErrorCode::kInvalidArgument);
    }
}

}  // namespace
}  // namespace stator::net
