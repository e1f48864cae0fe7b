#pragma once

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/net/socket_address.h"

// Inside of the stream sockets; included by their sources alone.
namespace stator::net {

using StreamIo = boost::asio::io_context::executor_type;
using StreamFd = boost::asio::basic_stream_socket<boost::asio::generic::stream_protocol, StreamIo>;

/// One attempt to connect: resolves the name on Asio's resolver thread, then tries its addresses in
/// turn. On the loop; keeps itself alive while it works. How long it may take is its owner's
/// business.
class StreamDial : public std::enable_shared_from_this<StreamDial> {
  public:
    /// kUnavailable names the address and the reason.
    using Done = std::function<void(Result<StreamFd>)>;

    StreamDial(boost::asio::io_context& io, SocketAddress address, Done done);
    void start();
    /// `done` is not called any more.
    void cancel();

  private:
    using Endpoint = boost::asio::generic::stream_protocol::endpoint;
    using Resolver = boost::asio::ip::basic_resolver<boost::asio::ip::tcp, StreamIo>;

    void resolve();
    void try_next();
    /// 0: connected or on the way (`waiting`); else an errno.
    int begin_connect(const Endpoint& endpoint, bool& waiting);
    void wait_connected();
    void retry_soon();
    void succeed();
    void fail(const std::string& reason);

    boost::asio::io_context& io_;
    SocketAddress address_;
    Done done_;
    Resolver resolver_;
    StreamFd socket_;
    std::optional<boost::asio::steady_timer> retry_;
    std::vector<Endpoint> endpoints_;
    std::size_t next_ = 0;
    int last_error_ = 0;
};

}  // namespace stator::net
