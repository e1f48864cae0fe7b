// Discovery by EndpointSlices under churn, end to end over TCP on loopback: an API server of its
// own thread that lists slices of 100 endpoints and then, at a fixed rate, replaces one endpoint in
// one slice and sends the whole slice, as the real one does; and the source `kubernetes:` on its
// loop.
//
//   bench_discovery ENDPOINTS CHANGES_PER_S SECONDS
//
// Prints a line of JSON: how late a change is told (from the moment the server writes it), and the
// CPU time of the source's thread.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "stator/base/clock.h"
#include "stator/discovery/source.h"
#include "stator/net/stream_socket.h"
#include "stator/runtime/asio.h"
#include "stator/runtime/loop.h"

namespace {

using namespace std::chrono_literals;
using namespace stator;

constexpr std::size_t kPerSlice = 100;

TimePoint now() { return Clock::real().now(); }

/// "10.a.b.c" of a number; each number is used once.
std::string address_of(std::uint32_t n) {
    return fmt::format("10.{}.{}.{}", (n >> 16) & 255, (n >> 8) & 255, n & 255);
}

/// When each change was written, for the other side to compare with.
struct Written {
    std::mutex mutex;
    std::unordered_map<std::string, TimePoint> at;
};

struct Slice {
    std::vector<std::uint32_t> endpoints;
    std::uint64_t version = 1;
};

class ApiServer {
  public:
    ApiServer(runtime::Loop& loop, std::size_t endpoints, std::size_t per_second, Written& written)
        : timer_(runtime::asio_context(loop)), per_second_(per_second), written_(written) {
        slices_.resize((endpoints + kPerSlice - 1) / kPerSlice);
        for (std::size_t i = 0; i < endpoints; ++i) {
            slices_[i / kPerSlice].endpoints.push_back(next_++);
        }
    }

    void answer(const std::shared_ptr<net::StreamSocket>& socket, const std::string& request) {
        if (request.contains("watch=1")) {
            socket->out() += "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            socket->flush_later();
            watcher_ = socket;
            return;
        }
        std::size_t from = 0;
        if (const auto at = request.find("continue="); at != std::string::npos) {
            from = std::strtoul(request.c_str() + at + 9, nullptr, 10);
        }
        const std::size_t to = std::min(from + 100, slices_.size());
        std::string body = fmt::format(R"({{"kind":"EndpointSliceList","metadata":{{)"
                                       R"("resourceVersion":"{}","continue":"{}"}},"items":[)",
                                       version_, to < slices_.size() ? std::to_string(to) : "");
        for (std::size_t i = from; i < to; ++i) {
            if (i > from) body += ',';
            append(body, i);
        }
        body += "]}";
        socket->out() += fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.size());
        socket->out() += body;
        socket->flush_later();
    }

    void churn() {
        begun_ = now();
        done_ = 0;
        tick();
    }
    void stop() { timer_.cancel(), stopped_ = true; }
    [[nodiscard]] std::uint64_t written_bytes() const { return bytes_; }

  private:
    void append(std::string& out, std::size_t i) const {
        const Slice& s = slices_[i];
        out += fmt::format(
            R"({{"metadata":{{"name":"workers-{0}","generateName":"workers-","namespace":"prod",)"
            R"("uid":"8f6a2c1e-0000-4000-8000-{0:012}","resourceVersion":"{1}","generation":{1},)"
            R"("labels":{{"endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io",)"
            R"("kubernetes.io/service-name":"workers"}}}},"addressType":"IPv4",)"
            R"("ports":[{{"name":"stator","port":7000,"protocol":"TCP"}}],"endpoints":[)",
            i, s.version);
        for (std::size_t k = 0; k < s.endpoints.size(); ++k) {
            const std::uint32_t n = s.endpoints[k];
            out += fmt::format(
                R"({}{{"addresses":["{}"],"conditions":{{"ready":true,"serving":true,)"
                R"("terminating":false}},"targetRef":{{"kind":"Pod","namespace":"prod",)"
                R"("name":"workers-6d5f8b7c9d-{:05}","uid":"1b9d6bcd-bbfd-4b2d-9b5d-{:012}"}},)"
                R"("nodeName":"ip-10-0-{}-{}.internal","zone":"eu-west-1a"}})",
                k == 0 ? "" : ",", address_of(n), n, n, n % 250, n % 199);
        }
        out += "]}";
    }

    void tick() {
        if (stopped_) return;
        const auto due = static_cast<std::uint64_t>(to_seconds(now() - begun_) *
                                                    static_cast<double>(per_second_));
        while (done_ < due && watcher_) {
            ++done_;
            const std::size_t i = place_++ % slices_.size();
            Slice& s = slices_[i];
            s.version = ++version_;
            s.endpoints[(place_ / slices_.size()) % s.endpoints.size()] = next_;
            std::string event = R"({"type":"MODIFIED","object":)";
            append(event, i);
            event += "}\n";
            {
                const std::scoped_lock lock(written_.mutex);
                written_.at[address_of(next_)] = now();
            }
            ++next_;
            bytes_ += event.size();
            watcher_->out() += fmt::format("{:x}\r\n{}\r\n", event.size(), event);
            watcher_->flush_later();
        }
        timer_.expires_after(1ms);
        timer_.async_wait([this](const boost::system::error_code& ec) {
            if (!ec) tick();
        });
    }

