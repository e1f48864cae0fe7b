#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "stator/base/error.h"
#include "stator/runtime/descriptor.h"
#include "stator/runtime/loop.h"
#include "stator/transfer/wire.h"

// Inside of the room.
namespace stator::transfer {

/// Messages over a Unix socket of type SOCK_SEQPACKET, one a packet, each perhaps with a
/// descriptor; on one loop.
class PacketSocket : public std::enable_shared_from_this<PacketSocket> {
  public:
    /// What came; the descriptor is -1 or the receiver's to own. An error ends the connection.
    using OnMessage =
        std::function<Result<void>(const Message& message, runtime::Descriptor& descriptor)>;
    /// The last call, exactly once, in a later turn.
    using OnClosed = std::function<void(const Error& why)>;

    PacketSocket(runtime::Loop& loop, int fd);
    void start(OnMessage on_message, OnClosed on_closed);
    /// `descriptor` must stay open until the peer has it; it does for as long as this process lives
    /// if it is the arena's.
    void send(const Message& message, int descriptor = -1);
    void close(Error why);

  private:
    void wait_readable();
    void on_readable();
    [[nodiscard]] Result<bool> read_one();
    void flush();
    /// 0, or an errno.
    [[nodiscard]] int send_now(const std::string& packet, int descriptor);

    runtime::Loop& loop_;
    boost::asio::posix::stream_descriptor fd_;
    OnMessage on_message_;
    OnClosed on_closed_;
    bool closed_ = false;
    bool waiting_writable_ = false;
    std::deque<std::pair<std::string, int>> queue_;
};

/// The process at the other end is this user's (or root's).
[[nodiscard]] bool same_user(int fd);

}  // namespace stator::transfer
