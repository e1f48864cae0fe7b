#include "stator/net/http_server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <future>
#include <optional>
#include <utility>

#include "stator/base/log.h"
#include "stator/net/http_names.h"
#include "stator/net/http_shard.h"
#include "stator/net/posix_socket.h"
#include "stator/runtime/asio.h"

namespace stator::net {
namespace {

namespace asio = boost::asio;
using Acceptor = asio::basic_socket_acceptor<asio::ip::tcp, asio::io_context::executor_type>;

constexpr int kAcceptsPerTurn = 64;
// Without descriptors the listening socket stays readable: look again after this, not at once.
constexpr std::chrono::milliseconds kAcceptPause{100};
// Beyond max_connections so many get to read a 503; the rest is closed without a word.
constexpr std::size_t kSurplusAnswered = 64;

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
    for (const auto& h : headers) {
        if (same_name(h.name, name)) return h.value;
    }
    return {};
}

struct HttpServer::Impl : std::enable_shared_from_this<HttpServer::Impl> {
    Impl(runtime::LoopPool& pool, HttpLimits limits, HttpHandler handler, HttpErrorBody error_body,
         const Clock& clock)
        : loops(pool),
          core(std::make_shared<HttpServerCore>(limits, std::move(handler), std::move(error_body),
                                                clock)) {
        for (std::size_t i = 0; i < loops.size(); ++i) {
            shards.push_back(HttpShard::make(core, loops.at(i)));
        }
    }

    void wait_for_clients();
    void accept_ready();
    bool accept_one();
    void pause_accepting(int error);
    void stop_accepting();
    bool wait_all_closed(Deadline deadline);
    void on_every_loop(const std::function<void(HttpShard&)>& f);

    runtime::LoopPool& loops;
    std::shared_ptr<HttpServerCore> core;
    std::vector<std::shared_ptr<HttpShard>> shards;
    std::uint16_t bound_port = 0;
    bool stopped = false;

