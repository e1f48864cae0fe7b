#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <cerrno>
#include <future>
#include <optional>
#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/net/posix_socket.h"
#include "stator/net/stream_connection.h"
#include "stator/runtime/asio.h"

namespace stator::net {
namespace {

namespace asio = boost::asio;
using Acceptor = asio::basic_socket_acceptor<asio::ip::tcp, StreamIo>;

constexpr int kAcceptsPerTurn = 64;
// Without descriptors the listening socket stays readable: look again after this, not at once.
constexpr std::chrono::milliseconds kAcceptPause{100};

/// How many connections each loop has; its connections own it together with the listener.
struct Seats {
    explicit Seats(std::size_t loops) : taken(loops) {}

    [[nodiscard]] std::size_t least() const {
        const auto least = std::ranges::min_element(
            taken, {}, [](const auto& count) { return count.load(std::memory_order_relaxed); });
        return static_cast<std::size_t>(least - taken.begin());
    }

    std::vector<std::atomic<std::size_t>> taken;
    std::atomic<std::size_t> all{0};
};

std::shared_ptr<void> take_seat(const std::shared_ptr<Seats>& seats, std::size_t loop) {
    seats->taken[loop].fetch_add(1, std::memory_order_relaxed);
    seats->all.fetch_add(1, std::memory_order_relaxed);
    return {seats.get(), [seats, loop](void*) {
                seats->taken[loop].fetch_sub(1, std::memory_order_relaxed);
                seats->all.fetch_sub(1, std::memory_order_relaxed);
            }};
}

/// The socket file that is ours, so that another's in its place is left alone.
struct SocketFile {
    std::string path;
    dev_t device = 0;
    ino_t inode = 0;

    static SocketFile of(const std::string& path) {
        struct stat status{};
        if (::lstat(path.c_str(), &status) != 0) return {};
        return {.path = path, .device = status.st_dev, .inode = status.st_ino};
    }
    void remove() const {
        const SocketFile now = path.empty() ? SocketFile{} : of(path);
        if (!now.path.empty() && now.device == device && now.inode == inode) {
            ::unlink(path.c_str());
        }
    }
};

/// What the listener and its accepting share; all but the counters and stopped is loop 0's.
struct ListenerCore : std::enable_shared_from_this<ListenerCore> {
    ListenerCore(runtime::LoopPool& pool, ListenOptions listen_options, StreamAccept on_accept)
        : loops(pool),
          options(std::move(listen_options)),
          accept(std::move(on_accept)),
          seats(std::make_shared<Seats>(pool.size())),
          acceptor(runtime::asio_context(pool.at(0)).get_executor()),
          pause(runtime::asio_context(pool.at(0))) {}

    void wait_for_peers();
    void accept_ready();
    bool accept_one();
    void pause_accepting(int reason);
    void hand_over(int fd);

    runtime::LoopPool& loops;
    const ListenOptions options;
    const StreamAccept accept;
    const std::shared_ptr<Seats> seats;
    std::string name;  ///< the address, for logs
    std::atomic<std::uint64_t> refused{0};
    std::atomic<bool> stopped{false};

