#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "stator/transfer/place.h"
#include "stator/transfer/transfer_fixture.h"

// What may happen on the way between two machines, and to planes that differ.
namespace stator::transfer {
namespace {

constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

/// Passes connections on, and does harm to what comes back from the server: counts its bytes over
/// all connections and changes one of them, or cuts everything there, or has nothing more to do
/// with the connections that are open then, and leaves them open.
class Proxy {
  public:
    Proxy(std::uint16_t port, std::uint64_t change_at, std::uint64_t cut_at,
          std::uint64_t stall_at = kNever)
        : port_(port), change_at_(change_at), cut_at_(cut_at), stall_at_(stall_at) {
        listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
        ::listen(listener_, 16);
        socklen_t length = sizeof address;
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
        own_port_ = ntohs(address.sin_port);
        thread_ = std::thread([this] { run(); });
    }
    ~Proxy() {
        stop_ = true;
        thread_.join();
        ::close(listener_);
    }
    Proxy(const Proxy&) = delete;
    Proxy& operator=(const Proxy&) = delete;

    /// The same handoff with the proxy in between.
    [[nodiscard]] std::shared_ptr<const protocol::Handoff> before(
        const protocol::Handoff& what) const {
        auto out = std::make_shared<protocol::Handoff>(what);
        for (auto& place : out->places) {
            auto tcp = parse_tcp_place(place.address);
            EXPECT_TRUE(tcp);
            tcp->address.port = own_port_;
            place.address = to_string(*tcp);
        }
        return out;
    }

  private:
    struct Pair {
        int client = -1;
        int server = -1;
    };

    void run() {
        std::vector<Pair> pairs;
        std::vector<Pair> stalled;
        while (!stop_) {
            std::vector<pollfd> waits{{.fd = listener_, .events = POLLIN, .revents = 0}};
            for (const Pair& p : pairs) {
                waits.push_back({.fd = p.client, .events = POLLIN, .revents = 0});
                waits.push_back({.fd = p.server, .events = POLLIN, .revents = 0});
            }
            if (::poll(waits.data(), waits.size(), 20) <= 0) continue;
            for (std::size_t i = 0; i < pairs.size(); ++i) {
                const bool open = (waits[2 * i + 1].revents == 0 || pass(pairs[i], false)) &&
                                  (waits[2 * i + 2].revents == 0 || pass(pairs[i], true));
                if (!open) close_pair(pairs[i]);
            }
            std::erase_if(pairs, [](const Pair& p) { return p.client < 0; });
            if (waits[0].revents != 0) add(pairs);
            if (passed_ >= stall_at_) {
                stalled.insert(stalled.end(), pairs.begin(), pairs.end());
                pairs.clear();
                stall_at_ = kNever;
            }
            if (passed_ >= cut_at_) {
                for (Pair& p : pairs) close_pair(p);
                pairs.clear();
            }
        }
        for (Pair& p : pairs) close_pair(p);
        for (Pair& p : stalled) close_pair(p);
    }

