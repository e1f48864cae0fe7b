#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "stator/base/error.h"
#include "stator/net/socket_address.h"
#include "stator/net/tls.h"
#include "stator/runtime/loop.h"
#include "stator/transfer/nixl_mover.h"
#include "stator/transfer/store.h"
#include "stator/transfer/tcp_stream.h"

// Inside of the room.
namespace stator::transfer {

struct TcpProducerOptions {
    PlaneId plane{};
    net::SocketAddress listen;
    std::function<std::string()> secret;
    std::function<std::shared_ptr<const net::TlsContext>()> tls;
    NixlMover* nixl = nullptr;  ///< null = none; must outlive the producer
    /// What is granted is taken back when its connection has not moved for this time: the claimer
    /// has stopped, or something between swallows everything.
    std::chrono::milliseconds idle{30'000};
    /// Bytes that left, by method "tcp" or "nixl".
    std::function<void(bool nixl, std::uint64_t bytes)> sent;
};

/// Hands this process's handoffs out over TCP: accepts connections on one loop and spreads them
/// over others.
class TcpProducer : public std::enable_shared_from_this<TcpProducer> {
  public:
    [[nodiscard]] static Result<std::shared_ptr<TcpProducer>> start(runtime::Loop& main,
                                                                    runtime::LoopPool& movers,
                                                                    std::shared_ptr<Store> store,
                                                                    TcpProducerOptions options);
    [[nodiscard]] std::uint16_t port() const { return port_; }
    /// Closes the listener and every connection. Not on a loop; blocks.
    void stop();

  private:
    class Session;
    TcpProducer(runtime::Loop& main, runtime::LoopPool& movers, std::shared_ptr<Store> store,
                TcpProducerOptions options, int fd);
    void wait_client();
    void accept_all();
    void begin(int fd);
    void forget(Store::Owner owner);

    runtime::Loop& main_;
    runtime::LoopPool& movers_;
    std::shared_ptr<Store> store_;
    TcpProducerOptions options_;
    std::uint16_t port_ = 0;
    boost::asio::posix::stream_descriptor listener_;
    boost::asio::steady_timer pause_;
    std::size_t next_mover_ = 0;

    std::mutex mutex_;
    bool stopped_ = false;
    std::map<Store::Owner, std::pair<runtime::Loop*, std::weak_ptr<TcpStream>>> streams_;
};

/// For Store::claim(): numbers of connections of this process, never 0.
[[nodiscard]] Store::Owner next_owner();

}  // namespace stator::transfer
