#include "stator/net/stream_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>

#include "stator/net/http_fixture.h"
#include "stator/net/stream_fixture.h"
#include "stator/net/tls_fixture.h"

namespace stator::net {
namespace {

using namespace std::chrono_literals;

struct Tcp {
    static SocketAddress where(const TemporaryFolder& /*folder*/) {
        return *parse_socket_address("127.0.0.1:0");
    }
    static void secure(const TemporaryFolder& /*folder*/, StreamOptions& /*client*/,
                       StreamOptions& /*server*/) {}
};

struct Unix {
    static SocketAddress where(const TemporaryFolder& folder) {
        return *parse_socket_address("unix:" + folder.file("socket"));
    }
    static void secure(const TemporaryFolder& /*folder*/, StreamOptions& /*client*/,
                       StreamOptions& /*server*/) {}
};

struct TlsOverTcp {
    static SocketAddress where(const TemporaryFolder& folder) { return Tcp::where(folder); }
    static void secure(const TemporaryFolder& folder, StreamOptions& client,
                       StreamOptions& server) {
        const Authority authority(folder, "ca");
        const TlsFiles served = authority.issue("server", {.address = "127.0.0.1"});
        const TlsFiles own = authority.issue("client", {});
        server.tls = TlsContext::server(served).value();
        client.tls = TlsContext::client(own).value();
    }
};

/// What every kind of stream socket does. The server's side runs on loops 0 and 1, the client's on
/// loop 2.
template <typename Kind>
class StreamContract : public ::testing::Test {
  protected:
    StreamContract() { Kind::secure(folder_, client_options_, server_options_.stream); }
    void SetUp() override {
        servers_.start();
        clients_.start();
    }
    void TearDown() override {
        listener_.reset();
        clients_.stop();
        servers_.stop();
    }

    /// Each accepted connection's handler comes from `make`.
    void listen(std::function<std::shared_ptr<Recorder>()> make) {
        auto listener = listen_stream(servers_, Kind::where(folder_), server_options_,
                                      [make](std::shared_ptr<StreamSocket> socket) {
                                          auto handler = make();
                                          if (handler) handler->own(std::move(socket));
                                          return handler;
                                      });
        ASSERT_TRUE(listener) << listener.error().message;
        listener_ = std::move(*listener);
    }
    /// One server side, for tests with one connection.
    std::shared_ptr<Recorder> listen_once() {
        auto handler = std::make_shared<Recorder>();
        listen([handler] { return handler; });
        return handler;
    }
    void connect(const std::shared_ptr<Recorder>& handler) {
        on_loop(loop(), [&] {
            handler->own(connect_stream(loop(), listener_->address(), client_options_, handler));
        });
    }
    std::shared_ptr<Recorder> connect() {
        auto handler = std::make_shared<Recorder>();
        connect(handler);
        return handler;
    }
    runtime::Loop& loop() { return clients_.at(0); }

