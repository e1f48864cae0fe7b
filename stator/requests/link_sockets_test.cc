#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "stator/net/stream_fixture.h"
#include "stator/net/tls_fixture.h"
#include "stator/requests/link.h"
#include "stator/requests/link_fixture.h"

namespace stator::requests {
namespace {

using net::kPatience;
using net::TemporaryFolder;
using protocol::FinishReason;
using std::chrono::milliseconds;

struct Tcp {
    static void set_up(const TemporaryFolder& /*folder*/, LinkServerOptions& server,
                       LinkOptions& /*client*/) {
        server.address = *net::parse_socket_address("127.0.0.1:0");
    }
};
struct Unix {
    static void set_up(const TemporaryFolder& folder, LinkServerOptions& server,
                       LinkOptions& /*client*/) {
        server.address = *net::parse_socket_address("unix:" + folder.file("socket"));
    }
};
struct WithSecret {
    static void set_up(const TemporaryFolder& /*folder*/, LinkServerOptions& server,
                       LinkOptions& client) {
        server.address = *net::parse_socket_address("127.0.0.1:0");
        server.secret = [] { return "s3cret"; };
        client.link.secret = "s3cret";
    }
};

struct Tls {
    static void set_up(const TemporaryFolder& folder, LinkServerOptions& server,
                       LinkOptions& client) {
        const net::Authority authority(folder, "ca");
        net::TlsFiles files = authority.issue("worker", {.address = "127.0.0.1"});
        files.authorities.clear();
        server.address = *net::parse_socket_address("127.0.0.1:0");
        server.tls = [context = net::TlsContext::server(files).value()] { return context; };
        client.stream.tls = net::TlsContext::client({{}, {}, authority.file()}).value();
    }
};
struct MutualTls {
    static void set_up(const TemporaryFolder& folder, LinkServerOptions& server,
                       LinkOptions& client) {
        const net::Authority authority(folder, "ca");
        server.address = *net::parse_socket_address("127.0.0.1:0");
        server.tls =
            [context = net::TlsContext::server(authority.issue("worker", {.address = "127.0.0.1"}))
                           .value()] { return context; };
        client.stream.tls = net::TlsContext::client(authority.issue("frontend", {})).value();
    }
};

/// Answers every request with as many tokens as it asks for, one step after the other.
class EchoWorker : public WorkerSessionEvents, public std::enable_shared_from_this<EchoWorker> {
  public:
    EchoWorker(std::shared_ptr<ServerLink> link, std::atomic<int>& lost)
        : link_(std::move(link)), lost_(lost) {}
    void on_ready(const Hello& /*client*/) override { link_->session().send_info(test_info()); }
    Result<void> on_open(StreamId stream, std::uint32_t rank, std::uint64_t /*booking*/,
                         protocol::GenerateRequest&& request) override {
        if (rank != 0) return error(ErrorCode::kInvalidArgument, "no such rank");
        step(stream, 0, request.max_tokens, static_cast<std::uint32_t>(request.prompt.size()));
        return {};
    }
    void on_cancel(StreamId /*stream*/) override {}
    void on_fetch(std::uint64_t fetch, const Fetch& what) override {
        link_->session().fetched(fetch, std::make_shared<const std::string>(what.from, 'x'));
        link_->flush();
    }
    void on_lane_unwanted(LaneId /*lane*/, const Error& /*why*/) override {}
    void on_lost(const Error& /*why*/) override {
        over_ = true;
        lost_ += 1;
    }