    boost::asio::steady_timer timer_;
    const std::size_t per_second_;
    Written& written_;
    std::vector<Slice> slices_;
    std::uint32_t next_ = 1;
    std::uint64_t version_ = 1;
    std::shared_ptr<net::StreamSocket> watcher_;
    TimePoint begun_;
    std::uint64_t done_ = 0;
    std::uint64_t place_ = 0;
    std::uint64_t bytes_ = 0;
    bool stopped_ = false;
};

class Connection final : public net::StreamHandler {
  public:
    Connection(ApiServer& server, std::shared_ptr<net::StreamSocket> socket)
        : server_(server), socket_(std::move(socket)) {}
    void on_open() override {}
    void on_bytes(std::string_view bytes) override {
        text_ += bytes;
        if (!text_.ends_with("\r\n\r\n")) return;
        server_.answer(socket_, std::exchange(text_, {}));
    }
    void on_drained() override {}
    void on_closed(const Error&) override { socket_.reset(); }

  private:
    ApiServer& server_;
    std::shared_ptr<net::StreamSocket> socket_;
    std::string text_;
};

template <typename F>
void on_loop(runtime::Loop& loop, F f) {
    std::promise<void> done;
    loop.post([&] {
        f();
        done.set_value();
    });
    done.get_future().wait();
}

double percentile(std::vector<double>& sorted, double p) {
    if (sorted.empty()) return 0;
    return sorted[std::min(sorted.size() - 1,
                           static_cast<std::size_t>(p * static_cast<double>(sorted.size())))];
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: bench_discovery ENDPOINTS CHANGES_PER_S SECONDS\n");
        return 2;
    }
    const std::size_t endpoints = std::strtoul(argv[1], nullptr, 10);
    const std::size_t rate = std::strtoul(argv[2], nullptr, 10);
    const double seconds = std::strtod(argv[3], nullptr);

    Written written;
    runtime::LoopPool server_loops(1, "api");
    server_loops.start();
    ApiServer api(server_loops.at(0), endpoints, rate, written);
    auto listener =
        net::listen_stream(server_loops, *net::parse_socket_address("127.0.0.1:0"), {},
                           [&](std::shared_ptr<net::StreamSocket> socket) {
                               return std::make_shared<Connection>(api, std::move(socket));
                           });
    if (!listener) return 1;

    runtime::Loop loop("source");
    loop.start();
    std::promise<std::size_t> first;
    std::vector<double> late_ms;
    std::size_t told = 0;
    std::size_t present = 0;
    discovery::SourceOptions options;
    options.kube.api = fmt::format("http://127.0.0.1:{}", (*listener)->address().port);
    auto source =
        discovery::make_source("kubernetes:prod/workers", loop,
                               discovery::Source::Changes([&](const discovery::Difference& d) {
                                   present += d.put.size();
                                   present -= d.gone.size();
                                   if (told++ == 0) {
                                       first.set_value(d.put.size());
                                       return;
                                   }
                                   const TimePoint at = now();
                                   const std::scoped_lock lock(written.mutex);
                                   for (const auto& c : d.put) {
                                       const auto found = written.at.find(c.address.host);
                                       if (found == written.at.end()) continue;
                                       late_ms.push_back(to_ms(at - found->second));
                                       written.at.erase(found);
                                   }
                               }),
                               options);
    if (!source) {
        std::fprintf(stderr, "%s\n", source.error().message.c_str());
        return 1;
    }
    const TimePoint asked = now();
    const std::size_t listed = first.get_future().get();
    const double list_ms = to_ms(now() - asked);
    std::this_thread::sleep_for(300ms);  // the watch is open
    double cpu_before = 0;
    double cpu_after = 0;
    on_loop(loop, [&] { cpu_before = thread_cpu_seconds(); });
    const TimePoint begin = now();
    on_loop(server_loops.at(0), [&] { api.churn(); });
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    on_loop(server_loops.at(0), [&] { api.stop(); });
    std::this_thread::sleep_for(200ms);
    on_loop(loop, [&] { cpu_after = thread_cpu_seconds(); });
    const double took = to_seconds(now() - begin);
    std::vector<double> late;
    std::size_t lost = 0;
    on_loop(loop, [&] {
        late = late_ms;
        const std::scoped_lock lock(written.mutex);
        lost = written.at.size();
        (*source)->stop();
    });
    std::ranges::sort(late);
    const double cpu = cpu_after - cpu_before;
    std::printf(
        "{\"endpoints\":%zu,\"listed\":%zu,\"list_ms\":%.3f,\"changes\":%zu,\"unseen\":%zu,"
        "\"present\":%zu,\"p50_ms\":%.4f,\"p99_ms\":%.4f,\"max_ms\":%.4f,\"cpu_share\":%.5f,"
        "\"cpu_us_per_change\":%.3f,\"event_bytes\":%.0f}\n",
        endpoints, listed, list_ms, late.size(), lost, present, percentile(late, 0.5),
        percentile(late, 0.99), late.empty() ? 0.0 : late.back(), cpu / took,
        late.empty() ? 0.0 : cpu * 1e6 / static_cast<double>(late.size()),
        late.empty() ? 0.0
                     : static_cast<double>(api.written_bytes()) / static_cast<double>(late.size()));
    loop.stop();
    (*listener)->stop();
    server_loops.stop();
    return lost == 0 && present == endpoints ? 0 : 1;
}