    void add(std::vector<Pair>& pairs) const {
        Pair pair{.client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC),
                  .server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(port_);
        if (::connect(pair.server, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
            close_pair(pair);
            return;
        }
        pairs.push_back(pair);
    }

    bool pass(const Pair& pair, bool back) {
        std::array<char, 65536> bytes{};
        const ssize_t n = ::read(back ? pair.server : pair.client, bytes.data(), bytes.size());
        if (n <= 0) return false;
        auto size = static_cast<std::size_t>(n);
        if (back) {
            if (change_at_ >= passed_ && change_at_ < passed_ + size) {
                bytes[change_at_ - passed_] ^= 0x10;
            }
            const std::uint64_t end_at = std::min(cut_at_, stall_at_);
            if (end_at < passed_ + size) size = end_at - std::min(passed_, end_at);
            passed_ += static_cast<std::uint64_t>(n);
        }
        const int to = back ? pair.client : pair.server;
        for (std::size_t sent = 0; sent < size;) {
            const ssize_t k = ::send(to, bytes.data() + sent, size - sent, MSG_NOSIGNAL);
            if (k <= 0) return false;
            sent += static_cast<std::size_t>(k);
        }
        return true;
    }

    static void close_pair(Pair& pair) {
        ::close(pair.client);
        ::close(pair.server);
        pair = {};
    }

    std::uint16_t port_;
    std::uint64_t change_at_;
    std::uint64_t cut_at_;
    std::uint64_t stall_at_;
    std::uint64_t passed_ = 0;
    int listener_ = -1;
    std::uint16_t own_port_ = 0;
    std::atomic<bool> stop_ = false;
    std::thread thread_;
};

class TransferTcp : public testing::Test {
  protected:
    /// Both in this process: a handoff's places are changed to the proxy's, so that it is not
    /// taken for one's own.
    void start(const std::string& from = "tcp", const std::string& to = "tcp") {
        producer_ = begin(from, producer_registry_);
        claimer_ = begin(to, claimer_registry_);
    }
    [[nodiscard]] std::unique_ptr<TransferPlane> begin(const std::string& name,
                                                       metrics::Registry& registry) const {
        WayOptions way;
        way.name = name.starts_with("tcp") ? "tcp+secret" : name;
        way.secret = name == "tcp" ? "" : name;
        TransferOptions options = transfer_options(way);
        if (impatient_) {
            options.tcp_silence = std::chrono::milliseconds(600);
            options.tcp_idle = std::chrono::milliseconds(900);
        }
        auto plane = start_transfer(std::move(options), registry);
        EXPECT_TRUE(plane) << plane.error().message;
        return std::move(*plane);
    }
    static std::uint16_t port_of(const protocol::Handoff& what) {
        return parse_tcp_place(what.places.front().address)->address.port;
    }
    [[nodiscard]] ClaimOptions soon() const {
        return {.parts = {},
                .deadline = Deadline::after(Clock::real().now(), std::chrono::seconds(3))};
    }