    // Of loop 0 while it runs.
    std::optional<Acceptor> acceptor;
    std::optional<asio::steady_timer> pause;
    std::optional<TimePoint> last_complaint;
    std::atomic<std::uint64_t> accepted{0};
    std::atomic<std::uint64_t> refused{0};
};

void HttpServer::Impl::wait_for_clients() {
    if (!acceptor) return;
    acceptor->async_wait(Acceptor::wait_read,
                         [self = shared_from_this()](const boost::system::error_code& ec) {
                             if (!ec) self->accept_ready();
                         });
}

void HttpServer::Impl::accept_ready() {
    if (!acceptor) return;
    for (int i = 0; i < kAcceptsPerTurn; ++i) {
        if (!accept_one()) return;
    }
    wait_for_clients();
}

/// False once something else will go on accepting: the next event or the end of a pause.
bool HttpServer::Impl::accept_one() {
    const Accepted client = accept_client(acceptor->native_handle());
    switch (client.what) {
        case Accepted::What::kExhausted:
            pause_accepting(client.error);
            return false;
        case Accepted::What::kNobody:
            wait_for_clients();
            return false;
        case Accepted::What::kGone:
            return true;
        case Accepted::What::kClient:
            break;
    }
    const int fd = client.fd;
    accepted.fetch_add(1, std::memory_order_relaxed);
    const std::size_t open = core->open.load(std::memory_order_relaxed);
    const bool surplus = open >= core->limits.max_connections;
    if (surplus) refused.fetch_add(1, std::memory_order_relaxed);
    if (open >= core->limits.max_connections + kSurplusAnswered) {
        ::close(fd);
        return true;
    }
    const auto least =
        *std::ranges::min_element(shards, {}, [](const auto& s) { return s->open(); });
    least->count_coming();
    const bool posted =
        least->loop().post([least, fd, peer = printed(client.address, client.length), surplus] {
            least->adopt(fd, peer, surplus);
        });
    if (!posted) ::close(fd);  // the loop has ended: so does the process
    return true;
}

void HttpServer::Impl::pause_accepting(int error) {
    const TimePoint now = core->clock.now();
    if (!last_complaint || now - *last_complaint > std::chrono::seconds(10)) {
        last_complaint = now;
        log_warn("New connections have to wait: the process is out of a resource.",
                 {{"reason", system_message(error)},
                  {"open", core->open.load(std::memory_order_relaxed)}});
    }
    pause->expires_after(kAcceptPause);
    pause->async_wait([self = shared_from_this()](const boost::system::error_code& ec) {
        if (!ec) self->accept_ready();
    });
}

void HttpServer::Impl::stop_accepting() {
    if (pause) pause->cancel();
    acceptor.reset();
}

bool HttpServer::Impl::wait_all_closed(Deadline deadline) {
    std::unique_lock lock(core->mutex);
    const auto none_open = [this] { return core->open.load(std::memory_order_acquire) == 0; };
    if (deadline.is_never()) {
        core->all_closed.wait(lock, none_open);
        return true;
    }
    return core->all_closed.wait_for(lock, deadline.left(core->clock.now()), none_open);
}

/// Runs `f` for each shard on its loop and waits until all are done.
void HttpServer::Impl::on_every_loop(const std::function<void(HttpShard&)>& f) {
    std::vector<std::future<void>> done;
    for (const auto& shard : shards) {
        auto promise = std::make_shared<std::promise<void>>();
        auto future = promise->get_future();
        if (shard->loop().post([&f, shard, promise] {
                f(*shard);
                promise->set_value();
            })) {
            done.push_back(std::move(future));
        }
    }
    for (auto& future : done) future.wait();
}

HttpServer::HttpServer(runtime::LoopPool& loops, HttpLimits limits, HttpHandler handler,
                       HttpErrorBody error_body, const Clock& clock)
    : impl_(std::make_shared<Impl>(loops, limits, std::move(handler), std::move(error_body),
                                   clock)) {}

HttpServer::~HttpServer() { stop(Deadline::at(impl_->core->clock.now())); }

Result<void> HttpServer::listen(const std::string& host, std::uint16_t port) {
    auto fd = listen_tcp(host, port);
    if (!fd) return tl::unexpected<Error>(std::move(fd.error()));
    impl_->bound_port = bound_port(*fd);
    const bool posted = impl_->loops.at(0).post([impl = impl_, fd = *fd] {
        auto& io = runtime::asio_context(impl->loops.at(0));
        impl->acceptor.emplace(io);
        impl->pause.emplace(io);
        // The family is only asked for when binding, which is done.
        impl->acceptor->assign(asio::ip::tcp::v4(), fd);
        impl->wait_for_clients();
    });
    if (!posted) {
        ::close(*fd);
        return error(ErrorCode::kUnavailable, "can't listen on {} port {}: the loops have ended",
                     host, port);
    }
    return {};
}

std::uint16_t HttpServer::port() const { return impl_->bound_port; }

void HttpServer::stop(Deadline deadline) {
    if (std::exchange(impl_->stopped, true)) return;
    impl_->core->stopping.store(true, std::memory_order_relaxed);
    impl_->on_every_loop([impl = impl_.get()](HttpShard& shard) {
        if (&shard == impl->shards[0].get()) impl->stop_accepting();
    });
    impl_->on_every_loop([](HttpShard& shard) { shard.begin_stop(); });
    if (!impl_->wait_all_closed(deadline)) {
        impl_->on_every_loop([](HttpShard& shard) { shard.reset_all(); });
    }
    // Once more round: what closing has cancelled is over when this comes back.
    impl_->on_every_loop([](HttpShard&) {});
}

HttpServerStats HttpServer::stats() const {
    HttpServerStats stats;
    stats.connections_accepted = impl_->accepted.load(std::memory_order_relaxed);
    stats.connections_refused = impl_->refused.load(std::memory_order_relaxed);
    for (const auto& shard : impl_->shards) shard->add_stats(stats);
    return stats;
}

}  // namespace stator::net
