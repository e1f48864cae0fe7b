#include "stator/net/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "stator/net/tls_fixture.h"

namespace stator::net {
namespace {

using ::testing::HasSubstr;

/// Two sessions and what is on the way between them.
struct Pair {
    Pair(std::shared_ptr<const TlsContext> client_context,
         std::shared_ptr<const TlsContext> server_context, const std::string& name)
        : client(std::move(client_context), name), server(std::move(server_context), "") {}

    /// Hands over until both are silent. The first failure of either, else nothing.
    std::optional<Error> shake(std::size_t piece = 1 << 20) {
        if (auto begun = client.receive("", client_plain, to_server); !begun) return begun.error();
        std::optional<Error> first;
        while (!to_server.empty() || !to_client.empty()) {
            const auto note = [&](const Result<bool>& result) {
                if (!result && !first) first = result.error();
            };
            note(hand_over(to_server, server, server_plain, to_client, piece));
            note(hand_over(to_client, client, client_plain, to_server, piece));
            if (first && to_client.size() + to_server.size() == 0) break;
        }
        return first;
    }
    static Result<bool> hand_over(std::string& from, TlsSession& to, std::string& plain,
                                  std::string& answer, std::size_t piece) {
        const std::string now = from.substr(0, piece);
        from.erase(0, now.size());
        auto result = to.receive(now, plain, answer);
        if (!result) from.clear();
        return result;
    }

    TlsSession client;
    TlsSession server;
    std::string to_server, to_client, client_plain, server_plain;
};

class Tls : public ::testing::Test {
  protected:
    std::optional<Error> shake(const TlsFiles& client, const TlsFiles& server,
                               const std::string& name = "stator.test") {
        auto client_context = TlsContext::client(client);
        auto server_context = TlsContext::server(server);
        EXPECT_TRUE(client_context) << client_context.error().message;
        EXPECT_TRUE(server_context) << server_context.error().message;
        Pair pair(*client_context, *server_context, name);
        return pair.shake();
    }
    [[nodiscard]] TlsFiles only_authorities() const { return {{}, {}, authority_.file()}; }
    static TlsFiles without_authorities(TlsFiles files) {
        files.authorities.clear();
        return files;
    }