    Acceptor acceptor;
    asio::steady_timer pause;
    bool starved = false;  ///< said so, and not all who waited are in yet
};

void ListenerCore::wait_for_peers() {
    acceptor.async_wait(Acceptor::wait_read,
                        [self = shared_from_this()](const boost::system::error_code& ec) {
                            if (!ec) self->accept_ready();
                        });
}

void ListenerCore::accept_ready() {
    if (!acceptor.is_open()) return;
    for (int i = 0; i < kAcceptsPerTurn; ++i) {
        if (!accept_one()) return;
    }
    wait_for_peers();
}

/// False once something else will go on accepting: the next event or the end of a pause.
bool ListenerCore::accept_one() {
    const Accepted client = accept_client(acceptor.native_handle());
    switch (client.what) {
        case Accepted::What::kExhausted:
            pause_accepting(client.error);
            return false;
        case Accepted::What::kNobody:
            starved = false;
            wait_for_peers();
            return false;
        case Accepted::What::kGone:
            return true;
        case Accepted::What::kClient:
            break;
    }
    if (seats->all.load(std::memory_order_relaxed) >= options.max_connections) {
        refused.fetch_add(1, std::memory_order_relaxed);
        ::close(client.fd);
        return true;
    }
    hand_over(client.fd);
    return true;
}

void ListenerCore::hand_over(int fd) {
    const std::size_t index = seats->least();
    runtime::Loop& loop = loops.at(index);
    const bool posted =
        loop.post([self = shared_from_this(), &loop, fd, seat = take_seat(seats, index)]() mutable {
            StreamOptions stream = self->options.stream;
            if (self->options.tls) stream.tls = self->options.tls();
            const auto connection =
                std::make_shared<StreamConnection>(loop, std::move(stream), std::move(seat));
            connection->adopt(fd);
            auto handler =
                self->stopped.load(std::memory_order_acquire) ? nullptr : self->accept(connection);
            if (handler) {
                connection->start(std::move(handler), {});
            } else {
                self->refused.fetch_add(1, std::memory_order_relaxed);
                connection->abort();
            }
        });
    if (!posted) ::close(fd);  // the loop has ended: so does the process
}

void ListenerCore::pause_accepting(int reason) {
    if (!std::exchange(starved, true)) {
        log_warn("New connections have to wait: the process is out of a resource.",
                 {{"address", name},
                  {"reason", system_message(reason)},
                  {"open", seats->all.load(std::memory_order_relaxed)}});
    }
    pause.expires_after(kAcceptPause);
    pause.async_wait([self = shared_from_this()](const boost::system::error_code& ec) {
        if (!ec) self->accept_ready();
    });
}

class Listener final : public StreamListener {
  public:
    Listener(std::shared_ptr<ListenerCore> core, SocketAddress address)
        : core_(std::move(core)),
          address_(std::move(address)),
          file_(SocketFile::of(address_.path)) {}
    ~Listener() override { stop(); }
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;

    [[nodiscard]] const SocketAddress& address() const override { return address_; }
    [[nodiscard]] std::uint64_t refused() const override {
        return core_->refused.load(std::memory_order_relaxed);
    }
    void stop() override;

  private:
    std::shared_ptr<ListenerCore> core_;
    const SocketAddress address_;
    const SocketFile file_;
};

void Listener::stop() {
    if (core_->stopped.exchange(true, std::memory_order_acq_rel)) return;
    // First loop 0, which accepts; then the others, so that what it has handed over is refused
    // before this comes back.
    for (std::size_t i = 0; i < core_->loops.size(); ++i) {
        const auto done = std::make_shared<std::promise<void>>();
        auto reached = done->get_future();
        const bool posted = core_->loops.at(i).post([core = core_, done, i] {
            boost::system::error_code ignored;
            if (i == 0) {
                core->pause.cancel();
                core->acceptor.close(ignored);
            }
            done->set_value();
        });
        if (posted) reached.wait();
    }
    file_.remove();
}

}  // namespace

Result<std::unique_ptr<StreamListener>> listen_stream(runtime::LoopPool& loops,
                                                      const SocketAddress& address,
                                                      ListenOptions options, StreamAccept accept) {
    const bool tcp = address.kind == SocketAddress::Kind::kTcp;
    auto fd = tcp ? listen_tcp(address.host, address.port) : listen_unix(address.path);
    if (!fd) return tl::unexpected<Error>(std::move(fd.error()));
    SocketAddress bound = address;
    if (tcp) bound.port = bound_port(*fd);

    auto core = std::make_shared<ListenerCore>(loops, std::move(options), std::move(accept));
    core->name = to_string(bound);
    auto listener = std::make_unique<Listener>(core, bound);
    const bool posted = loops.at(0).post([core, fd = *fd] {
        boost::system::error_code ec;
        // The family is only asked for when binding, which is done.
        core->acceptor.assign(asio::ip::tcp::v4(), fd, ec);
        core->wait_for_peers();
    });
    if (!posted) {
        ::close(*fd);
        return error(ErrorCode::kUnavailable, "can't listen on {}: the loops have ended",
                     core->name);
    }
    return listener;
}

}  // namespace stator::net