  private:
    void step(StreamId stream, std::uint32_t token, std::uint32_t max, std::uint32_t prompt) {
        link_->loop().post([self = shared_from_this(), stream, token, max, prompt] {
            if (self->over_) return;
            protocol::StepBatch batch;
            protocol::StepEvent e;
            e.id = protocol::RequestId(stream.value);
            e.count = 1;
            e.prompt_tokens = prompt;
            if (token + 1 == max) e.finish = FinishReason::kLength;
            batch.events.push_back(std::move(e));
            batch.tokens.push_back({.token = token});
            self->link_->session().send_step(batch, {});
            self->link_->flush();
            if (token + 1 < max) self->step(stream, token + 1, max, prompt);
        });
    }
    std::shared_ptr<ServerLink> link_;
    std::atomic<int>& lost_;
    bool over_ = false;
};

/// A client's record, to be waited for.
struct Waiting : ClientRecord {
    template <typename F>
    void until(runtime::Loop& loop, F&& f) {
        const auto end = std::chrono::seconds(kPatience);
        std::unique_lock lock(mutex);
        ASSERT_TRUE(changed.wait_for(lock, end, [&] { return f(*this); }));
        static_cast<void>(loop);
    }
    template <typename F>
    void note(F&& f) {
        // Under the lock: whoever waits may be the one that ends this object's life.
        const std::scoped_lock lock(mutex);
        f();
        changed.notify_all();
    }
    void on_info(const protocol::WorkerInfo& i) override {
        note([&] { ClientRecord::on_info(i); });
    }
    void on_step(StreamId id, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> tokens,
                 std::span<const protocol::TokenLogprob> top) override {
        note([&] { ClientRecord::on_step(id, event, tokens, top); });
    }
    void on_fetched(std::uint64_t id, Result<std::string> body) override {
        note([&] { ClientRecord::on_fetched(id, std::move(body)); });
    }
    void on_lost(const Error& why) override {
        note([&] { ClientRecord::on_lost(why); });
    }
    std::mutex mutex;
    std::condition_variable changed;
};

template <typename Kind>
class LinkContract : public ::testing::Test {
  protected:
    void SetUp() override {
        Kind::set_up(folder_, server_options_, client_options_);
        servers_.start();
        clients_.start();
        auto server = listen_links(servers_, server_options_, [this](auto link) {
            return std::make_shared<EchoWorker>(std::move(link), lost_);
        });
        ASSERT_TRUE(server) << server.error().message;
        server_ = std::move(*server);
        client_options_.address = server_->address();
    }
    void TearDown() override {
        server_->stop();
        clients_.stop();
        servers_.stop();
    }
    template <typename F>
    auto on_loop(F f) {
        std::promise<decltype(f())> result;
        clients_.at(0).post([&] {
            if constexpr (std::is_void_v<decltype(f())>) {
                f();
                result.set_value();
            } else {
                result.set_value(f());
            }
        });
        return result.get_future().get();
    }
    std::shared_ptr<Link> connect(ClientLinkEvents& events) {
        return on_loop([&] { return connect_link(clients_.at(0), client_options_, events); });
    }