    TemporaryFolder folder_;
    Authority authority_{folder_, "ca"};
    Authority stranger_{folder_, "stranger"};
    TlsFiles server_ = authority_.issue("server", {.address = "127.0.0.1"});
    TlsFiles client_ = authority_.issue("client", {});
};

TEST_F(Tls, CarriesBytesBothWaysInAnySplit) {
    const auto client_context = TlsContext::client(client_).value();
    const auto server_context = TlsContext::server(server_).value();
    EXPECT_TRUE(rc::check([&](const std::string& there, const std::string& back) {
        const auto piece = *rc::gen::inRange<std::size_t>(1, 300);
        Pair pair(client_context, server_context, "stator.test");
        RC_ASSERT(!pair.shake(piece));
        RC_ASSERT(pair.client.ready());
        RC_ASSERT(pair.server.ready());
        RC_ASSERT(pair.client.send(there, pair.to_server).has_value());
        RC_ASSERT(pair.server.send(back, pair.to_client).has_value());
        RC_ASSERT(!pair.shake(piece));
        RC_ASSERT(pair.server_plain == there);
        RC_ASSERT(pair.client_plain == back);
    }));
}

TEST_F(Tls, AFarewellIsSeen) {
    Pair pair(TlsContext::client(client_).value(), TlsContext::server(server_).value(),
              "stator.test");
    ASSERT_FALSE(pair.shake());
    ASSERT_TRUE(pair.client.send("last words", pair.to_server));
    pair.client.close(pair.to_server);
    EXPECT_TRUE(pair.server.receive(pair.to_server, pair.server_plain, pair.to_client).value());
    EXPECT_EQ(pair.server_plain, "last words");
}

TEST_F(Tls, ChecksTheNameOrTheAddress) {
    const TlsFiles server = without_authorities(server_);
    EXPECT_FALSE(shake(only_authorities(), server, "stator.test"));
    EXPECT_FALSE(shake(only_authorities(), server, "127.0.0.1"));
    for (const std::string wrong : {"other.test", "127.0.0.2", "::1"}) {
        const auto refused = shake(only_authorities(), server, wrong);
        ASSERT_TRUE(refused) << wrong;
        EXPECT_EQ(refused->code, ErrorCode::kUnauthenticated);
        EXPECT_THAT(refused->message, HasSubstr("mismatch"));
        EXPECT_THAT(refused->message, HasSubstr(wrong));
    }
    const auto nameless = shake(only_authorities(), server, "");
    ASSERT_TRUE(nameless);
    EXPECT_EQ(nameless->code, ErrorCode::kUnauthenticated);
}

TEST_F(Tls, RefusesWhoIsSignedByAStrangerOrHasRunOut) {
    const TlsFiles foreign = stranger_.issue("foreign", {});
    const auto unknown = shake(only_authorities(), without_authorities(foreign));
    ASSERT_TRUE(unknown);
    EXPECT_EQ(unknown->code, ErrorCode::kUnauthenticated);

    const TlsFiles old = authority_.issue("old", {.address = {}, .valid_seconds = -60});
    const auto expired = shake(only_authorities(), without_authorities(old));
    ASSERT_TRUE(expired);
    EXPECT_EQ(expired->code, ErrorCode::kUnauthenticated);
    EXPECT_THAT(expired->message, HasSubstr("expired"));
}

TEST_F(Tls, MutualTlsRefusesAClientWithoutOrWithAStrangersCertificate) {
    EXPECT_FALSE(shake(client_, server_));
    const auto none = shake(only_authorities(), server_);
    ASSERT_TRUE(none);
    EXPECT_EQ(none->code, ErrorCode::kUnauthenticated);

    TlsFiles foreign = stranger_.issue("foreign", {});
    foreign.authorities = authority_.file();
    const auto unknown = shake(foreign, server_);
    ASSERT_TRUE(unknown);
    EXPECT_EQ(unknown->code, ErrorCode::kUnauthenticated);
}

TEST_F(Tls, DamageIsNoticed) {
    Pair pair(TlsContext::client(client_).value(), TlsContext::server(server_).value(),
              "stator.test");
    ASSERT_FALSE(pair.shake());
    ASSERT_TRUE(pair.client.send("hello", pair.to_server));
    pair.to_server.back() ^= 1;
    const auto result = pair.server.receive(pair.to_server, pair.server_plain, pair.to_client);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kDataLoss);
    EXPECT_EQ(pair.server_plain, "");
    EXPECT_FALSE(pair.server.receive("", pair.server_plain, pair.to_client));
}

TEST_F(Tls, GarbageIsNoHandshake) {
    TlsSession server(TlsContext::server(server_).value(), "");
    std::string plain;
    std::string cipher;
    const auto result = server.receive("GET / HTTP/1.1\r\n\r\n", plain, cipher);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kUnauthenticated);
    EXPECT_FALSE(server.send("x", cipher));
}

TEST_F(Tls, BadFilesAreNamedWithTheReason) {
    const auto refused = [](const TlsFiles& files) { return TlsContext::server(files).error(); };
    TlsFiles files = server_;
    files.certificate = folder_.file("missing");
    EXPECT_EQ(refused(files).code, ErrorCode::kNotFound);
    EXPECT_THAT(refused(files).message, HasSubstr(files.certificate));
    EXPECT_THAT(refused(files).message, HasSubstr("No such file"));

    std::ofstream(folder_.file("garbage")) << "no PEM";
    files = server_;
    files.certificate = folder_.file("garbage");
    EXPECT_EQ(refused(files).code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(refused(files).message, HasSubstr("no start line"));

    files = server_;
    files.authorities = folder_.file("garbage");
    EXPECT_EQ(refused(files).code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(refused(files).message, HasSubstr(files.authorities));

    files = server_;
    files.key = client_.key;
    EXPECT_EQ(refused(files).code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(refused(files).message, HasSubstr("mismatch"));

    files = server_;
    files.key = "";
    EXPECT_EQ(refused(files).code, ErrorCode::kInvalidArgument);
}

TEST_F(Tls, AKeyThatOthersCanReadIsRefused) {
    ASSERT_EQ(::chmod(server_.key.c_str(), 0640), 0);
    const auto refused = TlsContext::server(server_);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied);
    EXPECT_THAT(refused.error().message, HasSubstr(server_.key));
    EXPECT_THAT(refused.error().message, HasSubstr("0640"));
}

}  // namespace
}  // namespace stator::net