    bool impatient_ = false;  ///< with connections that do not move
    metrics::Registry producer_registry_;
    metrics::Registry claimer_registry_;
    std::unique_ptr<TransferPlane> producer_;
    std::unique_ptr<TransferPlane> claimer_;
};

TEST_F(TransferTcp, NeverTakesDamagedBytesForRightOnes) {
    start();
    std::mt19937 random(2);  // NOLINT: the same in every run
    constexpr std::uint64_t kBytes = 700'000;
    int damaged = 0;
    for (int i = 0; i < 12; ++i) {
        auto what = offer(*producer_, kBytes, 5, 1);
        ASSERT_TRUE(what) << what.error().message;
        const Proxy proxy(port_of(**what), 200 + random() % (kBytes - 1000), kNever);
        auto arrived = claim_now(*claimer_, proxy.before(**what), soon());
        ASSERT_FALSE(arrived);
        if (arrived.error().code == ErrorCode::kDataLoss) ++damaged;
    }
    EXPECT_GE(damaged, 10);  // the others hit a frame's head
    EXPECT_TRUE(
        wait_until([this] { return metric(producer_registry_, "stator_transfer_granted") == 0; }));
}

TEST_F(TransferTcp, SaysThatTheConnectionWasCutWhereverThatIs) {
    start();
    std::mt19937 random(3);                       // NOLINT: the same in every run
    constexpr std::uint64_t kBytes = 20'000'000;  // several connections
    for (int i = 0; i < 12; ++i) {
        auto what = offer(*producer_, kBytes, 5, 1);
        ASSERT_TRUE(what) << what.error().message;
        const std::uint64_t at = i % 3 == 0 ? random() % 200 : random() % kBytes;
        const Proxy proxy(port_of(**what), kNever, at);
        auto arrived = claim_now(*claimer_, proxy.before(**what));
        ASSERT_FALSE(arrived);
        EXPECT_EQ(arrived.error().code, ErrorCode::kUnavailable) << arrived.error().message;
        producer_->release(*what);
    }
    EXPECT_TRUE(wait_until([this] {
        return metric(producer_registry_, "stator_transfer_granted") == 0 &&
               producer_->usage().unclaimed == 0;
    }));
    EXPECT_EQ(claimer_->usage().incoming_bytes, 0U);
}

TEST_F(TransferTcp, GivesUpAConnectionThatHasFallenSilent) {
    impatient_ = true;
    start("tcp secret", "tcp secret");
    constexpr std::uint64_t kBytes = 20'000'000;  // several connections
    // In the handshake, the grant, the bytes that come unasked, those that are fetched.
    for (const std::uint64_t at : {std::uint64_t{10}, std::uint64_t{120}, std::uint64_t{500'000},
                                   std::uint64_t{10'000'000}}) {
        auto what = offer(*producer_, kBytes, 5, 1);
        ASSERT_TRUE(what) << what.error().message;
        const Proxy proxy(port_of(**what), kNever, kNever, at);
        auto arrived = claim_now(*claimer_, proxy.before(**what));
        ASSERT_FALSE(arrived) << at;
        EXPECT_EQ(arrived.error().code, ErrorCode::kUnavailable);
        EXPECT_NE(arrived.error().message.find("silent"), std::string::npos)
            << arrived.error().message;
        EXPECT_EQ(claimer_->usage().incoming_bytes, 0U);
        producer_->release(*what);
        // The next claim has a new connection.
        auto next = offer(*producer_, 1'000'000, 2, 3);
        ASSERT_TRUE(next);
        auto good = claim_now(*claimer_, proxy.before(**next));
        ASSERT_TRUE(good) << good.error().message;
        EXPECT_TRUE(right(**good, 3));
    }
}

TEST_F(TransferTcp, TakesBackWhatIsGrantedOverAConnectionThatDoesNotMove) {
    impatient_ = true;
    start();
    auto what = offer(*producer_, 5'000'000, 5, 1);
    ASSERT_TRUE(what);
    const Proxy proxy(port_of(**what), kNever, kNever, 3'000'000);
    std::promise<Arrived> ended;
    claimer_->claim(proxy.before(**what), {},
                    [&](Arrived arrived) { ended.set_value(std::move(arrived)); });
    const auto granted = [this] { return metric(producer_registry_, "stator_transfer_granted"); };
    ASSERT_TRUE(wait_until([&] { return granted() == 1; }));
    // The proxy's other side stays open, as a middlebox's does.
    EXPECT_FALSE(ended.get_future().get());
    EXPECT_TRUE(wait_until([&] { return granted() == 0; }));
}

TEST_F(TransferTcp, GivesNothingToWhoDoesNotKnowTheSecret) {
    for (const auto& [from, to] : {std::pair("tcp secret", "tcp other"),
                                   std::pair("tcp secret", "tcp"), std::pair("tcp", "tcp other")}) {
        start(from, to);
        auto what = offer(*producer_, 1000, 1, 1);
        ASSERT_TRUE(what);
        auto arrived = claim_now(*claimer_, *what, soon());
        ASSERT_FALSE(arrived);
        EXPECT_EQ(arrived.error().code, ErrorCode::kUnavailable) << arrived.error().message;
        EXPECT_NE(arrived.error().message.find("secret"), std::string::npos);
        EXPECT_EQ(producer_->usage().unclaimed, 1U);
    }
}

TEST_F(TransferTcp, WaitsWhileTooMuchComesInAtOnce) {
    producer_ = begin("tcp", producer_registry_);
    WayOptions way;
    way.name = "tcp";
    TransferOptions options = transfer_options(way);
    options.incoming_bytes = 4 << 20;
    auto plane = start_transfer(options, claimer_registry_);
    ASSERT_TRUE(plane);
    std::atomic<int> good = 0;
    std::atomic<int> ended = 0;
    std::promise<void> done;
    for (int i = 0; i < 30; ++i) {
        auto what = offer(*producer_, 3 << 20, 2, 5);
        ASSERT_TRUE(what);
        (*plane)->claim(*what, {}, [&](Arrived arrived) {
            if (arrived && right(**arrived, 5)) ++good;
            if (++ended == 30) done.set_value();
        });
        EXPECT_LE((*plane)->usage().incoming_bytes, 4U << 20);
    }
    ASSERT_EQ(done.get_future().wait_for(kPatience), std::future_status::ready);
    EXPECT_EQ(good, 30);
    auto large = offer(*producer_, (4 << 20) + 1, 1, 5);
    ASSERT_TRUE(large);
    auto refused = claim_now(**plane, *large);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kExhausted);
    // Arrived bytes that are kept take the memory; who claims then waits until they go.
    std::vector<std::shared_ptr<const protocol::HandoffBytes>> kept;
    for (int i = 0; i < 2; ++i) {
        auto what = offer(*producer_, 4 << 20, 1, 6);
        ASSERT_TRUE(what);
        auto arrived = claim_now(**plane, *what);
        ASSERT_TRUE(arrived);
        kept.push_back(*arrived);
    }
    auto what = offer(*producer_, 4 << 20, 1, 7);
    ASSERT_TRUE(what);
    std::promise<Arrived> waits;
    (*plane)->claim(*what, {}, [&](Arrived arrived) { waits.set_value(std::move(arrived)); });
    auto future = waits.get_future();
    EXPECT_EQ(future.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
    kept.pop_back();
    ASSERT_EQ(future.wait_for(kPatience), std::future_status::ready);
    auto arrived = future.get();
    ASSERT_TRUE(arrived) << arrived.error().message;
    EXPECT_TRUE(right(**arrived, 7));
}

TEST_F(TransferTcp, GoesAnotherWayWhereTheFirstOneFails) {
    TransferOptions options;
    options.nixl_library = "off";
    auto producer = start_transfer(options, producer_registry_);
    ASSERT_TRUE(producer) << producer.error().message;
    EXPECT_EQ((*producer)->methods(), (std::vector<std::string>{"shm", "tcp"}));
    EXPECT_EQ((*producer)->why_off().count("nixl"), 1U);
    auto claimer = start_transfer(options, claimer_registry_);
    ASSERT_TRUE(claimer);
    auto what = offer(**producer, 100'000, 2, 8);
    ASSERT_TRUE(what);
    auto elsewhere = std::make_shared<protocol::Handoff>(**what);
    elsewhere->places[0].address = to_string(ShmPlace{.host = "another machine", .plane = {}});
    auto arrived = claim_now(**claimer, elsewhere);
    ASSERT_TRUE(arrived) << arrived.error().message;
    EXPECT_TRUE(right(**arrived, 8));
    EXPECT_GT((*claimer)->bytes_per_second("tcp"), 0);
    EXPECT_EQ((*claimer)->bytes_per_second("shm"), 0);
}

TEST_F(TransferTcp, HasNoTimeForWhatIsTooLate) {
    start();
    auto what = offer(*producer_, 1000, 1, 1);
    ASSERT_TRUE(what);
    auto late =
        claim_now(*claimer_, *what, {.parts = {}, .deadline = Deadline::at(Clock::real().now())});
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, ErrorCode::kDeadlineExceeded);
    EXPECT_TRUE(wait_until([this] { return producer_->usage().unclaimed == 0; }));  // released
    auto nowhere = std::make_shared<protocol::Handoff>(**what);
    nowhere->places = {{.method = "carrier pigeon", .address = "north"}};
    auto no_way = claim_now(*claimer_, nowhere);
    ASSERT_FALSE(no_way);
    EXPECT_EQ(no_way.error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace stator::transfer
