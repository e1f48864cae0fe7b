#include <gtest/gtest.h>

#include "stator/net/http_fixture.h"
#include "stator/net/stream_fixture.h"
#include "stator/net/tls_fixture.h"

namespace stator::net {
namespace {

using namespace std::chrono_literals;

/// What the two ends of a socket are told when TLS does not come about.
class StreamTls : public ::testing::Test {
  protected:
    void SetUp() override {
        loops_.start();
        ListenOptions options;
        options.stream.tls = TlsContext::server(server_files_).value();
        options.stream.connect_timeout = 300ms;
        listener_ = listen_stream(loops_, *parse_socket_address("127.0.0.1:0"), options,
                                  [this](std::shared_ptr<StreamSocket> socket) {
                                      server_->own(std::move(socket));
                                      return server_;
                                  })
                        .value();
    }
    void TearDown() override {
        listener_.reset();
        loops_.stop();
    }

    TemporaryFolder folder_;
    Authority authority_{folder_, "ca"};
    TlsFiles server_files_ = authority_.issue("server", {.address = "127.0.0.1"});
    runtime::LoopPool loops_{1, "loop"};
    std::shared_ptr<Recorder> server_ = std::make_shared<Recorder>();
    std::unique_ptr<StreamListener> listener_;
};

TEST_F(StreamTls, AClientWithoutItsCertificateNeverOpensOnTheServer) {
    StreamOptions options;
    options.tls = TlsContext::client({{}, {}, authority_.file()}).value();
    auto client = std::make_shared<Recorder>();
    on_loop(loops_.at(0), [&] {
        client->own(connect_stream(loops_.at(0), listener_->address(), options, client));
    });
    EXPECT_EQ(server_->wait_closed().code, ErrorCode::kUnauthenticated);
    EXPECT_FALSE(server_->opened());
    EXPECT_NE(client->wait_closed().code, ErrorCode::kCancelled);
}

TEST_F(StreamTls, APlainClientIsRefused) {
    RawClient client(listener_->address().port);
    ASSERT_TRUE(client.send("GET / HTTP/1.1\r\n\r\n"));
    EXPECT_EQ(server_->wait_closed().code, ErrorCode::kUnauthenticated);
    EXPECT_FALSE(server_->opened());
}

TEST_F(StreamTls, AClientThatSaysNothingHasTheConnectTimeout) {
    const RawClient client(listener_->address().port);
    EXPECT_EQ(server_->wait_closed().code, ErrorCode::kDeadlineExceeded);
    EXPECT_FALSE(server_->opened());
}

TEST_F(StreamTls, EachConnectionAsksForTheCertificateOfTheDay) {
    const Authority later{folder_, "later"};
    std::atomic<int> asked = 0;
    const auto serving = [](TlsFiles files) {
        files.authorities.clear();
        return TlsContext::server(files).value();
    };
    const auto first = serving(server_files_);
    const auto second = serving(later.issue("renewed", {.address = "127.0.0.1"}));
    ListenOptions options;
    options.tls = [&] { return asked++ == 0 ? first : second; };
    auto listener = listen_stream(loops_, *parse_socket_address("127.0.0.1:0"), options,
                                  [](const auto&) { return std::make_shared<Recorder>(); });
    ASSERT_TRUE(listener);
    const auto connect = [&](const std::string& trusted) {
        StreamOptions own;
        own.tls = TlsContext::client({{}, {}, trusted}).value();
        auto client = std::make_shared<Recorder>();
        on_loop(loops_.at(0), [&] {
            client->own(connect_stream(loops_.at(0), (*listener)->address(), own, client));
        });
        return client;
    };
    const auto before = connect(authority_.file());
    before->wait_open();
    const auto after = connect(later.file());
    after->wait_open();
    EXPECT_EQ(connect(authority_.file())->wait_closed().code, ErrorCode::kUnauthenticated);
    EXPECT_FALSE(before->closed()) << "connections that are there keep what they have";
    EXPECT_EQ(asked, 3);
    (*listener)->stop();
}

}  // namespace
}  // namespace stator::net
