#include <gmock/gmock.h>
#include <malloc.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "stator/net/http_fixture.h"
#include "stator/net/http_server.h"

namespace stator::net {
namespace {

using std::chrono::milliseconds;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

const std::string kGet = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitized = true;  // freed memory stays with the sanitizer
#else
constexpr bool kSanitized = false;
#endif

double process_cpu_seconds() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::size_t resident_bytes() {
    std::ifstream file("/proc/self/statm");
    std::size_t pages = 0;
    file >> pages >> pages;
    return pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

HttpLimits hasty_limits() {
    HttpLimits limits;
    limits.header_timeout = limits.body_timeout = limits.idle_timeout = limits.write_timeout =
        milliseconds(60);
    return limits;
}

/// Limits of a minute but for one.
HttpLimits patient_limits() {
    HttpLimits limits;
    limits.header_timeout = limits.body_timeout = limits.idle_timeout = limits.write_timeout =
        milliseconds(60'000);
    return limits;
}

class HttpLimitsTest : public HttpServerTest {
  protected:
    /// The shards' sweep follows the least of the limits.
    void serve_hasty(std::chrono::milliseconds HttpLimits::* which, HttpHandler handler = echo) {
        HttpLimits limits = patient_limits();
        limits.*which = milliseconds(60);
        serve(std::move(handler), limits);
    }
};

TEST_F(HttpLimitsTest, HeaderFloodIsCutOff) {
    serve();
    RawClient client(port());
    std::string flood = "GET / HTTP/1.1\r\nHost: x\r\n";
    for (int i = 0; i < 200'000; ++i) flood += "a" + std::to_string(i) + ": b\r\n";
    std::thread sender([&] { client.send(flood); });
    EXPECT_EQ(status_of(client.read_answer().first), 431);
    client.read_all();
    client.end_sending();
    sender.join();
}

TEST_F(HttpLimitsTest, EndlessHeaderIsCutOff) {
    serve();
    RawClient client(port());
    const std::string line = "GET / HTTP/1.1\r\nHost: x\r\nA: " + std::string(20'000, 'x');
    client.send(line);
    EXPECT_EQ(status_of(client.read_answer().first), 431);
}

TEST_F(HttpLimitsTest, HugeBodyIsRefusedBeforeItIsReadAndMemoryStaysFlat) {
    serve();
    {
        RawClient warm_up(port());
        warm_up.send(kGet);
        warm_up.read_answer();
    }
    constexpr std::size_t kHuge = 200'000'000;
    const std::size_t before = resident_bytes();
    RawClient client(port());
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(kHuge) +
                "\r\n\r\n");
    const auto [head, body] = client.read_answer();
    EXPECT_EQ(status_of(head), 413);
    EXPECT_THAT(body, HasSubstr("33554432"));
    // A client that reads only when it has sent everything must get there without a reset.
    const std::string piece(1'000'000, 'x');
    for (std::size_t i = 0; i < kHuge / piece.size(); ++i) {
        if (!client.send(piece)) break;
    }
    EXPECT_LT(resident_bytes(), before + 16'000'000);
    client.end_sending();
    EXPECT_EQ(client.read_all(), "");
    EXPECT_FALSE(client.was_reset());
}

TEST_F(HttpLimitsTest, ChunkedBodyIsMeasuredToo) {
    HttpLimits limits;
    limits.max_body_bytes = 10'000;
    serve(echo, limits);
    RawClient client(port());
    std::string bytes = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (int i = 0; i < 11; ++i) bytes += "3E8\r\n" + std::string(1000, 'x') + "\r\n";
    client.send(bytes);
    EXPECT_EQ(status_of(client.read_answer().first), 413);
}

TEST_F(HttpLimitsTest, LongBodiesComeWholeAndTheirMemoryReturns) {
    const std::string body(20'000'000, 'b');
    const std::size_t before = resident_bytes();
    std::promise<std::size_t> spare;
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        const std::string taken = exchange->take_body();
        spare.set_value(taken.capacity() - taken.size());
        exchange->respond(200, "text/plain", taken == body ? "same" : "different");
    });
    RawClient client(port());
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) +
                "\r\n\r\n");
    client.send(body);
    EXPECT_EQ(client.read_answer().second, "same");
    EXPECT_GE(spare.get_future().get(), 64U);
    malloc_trim(0);
    if (!kSanitized) {
        EXPECT_LT(resident_bytes(), before + 8'000'000);
    }
}

TEST_F(HttpLimitsTest, BodiesOfAllConnectionsHaveABudget) {
    HttpLimits limits = patient_limits();
    limits.max_buffered_body_bytes = 100'000;
    std::promise<std::shared_ptr<HttpExchange>> held;
    serve(
        [&](const std::shared_ptr<HttpExchange>& exchange) {
            if (exchange->request().path == "/hold") {
                held.set_value(exchange);
            } else {
                echo(exchange);
            }
        },
        limits);
    RawClient first(port());
    first.send("POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 80000\r\n\r\n" +
               std::string(80'000, 'x'));
    auto exchange = held.get_future().get();  // its body is not taken yet: it counts

    RawClient announced(port());
    announced.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n");
    EXPECT_EQ(status_of(announced.read_answer().first), 503);
    RawClient chunked(port());
    chunked.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7530\r\n" +
                 std::string(30'000, 'x'));
    EXPECT_EQ(status_of(chunked.read_answer().first), 503);

    std::promise<void> taken;
    exchange->loop().post([&] {
        EXPECT_EQ(exchange->take_body().size(), 80'000U);
        taken.set_value();
    });
    taken.get_future().get();
    RawClient after(port());
    after.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n" +
               std::string(30'000, 'x'));
    EXPECT_EQ(status_of(after.read_answer().first), 200);
    exchange->loop().post([exchange = std::move(exchange)] { exchange->respond(200, "", ""); });
    EXPECT_EQ(status_of(first.read_answer().first), 200);
}

TEST_F(HttpLimitsTest, SlowHeadersGetA408) {
    serve_hasty(&HttpLimits::header_timeout);
    RawClient client(port());
    client.send("GET / HTTP/1.1\r\n");
    EXPECT_EQ(status_of(client.read_answer().first), 408);
    EXPECT_EQ(client.read_all(), "");
    EXPECT_EQ(server_->stats().timeouts, 1U);
}

TEST_F(HttpLimitsTest, DripFedHeadersDoNotExtendTheTime) {
    HttpLimits limits = patient_limits();
    limits.header_timeout = milliseconds(60);
    limits.max_header_bytes = limits.max_headers = 1'000'000'000;
    serve(echo, limits);
    RawClient client(port());
    std::atomic<bool> done{false};
    client.send("GET / HTTP/1.1\r\n");
    std::thread dripping([&] {
        while (!done && client.send("a: b\r\n")) std::this_thread::yield();
    });
    EXPECT_EQ(status_of(client.read_answer().first), 408);
    done = true;
    dripping.join();
}

TEST_F(HttpLimitsTest, SlowBodiesGetA408) {
    serve_hasty(&HttpLimits::body_timeout);
    RawClient client(port());
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345");
    EXPECT_EQ(status_of(client.read_answer().first), 408);
    EXPECT_EQ(client.read_all(), "");
}

TEST_F(HttpLimitsTest, SilentClientsAreClosedWithoutAWord) {
    serve_hasty(&HttpLimits::header_timeout);
    RawClient client(port());
    EXPECT_EQ(client.read_all(), "");
    EXPECT_FALSE(client.timed_out());
}

TEST_F(HttpLimitsTest, IdleConnectionsAreClosedWithoutAWord) {
    serve_hasty(&HttpLimits::idle_timeout);
    RawClient client(port());
    client.send(kGet);
    EXPECT_EQ(status_of(client.read_answer().first), 200);
    EXPECT_EQ(client.read_all(), "");
    EXPECT_FALSE(client.timed_out());
    EXPECT_FALSE(client.was_reset());
}

TEST_F(HttpLimitsTest, AHandlerMayTakeItsTime) {
    std::promise<std::shared_ptr<HttpExchange>> held;
    serve([&](const std::shared_ptr<HttpExchange>& exchange) { held.set_value(exchange); },
          hasty_limits());
    RawClient client(port());
    client.send(kGet);
    auto exchange = held.get_future().get();
    // Another connection times out meanwhile, twice over: the sweep has surely passed by.
    for (int i = 0; i < 2; ++i) RawClient(port()).read_all();
    exchange->loop().post([exchange] { exchange->respond(200, "text/plain", "late"); });
    exchange.reset();
    EXPECT_EQ(client.read_answer().second, "late");
}

/// Writes pieces, one a turn, until the client is gone.
void pour(const std::shared_ptr<HttpExchange>& exchange) {
    static const std::string piece(64 * 1024, 'x');
    if (exchange->disconnected()) return;
    exchange->write(piece);
    exchange->loop().post([exchange] { pour(exchange); });
}

TEST_F(HttpLimitsTest, AStreamNobodyReadsIsResetAtItsBound) {
    std::promise<void> lost;
    HttpLimits limits = patient_limits();
    limits.max_output_bytes = 1'000'000;
    serve(
        [&](const std::shared_ptr<HttpExchange>& exchange) {
            exchange->on_disconnect([&] { lost.set_value(); });
            exchange->begin_stream(200, "text/plain");
            pour(exchange);
        },
        limits);
    RawClient client(port());
    client.send(kGet);
    lost.get_future().get();
    client.read_all();
    EXPECT_TRUE(client.was_reset());
}

TEST_F(HttpLimitsTest, AWholeAnswerMayBeLongerThanTheBound) {
    const std::string big(10'000'000, 'x');
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->respond(200, "text/plain", big);
    });
    RawClient client(port());
    client.send(kGet + kGet);
    EXPECT_EQ(client.read_answer().second, big);
    EXPECT_EQ(client.read_answer().second, big);
}

TEST_F(HttpLimitsTest, AClientThatStopsReadingIsReset) {
    std::promise<void> lost;
    const std::string big(20'000'000, 'x');
    serve_hasty(&HttpLimits::write_timeout, [&](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->on_disconnect([&] { lost.set_value(); });
        exchange->respond(200, "text/plain", big);
    });
    RawClient client(port());
    client.send(kGet);
    lost.get_future().get();
    EXPECT_LT(client.read_all().size(), big.size());
    EXPECT_TRUE(client.was_reset());
}

TEST_F(HttpLimitsTest, SurplusConnectionsReadA503) {
    HttpLimits limits = patient_limits();
    limits.max_connections = 2;
    serve(echo, limits);
    RawClient first(port());
    RawClient second(port());
    first.send(kGet);
    second.send(kGet);
    EXPECT_EQ(status_of(first.read_answer().first), 200);
    EXPECT_EQ(status_of(second.read_answer().first), 200);
    {
        RawClient third(port());
        third.send(kGet);
        EXPECT_EQ(status_of(third.read_answer().first), 503);
        EXPECT_EQ(third.read_all(), "");
        EXPECT_FALSE(third.was_reset());
    }
    EXPECT_EQ(server_->stats().connections_refused, 1U);
    first.send(kGet);
    EXPECT_EQ(status_of(first.read_answer().first), 200);
}

TEST_F(HttpLimitsTest, OutOfDescriptorsIsSurvivedWithoutSpinning) {
#if __has_feature(address_sanitizer)
    GTEST_SKIP() << "UndefinedBehaviorSanitizer needs descriptors to look at types";
#endif
    serve();
    RawClient before(port());
    before.send(kGet);
    EXPECT_EQ(status_of(before.read_answer().first), 200);
    rlimit old{};
    getrlimit(RLIMIT_NOFILE, &old);
    std::vector<int> taken;
    const rlimit tight{.rlim_cur = 64, .rlim_max = old.rlim_max};
    setrlimit(RLIMIT_NOFILE, &tight);
    for (int fd = dup(0); fd >= 0; fd = dup(0)) taken.push_back(fd);
    ASSERT_FALSE(taken.empty());
    ::close(taken.back());
    taken.pop_back();
    RawClient late(port());  // takes the last descriptor: the server has none to accept with
    late.send(kGet);
    const double cpu_before = process_cpu_seconds();
    before.send(kGet);
    EXPECT_EQ(status_of(before.read_answer().first), 200) << "others are served on";
    EXPECT_FALSE(late.wait_readable(milliseconds(250))) << "no descriptor is free";
    EXPECT_LT(process_cpu_seconds() - cpu_before, 0.1) << "it spins";
    for (const int fd : taken) ::close(fd);
    setrlimit(RLIMIT_NOFILE, &old);
    EXPECT_EQ(status_of(late.read_answer().first), 200) << "and the late one in the end";
}

TEST_F(HttpLimitsTest, StopLetsAnswersEnd) {
    std::promise<std::shared_ptr<HttpExchange>> held;
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        exchange->begin_stream(200, "text/plain");
        exchange->write("a");
        held.set_value(exchange);
    });
    RawClient idle(port());
    RawClient busy(port());
    busy.send(kGet);
    auto exchange = held.get_future().get();
    std::thread stopping([&] { server_->stop(Deadline::never()); });
    EXPECT_EQ(idle.read_all(), "") << "closed at once";
    RawClient refused(port());
    EXPECT_EQ(refused.read_all(), "");
    exchange->loop().post([exchange] {
        exchange->write("b");
        exchange->end_stream();
    });
    exchange.reset();
    EXPECT_THAT(busy.read_all(), EndsWith("1\r\na\r\n1\r\nb\r\n0\r\n\r\n"));
    EXPECT_FALSE(busy.was_reset());
    busy.close();
    stopping.join();
    EXPECT_EQ(server_->stats().connections_open, 0U);
}

TEST_F(HttpLimitsTest, StopResetsWhatIsLeftAtItsDeadline) {
    std::promise<void> held;
    std::promise<void> lost;
    std::shared_ptr<HttpExchange> kept;
    serve([&](const std::shared_ptr<HttpExchange>& exchange) {
        kept = exchange;
        exchange->on_disconnect([&] {
            kept.reset();
            lost.set_value();
        });
        exchange->begin_stream(200, "text/plain");
        exchange->write("a");
        held.set_value();
    });
    RawClient busy(port());
    busy.send(kGet);
    held.get_future().get();
    busy.read_through("a\r\n");
    server_->stop(Deadline::after(Clock::real().now(), milliseconds(20)));
    lost.get_future().get();
    EXPECT_EQ(busy.read_all(), "");
    EXPECT_TRUE(busy.was_reset());
}

TEST_F(HttpLimitsTest, StopUnderFireLosesNothingHalf) {
    serve();
    std::atomic<bool> done{false};
    std::atomic<int> whole{0};
    std::atomic<int> torn{0};
    std::vector<std::thread> clients;
    for (int i = 0; i < 4; ++i) {
        clients.emplace_back([&] {
            while (!done) {
                RawClient client(port());
                while (client.connected() && client.send(kGet)) {
                    const auto [head, body] = client.read_answer();
                    if (head.empty()) break;
                    ++(body == "GET /a " ? whole : torn);
                }
            }
        });
    }
    while (whole.load() < 200) std::this_thread::yield();
    server_->stop(Deadline::after(Clock::real().now(), std::chrono::seconds(5)));
    done = true;
    for (auto& client : clients) client.join();
    EXPECT_EQ(torn.load(), 0);
    EXPECT_EQ(server_->stats().connections_open, 0U);
}

}  // namespace
}  // namespace stator::net
