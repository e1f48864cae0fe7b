#include "stator/net/stream_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <random>

#include "stator/net/stream_fixture.h"

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

using Kinds = ::testing::Types<Tcp, Unix>;
TYPED_TEST_SUITE(StreamContract, Kinds);

std::string random_bytes(std::size_t size, unsigned seed) {
    std::mt19937_64 random(seed);
    std::string bytes(size, '\0');
    for (auto& c : bytes) c = static_cast<char>(random());
    return bytes;
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
    const auto server = this->listen_once();
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
    client->when_bytes = [&](StreamSocket& socket, std::string_view bytes) {
        received += bytes;
        ++calls;
        // Off and on again within a turn, and off for longer every other time.
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
    this->listen([] { return std::make_shared<Recorder>(); });
    const auto first = this->connect();
    const auto second = this->connect();
    ASSERT_TRUE(first->wait_open());
    ASSERT_TRUE(second->wait_open());
    const auto third = this->connect();
    EXPECT_NE(third->wait_closed().code, ErrorCode::kCancelled);
    EXPECT_EQ(this->listener_->refused(), 1U);
    on_loop(this->loop(), [&] { first->socket()->close(); });
    first->wait_closed();
    // The server notices in its own time that a seat is free.
    for (int i = 0;; ++i) {
        ASSERT_LT(i, 1000);
        const auto again = std::make_shared<Recorder>();
        again->when_open = [](StreamSocket& socket) {
            socket.out() += "x";
            socket.flush_later();
        };
        this->connect(again);
        const auto refused = this->listener_->refused();
        if (again->wait_open() && refused == this->listener_->refused()) break;
    }
}

TYPED_TEST(StreamContract, SpreadsConnectionsOverTheLoops) {
    std::mutex mutex;
    std::vector<bool> on_first;
    this->listen([&] {
        const std::scoped_lock lock(mutex);
        on_first.push_back(this->servers_.at(0).on_this_thread());
        return std::make_shared<Recorder>();
    });
    for (int i = 0; i < 8; ++i) ASSERT_TRUE(this->connect()->wait_open());
    this->listener_->stop();
    EXPECT_EQ(on_first.size(), 8U);
    EXPECT_EQ(std::ranges::count(on_first, true), 4);
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
    const auto server = std::make_shared<Recorder>();
    server->when_open = [](StreamSocket& socket) { socket.pause_reading(true); };
    this->listen([server] { return server; });
    const auto client = this->connect();
    ASSERT_TRUE(client->wait_open());
    ASSERT_TRUE(server->wait_open());
    on_loop(this->loop(), [&] {
        say(client->socket(), std::string(32 * 1024 * 1024, 'x'));
        for (int i = 0; i < 3; ++i) {
            auto other = std::make_shared<Recorder>();
            other->own(connect_stream(this->loop(), this->listener_->address(),
                                      this->client_options_, other));
        }
    });
    client->own(nullptr);
    server->own(nullptr);
}

}  // namespace
}  // namespace stator::net