    TemporaryFolder folder_;
    LinkServerOptions server_options_;
    LinkOptions client_options_;
    std::atomic<int> lost_{0};
    runtime::LoopPool servers_{2, "server"};
    runtime::LoopPool clients_{1, "client"};
    std::unique_ptr<LinkServer> server_;
};

using Kinds = ::testing::Types<Tcp, Unix, WithSecret, Tls, MutualTls>;
TYPED_TEST_SUITE(LinkContract, Kinds);

std::shared_ptr<const protocol::GenerateRequest> request(std::size_t prompt, std::uint32_t max) {
    auto q = std::make_shared<protocol::GenerateRequest>();
    q->prompt.assign(prompt, 7);
    q->max_tokens = max;
    return q;
}

TYPED_TEST(LinkContract, RequestsShortAndLongAndFetchesAllEnd) {
    Waiting events;
    const auto link = this->connect(events);
    auto& loop = this->clients_.at(0);
    events.until(loop, [](auto& e) { return !e.infos.empty() || !e.lost.empty(); });
    ASSERT_TRUE(events.lost.empty()) << events.lost[0].message;
    this->on_loop([&] {
        for (int i = 0; i < 20; ++i) EXPECT_TRUE(link->open(request(10, 50), 0, 1));
        for (int i = 0; i < 3; ++i) EXPECT_TRUE(link->open(request(1'000'000, 2), 0, 2));
        EXPECT_TRUE(link->open(request(5, 2), 3, 3));
        for (int i = 0; i < 3; ++i) {
            EXPECT_TRUE(link->fetch(
                {.kind = Fetch::Kind::kSnapshot, .sha256 = {}, .topic = "kv", .from = 3'000'000}));
        }
    });
    events.until(loop, [](auto& e) {
        if (!e.lost.empty()) return true;
        int ends = 0;
        for (const auto& [id, s] : e.streams) ends += s.ends;
        return ends == 24 && e.fetched.size() == 3;
    });
    ASSERT_TRUE(events.lost.empty()) << events.lost[0].message;
    for (const auto& [id, s] : events.streams) {
        if (id == 24) {
            EXPECT_EQ(s.error->code, ErrorCode::kInvalidArgument);
            continue;
        }
        EXPECT_FALSE(s.error) << s.error->message;
        EXPECT_EQ(s.tokens.size(), id <= 20 ? 50U : 2U);
        EXPECT_EQ(s.prompt_tokens, id <= 20 ? 10U : 1'000'000U);
        for (std::uint32_t i = 0; i < s.tokens.size(); ++i) EXPECT_EQ(s.tokens[i], i);
    }
    for (const auto& [id, body] : events.fetched) {
        ASSERT_TRUE(body) << body.error().message;
        EXPECT_EQ(body->size(), 3'000'000U);
    }
    EXPECT_EQ(this->server_->stats().links, 1U);
    this->on_loop([&] { link->close(); });
}

TYPED_TEST(LinkContract, AServerThatStopsEndsItsLinks) {
    Waiting events;
    const auto link = this->connect(events);
    auto& loop = this->clients_.at(0);
    events.until(loop, [](auto& e) { return !e.infos.empty(); });
    this->server_->stop();
    EXPECT_EQ(this->lost_, 1);
    events.until(loop, [](auto& e) { return e.lost.size() == 1; });
    EXPECT_EQ(this->server_->stats().links, 0U);
}

TYPED_TEST(LinkContract, AWrongSecretIsRefused) {
    this->client_options_.link.secret = "wrong";
    Waiting events;
    const auto link = this->connect(events);
    events.until(this->clients_.at(0), [](auto& e) { return e.lost.size() == 1; });
    EXPECT_EQ(events.lost[0].code, ErrorCode::kUnauthenticated);
    // A worker without a secret has taken the client in, which then leaves.
    if (this->server_options_.secret) EXPECT_EQ(this->lost_, 0);
}

using LinkOverTls = LinkContract<MutualTls>;

TEST_F(LinkOverTls, AClientWithoutACertificateGetsNoLink) {
    client_options_.stream.tls = net::TlsContext::client({{}, {}, folder_.file("ca.pem")}).value();
    Waiting events;
    const auto link = connect(events);
    events.until(clients_.at(0), [](auto& e) { return e.lost.size() == 1; });
    EXPECT_TRUE(events.infos.empty());
    EXPECT_EQ(server_->stats().accepted, 0U);
}

TEST_F(LinkOverTls, APlainClientGetsNoLink) {
    client_options_.stream.tls = nullptr;
    Waiting events;
    const auto link = connect(events);
    events.until(clients_.at(0), [](auto& e) { return e.lost.size() == 1; });
    EXPECT_EQ(server_->stats().accepted, 0U);
}

/// Its own server, so that the certificate can change under it.
TEST_F(LinkOverTls, AReloadedCertificateCountsFromTheNextConnectionOn) {
    const net::Authority now(folder_, "now");
    const net::Authority next(folder_, "next");
    const auto serves = [](const net::Authority& authority) {
        net::TlsFiles files = authority.issue("worker", {.address = "127.0.0.1"});
        files.authorities.clear();
        return net::TlsContext::server(files).value();
    };
    std::mutex mutex;
    auto context = serves(now);
    LinkServerOptions options = server_options_;
    options.tls = [&] {
        const std::scoped_lock lock(mutex);
        return context;
    };
    auto server = listen_links(servers_, options, [this](auto link) {
        return std::make_shared<EchoWorker>(std::move(link), lost_);
    });
    ASSERT_TRUE(server);
    client_options_.address = (*server)->address();
    const auto connect_trusting = [&](const net::Authority& authority, Waiting& events) {
        client_options_.stream.tls = net::TlsContext::client({{}, {}, authority.file()}).value();
        auto link = connect(events);
        events.until(clients_.at(0), [](auto& e) { return !e.infos.empty() || !e.lost.empty(); });
        return link;
    };
    Waiting before, after, stale;
    const auto first = connect_trusting(now, before);
    {
        const std::scoped_lock lock(mutex);
        context = serves(next);
    }
    const auto second = connect_trusting(next, after);
    const auto third = connect_trusting(now, stale);
    EXPECT_EQ(before.infos.size(), 1U);
    EXPECT_EQ(after.infos.size(), 1U);
    EXPECT_EQ(stale.lost.size(), 1U) << "it does not trust the new certificate";
    on_loop([&] { EXPECT_TRUE(first->open(request(10, 5), 0, 1)); });
    before.until(clients_.at(0), [](auto& e) { return e.streams[1].ends == 1; });
    EXPECT_EQ(before.streams[1].tokens.size(), 5U) << "links that are there go on";
    on_loop([&] {
        first->close();
        second->close();
    });
    (*server)->stop();
}

}  // namespace
}  // namespace stator::requests