    TemporaryFolder folder_;
    StreamOptions client_options_;
    ListenOptions server_options_;
    runtime::LoopPool servers_{2, "server"};
    runtime::LoopPool clients_{1, "client"};
    std::unique_ptr<StreamListener> listener_;
};

using Kinds = ::testing::Types<Tcp, Unix, TlsOverTcp>;
TYPED_TEST_SUITE(StreamContract, Kinds);

std::string random_bytes(std::size_t size, unsigned seed) {
    std::mt19937_64 random(seed);
    std::string bytes(size, '\0');
    for (auto& c : bytes) c = static_cast<char>(random());
    return bytes;
}

/// A server's side that says something as soon as it is open.
std::shared_ptr<Recorder> greeter() {
    auto server = std::make_shared<Recorder>();
    server->when_open = [](StreamSocket& socket) {
        socket.out() += "hi";
        socket.flush_later();
    };
    return server;
}

void say(const std::shared_ptr<StreamSocket>& socket, std::string_view text) {
    socket->out() += text;
    socket->flush_later();
}

TYPED_TEST(StreamContract, EchoesManyMegabytesInOddPieces) {
    auto server = std::make_shared<Recorder>();
    server->when_bytes = [](StreamSocket& socket, std::string_view bytes) {
        socket.out() += bytes;
        socket.flush_later();
    };
    this->listen([server] { return server; });
    const std::string sent = random_bytes(8 * 1024 * 1024 + 12'345, 7);

    auto client = std::make_shared<Recorder>();
    std::size_t at = 0;
    std::mt19937 random(11);
    // A few pieces a turn, then more when the kernel has all of it or something has come back.
    const auto more = [&](StreamSocket& socket) {
        for (int i = 0; i < 3 && at < sent.size() && socket.unsent() < 1024 * 1024; ++i) {
            const std::size_t size = std::min<std::size_t>(
                sent.size() - at, 1 + random() % (random() % 4 ? 900 : 70'000));
            socket.out().append(sent, at, size);
            at += size;
            socket.flush_later();
        }
    };
    client->when_open = more;
    client->when_drained = more;
    std::string received;
    client->when_bytes = [&](StreamSocket& socket, std::string_view bytes) {
        received += bytes;
        more(socket);
        if (received.size() == sent.size()) socket.close();
    };
    this->connect(client);
    const Error why = client->wait_closed();
    EXPECT_EQ(why.code, ErrorCode::kCancelled) << why.message;
    EXPECT_TRUE(received == sent);
    EXPECT_LE(client->largest(), this->client_options_.read_bytes);
    EXPECT_EQ(server->wait_closed().code, ErrorCode::kUnavailable);
}

TYPED_TEST(StreamContract, AllOfATurnLeavesInOneSend) {
    const auto server = this->listen_once();
    const auto client = this->connect();
    ASSERT_TRUE(client->wait_open());
    const auto socket = client->socket();
    const auto before = on_loop(this->loop(), [&] { return socket->sends(); });
    on_loop(this->loop(), [&] {
        for (int i = 0; i < 1000; ++i) say(socket, "token ");
    });
    ASSERT_TRUE(server->wait_received(6000));
    EXPECT_EQ(on_loop(this->loop(), [&] { return socket->sends(); }), before + 1);
}

TYPED_TEST(StreamContract, WhatIsWrittenBeforeItIsOpenIsSentOnceItIs) {
    const auto server = this->listen_once();
    auto client = std::make_shared<Recorder>();
    on_loop(this->loop(), [&] {
        client->own(connect_stream(this->loop(), this->listener_->address(), this->client_options_,
                                   client));
        EXPECT_FALSE(client->opened());
        say(client->socket(), "early");
    });
    ASSERT_TRUE(server->wait_received(5));
    EXPECT_EQ(server->received(), "early");
}

TYPED_TEST(StreamContract, APeerThatStopsReadingIsSeenInUnsentAndDrainsLater) {
    const auto server = std::make_shared<Recorder>();
    server->when_open = [](StreamSocket& socket) { socket.pause_reading(true); };
    this->listen([server] { return server; });
    const auto client = this->connect();
    ASSERT_TRUE(server->wait_open());
    ASSERT_TRUE(client->wait_open());
    const auto socket = client->socket();
    const std::string part = random_bytes(1024 * 1024, 3);
    std::size_t sent = 0;
    while (on_loop(this->loop(), [&] { return socket->unsent(); }) < 4 * part.size()) {
        on_loop(this->loop(), [&] { say(socket, part); });
        sent += part.size();
        ASSERT_LT(sent, 100 * part.size()) << "the output never backs up";
    }
    EXPECT_EQ(server->received(), "");
    ASSERT_TRUE(server->socket()->peer() != "");
    runtime::Loop& loop = this->servers_.at(0);
    on_loop(loop, [&] { server->socket()->pause_reading(false); });
    ASSERT_TRUE(server->wait_received(sent));
    ASSERT_TRUE(client->wait_drained());
    EXPECT_EQ(on_loop(this->loop(), [&] { return socket->unsent(); }), 0U);
    const std::string received = server->received();
    for (std::size_t at = 0; at < sent; at += part.size()) {
        ASSERT_TRUE(std::string_view(received).substr(at, part.size()) == part) << at;
    }
}

TYPED_TEST(StreamContract, CloseDeliversWhatWasWritten) {
    const auto server = this->listen_once();
    const auto client = this->connect();
    ASSERT_TRUE(client->wait_open());
    const std::string last = random_bytes(3 * 1024 * 1024, 5);
    on_loop(this->loop(), [&] {
        client->socket()->out() += last;
        client->socket()->close(10s);
        EXPECT_FALSE(client->closed()) << "on_closed() comes in a later turn";
    });
    EXPECT_EQ(server->wait_closed().code, ErrorCode::kUnavailable);
    EXPECT_TRUE(server->received() == last);
    EXPECT_EQ(client->wait_closed().code, ErrorCode::kCancelled);
}

TYPED_TEST(StreamContract, CloseGivesUpOnAPeerThatDoesNotRead) {
    const auto server = std::make_shared<Recorder>();
    server->when_open = [](StreamSocket& socket) { socket.pause_reading(true); };
    this->listen([server] { return server; });
    const auto client = this->connect();
    ASSERT_TRUE(client->wait_open());
    ASSERT_TRUE(server->wait_open());
    on_loop(this->loop(), [&] {
        client->socket()->out() += std::string(64 * 1024 * 1024, 'x');
        client->socket()->close(50ms);
    });
    EXPECT_EQ(client->wait_closed().code, ErrorCode::kCancelled);
}

TYPED_TEST(StreamContract, AbortTellsBothSides) {
    const auto server = this->listen_once();
    const auto client = this->connect();
    ASSERT_TRUE(client->wait_open());
    ASSERT_TRUE(server->wait_open());
    on_loop(this->loop(), [&] {
        client->socket()->abort();
        client->socket()->abort();
        client->socket()->close();
        say(client->socket(), "into the void");
        EXPECT_FALSE(client->closed()) << "on_closed() comes in a later turn";
    });
    EXPECT_EQ(client->wait_closed().code, ErrorCode::kCancelled);
    EXPECT_EQ(server->wait_closed().code, ErrorCode::kUnavailable);
}

TYPED_TEST(StreamContract, ClosedAtOnceItNeverOpens) {
    this->listen(greeter);
    for (const bool abort : {false, true}) {
        auto client = std::make_shared<Recorder>();
        on_loop(this->loop(), [&] {
            client->own(connect_stream(this->loop(), this->listener_->address(),
                                       this->client_options_, client));
            abort ? client->socket()->abort() : client->socket()->close();
        });
        EXPECT_EQ(client->wait_closed().code, ErrorCode::kCancelled);
        EXPECT_FALSE(client->opened());
    }
}

TYPED_TEST(StreamContract, MayBeAbortedInEveryCallback) {
    this->listen([] {
        auto server = std::make_shared<Recorder>();
        server->when_bytes = [](StreamSocket& socket, std::string_view bytes) {
            socket.out() += bytes;
            socket.flush_later();
        };
        return server;
    });
    auto in_open = std::make_shared<Recorder>();
    in_open->when_open = [](StreamSocket& socket) { socket.abort(); };
    auto in_bytes = std::make_shared<Recorder>();
    in_bytes->when_open = [](StreamSocket& socket) {
        socket.out() += "hello";
        socket.flush_later();
    };
    in_bytes->when_bytes = [](StreamSocket& socket, std::string_view bytes) {
        socket.abort();
        EXPECT_EQ(bytes.front(), 'h') << "the view must live until on_bytes() returns";
    };
    auto in_drained = std::make_shared<Recorder>();
    in_drained->when_open = [](StreamSocket& socket) {
        socket.out() += std::string(32 * 1024 * 1024, 'x');
        socket.flush_later();
    };
    in_drained->when_bytes = [](StreamSocket&, std::string_view) {};
    in_drained->when_drained = [](StreamSocket& socket) { socket.abort(); };
    for (const auto& client : {in_open, in_bytes, in_drained}) {
        this->connect(client);
        EXPECT_EQ(client->wait_closed().code, ErrorCode::kCancelled);
    }
}

TYPED_TEST(StreamContract, WhilePausedNothingIsDelivered) {
    const auto server = this->listen_once();
    auto client = std::make_shared<Recorder>();
    this->client_options_.read_bytes = 1024;
    std::string received;
    int calls = 0;
    client->when_open = [](StreamSocket& socket) { socket.pause_reading(true); };
    client->when_bytes = [&](StreamSocket& socket, std::string_view bytes) {
        received += bytes;
        ++calls;
        // Off, on and off again within the call: still off.
        socket.pause_reading(true);
        socket.pause_reading(false);
        socket.pause_reading(true);
    };
    this->connect(client);
    ASSERT_TRUE(server->wait_open());
    const std::string sent = random_bytes(100'000, 9);
    on_loop(this->servers_.at(0), [&] { say(server->socket(), sent); });
    std::size_t before = 0;
    while (before < sent.size()) {
        const int calls_before = on_loop(this->loop(), [&] { return calls; });
        on_loop(this->loop(), [&] { client->socket()->pause_reading(false); });
        while (on_loop(this->loop(), [&] { return calls; }) == calls_before) {
        }
        EXPECT_EQ(on_loop(this->loop(), [&] { return calls; }), calls_before + 1);
        before = on_loop(this->loop(), [&] { return received.size(); });
    }
    EXPECT_TRUE(received == sent);
    EXPECT_LE(client->largest(), 1024U);
}

TYPED_TEST(StreamContract, RefusesWhatIsBeyondItsConnectionsAndTakesAgainLater) {
    this->server_options_.max_connections = 2;
    this->listen(greeter);
    const auto first = this->connect();
    const auto second = this->connect();
    ASSERT_TRUE(first->wait_received_unless_closed());
    ASSERT_TRUE(second->wait_received_unless_closed());
    const auto third = this->connect();
    EXPECT_NE(third->wait_closed().code, ErrorCode::kCancelled);
    EXPECT_EQ(third->received(), "");
    EXPECT_EQ(this->listener_->refused(), 1U);
    on_loop(this->loop(), [&] { first->socket()->close(); });
    first->wait_closed();
    // The server notices in its own time that a seat is free.
    for (int i = 0; !this->connect()->wait_received_unless_closed(); ++i) ASSERT_LT(i, 1000);
}

TYPED_TEST(StreamContract, SpreadsConnectionsOverTheLoops) {
    std::atomic<int> on_first = 0;
    this->listen([&] {
        if (this->servers_.at(0).on_this_thread()) ++on_first;
        return greeter();
    });
    for (int i = 0; i < 8; ++i) ASSERT_TRUE(this->connect()->wait_received_unless_closed());
    EXPECT_EQ(on_first, 4);
    this->listener_->stop();
}

TYPED_TEST(StreamContract, ARefusedPeerIsClosed) {
    this->listen([] { return nullptr; });
    const auto client = this->connect();
    EXPECT_NE(client->wait_closed().code, ErrorCode::kCancelled);
}

TYPED_TEST(StreamContract, OpenConnectionsOutliveTheListener) {
    const auto server = this->listen_once();
    const auto client = this->connect();
    ASSERT_TRUE(client->wait_open());
    ASSERT_TRUE(server->wait_open());
    this->listener_->stop();
    this->listener_->stop();
    on_loop(this->loop(), [&] { say(client->socket(), "still here"); });
    EXPECT_TRUE(server->wait_received(10));
    const auto late = this->connect();
    const Error why = late->wait_closed();
    EXPECT_EQ(why.code, ErrorCode::kUnavailable);
    EXPECT_THAT(why.message, ::testing::HasSubstr(to_string(this->listener_->address())));
}

/// Nothing is closed: the loops go with connections open, output pending and an attempt under way.
TYPED_TEST(StreamContract, LoopsMayGoWithThingsInFlight) {
    this->listen([] {
        auto server = greeter();
        server->when_bytes = [](StreamSocket& socket, std::string_view) {
            socket.pause_reading(true);
        };
        return server;
    });
    const auto client = this->connect();
    ASSERT_TRUE(client->wait_received_unless_closed());
    on_loop(this->loop(), [&] {
        say(client->socket(), std::string(32 * 1024 * 1024, 'x'));
        for (int i = 0; i < 3; ++i) {
            auto other = std::make_shared<Recorder>();
            other->own(connect_stream(this->loop(), this->listener_->address(),
                                      this->client_options_, other));
        }
    });
}

/// What belongs to one kind, or needs no peer.
class StreamSockets : public ::testing::Test {
  protected:
    void SetUp() override { loops_.start(); }
    void TearDown() override { loops_.stop(); }

    std::shared_ptr<Recorder> connect(const SocketAddress& address, StreamOptions options = {}) {
        auto handler = std::make_shared<Recorder>();
        on_loop(loops_.at(0),
                [&] { handler->own(connect_stream(loops_.at(0), address, options, handler)); });
        return handler;
    }
    Result<std::unique_ptr<StreamListener>> listen(const std::string& address) {
        return listen_stream(loops_, *parse_socket_address(address), {},
                             [](std::shared_ptr<StreamSocket> socket) {
                                 auto handler = greeter();
                                 handler->own(std::move(socket));
                                 return handler;
                             });
    }

    TemporaryFolder folder_;
    runtime::LoopPool loops_{1, "loop"};
};

TEST_F(StreamSockets, NobodyThereIsUnavailableWithAddressAndReason) {
    std::string free_port;
    {
        const auto listener = listen("127.0.0.1:0").value();
        free_port = to_string(listener->address());
    }
    const std::vector<std::pair<std::string, std::string>> cases{
        {free_port, "Connection refused"},
        {"unix:" + folder_.file("nothing"), "No such file or directory"},
        {"name.invalid:80", "resolved"}};
    for (const auto& [address, reason] : cases) {
        const auto client = connect(*parse_socket_address(address));
        const Error why = client->wait_closed();
        EXPECT_EQ(why.code, ErrorCode::kUnavailable);
        EXPECT_THAT(why.message, ::testing::HasSubstr(address.substr(address.find("//") + 1)));
        EXPECT_THAT(why.message, ::testing::HasSubstr(reason));
        EXPECT_FALSE(client->opened());
    }
}

TEST_F(StreamSockets, ANameIsResolved) {
    const auto listener = listen("localhost:0").value();
    const auto client = connect(listener->address());
    EXPECT_TRUE(client->wait_received_unless_closed());
    EXPECT_THAT(client->socket()->peer(),
                ::testing::EndsWith(":" + std::to_string(listener->address().port)));
}

/// A Unix listener whose queue is full makes connecting wait, and nothing wakes the one who waits.
TEST_F(StreamSockets, ConnectingTakesAtMostItsTime) {
    const std::string path = folder_.file("full");
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    path.copy(name.sun_path, path.size());
    ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
    ASSERT_EQ(::listen(fd, 0), 0);
    StreamOptions options;
    options.connect_timeout = 60ms;
    std::vector<std::shared_ptr<Recorder>> clients;
    for (int i = 0; i < 4; ++i) {
        clients.push_back(connect(*parse_socket_address("unix:" + path), options));
    }
    EXPECT_EQ(clients.back()->wait_closed().code, ErrorCode::kDeadlineExceeded);
    EXPECT_FALSE(clients.back()->opened());
    ::close(fd);
}

TEST_F(StreamSockets, APeerThatEndsItsSideIsGone) {
    const auto listener = listen("127.0.0.1:0").value();
    RawClient client(listener->address().port);
    ASSERT_EQ(client.read_through("hi"), "hi");
    client.end_sending();
    EXPECT_EQ(client.read_all(), "");
}

TEST_F(StreamSockets, AUnixSocketIsItsOwnersAlone) {
    const std::string path = folder_.file("s");
    auto listener = listen("unix:" + path).value();
    struct stat status{};
    ASSERT_EQ(::lstat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
    listener->stop();
    EXPECT_NE(::lstat(path.c_str(), &status), 0);
}

TEST_F(StreamSockets, AStaleUnixSocketIsReplacedAndALiveOneIsNot) {
    const std::string path = folder_.file("s");
    const int dead = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    path.copy(name.sun_path, path.size());
    ASSERT_EQ(::bind(dead, reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
    ::close(dead);
    auto listener = listen("unix:" + path).value();
    EXPECT_TRUE(connect(listener->address())->wait_received_unless_closed());

    const auto second = listen("unix:" + path);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
    EXPECT_THAT(second.error().message, ::testing::HasSubstr("Address already in use"));
    EXPECT_TRUE(connect(listener->address())->wait_received_unless_closed());

    std::ofstream(folder_.file("file")) << "precious";
    EXPECT_FALSE(listen("unix:" + folder_.file("file")));
    EXPECT_TRUE(std::filesystem::is_regular_file(folder_.file("file")));
}

TEST_F(StreamSockets, ASocketFileThatIsNotOursIsLeft) {
    const std::string path = folder_.file("s");
    auto listener = listen("unix:" + path).value();
    std::filesystem::remove(path);
    auto next = listen("unix:" + path).value();
    listener->stop();
    EXPECT_TRUE(connect(next->address())->wait_received_unless_closed());
}

TEST_F(StreamSockets, AListenerSurvivesTheLackOfDescriptors) {
    const auto listener = listen("127.0.0.1:0").value();
    // The peer has its own descriptor; then there are none left, and later again.
    RawClient client(listener->address().port);
    ASSERT_EQ(client.read_through("hi"), "hi");
    std::vector<int> taken;
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    const int waiting = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    rlimit low = before;
    low.rlim_cur = static_cast<rlim_t>(waiting) + 8;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
    for (int fd = ::dup(waiting); fd >= 0; fd = ::dup(waiting)) taken.push_back(fd);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(listener->address().port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(waiting, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    on_loop(loops_.at(0), [] {});
    for (const int fd : taken) ::close(fd);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    std::array<char, 2> hi{};
    EXPECT_EQ(::recv(waiting, hi.data(), hi.size(), MSG_WAITALL), 2);
    ::close(waiting);
}

}  // namespace
}  // namespace stator::net
