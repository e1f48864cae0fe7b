#include "stator/transfer/packet_socket.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "stator/net/posix_socket.h"
#include "stator/runtime/asio.h"

namespace stator::transfer {
namespace {

constexpr std::size_t kMaxPacket = 4096;
constexpr std::size_t kMaxQueue = 16 * 1024;
constexpr int kPacketsPerTurn = 64;

}  // namespace

bool same_user(int fd) {
    ucred peer{};
    socklen_t length = sizeof peer;
    return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
           (peer.uid == ::geteuid() || peer.uid == 0);
}

PacketSocket::PacketSocket(runtime::Loop& loop, int fd)
    : loop_(loop), fd_(runtime::asio_context(loop), fd) {}

void PacketSocket::start(OnMessage on_message, OnClosed on_closed) {
    on_message_ = std::move(on_message);
    on_closed_ = std::move(on_closed);
    wait_readable();
}

void PacketSocket::wait_readable() {
    fd_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                   [self = shared_from_this()](const boost::system::error_code& ec) {
                       if (!ec && !self->closed_) self->on_readable();
                   });
}

void PacketSocket::on_readable() {
    for (int i = 0; i < kPacketsPerTurn && !closed_; ++i) {
        auto more = read_one();
        if (!more) {
            close(std::move(more.error()));
            return;
        }
        if (!*more) break;
    }
    if (!closed_) wait_readable();
}

Result<bool> PacketSocket::read_one() {
    std::array<char, kMaxPacket> packet;  // NOLINT: written before it is read
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    iovec to{packet.data(), packet.size()};
    msghdr header{};
    header.msg_iov = &to;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t n = ::recvmsg(fd_.native_handle(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) return false;
        return error(ErrorCode::kUnavailable, "the connection is lost: {}",
                     net::system_message(errno));
    }
    int fd = -1;
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
            c->cmsg_len == CMSG_LEN(sizeof fd)) {
            std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
        }
    }
    runtime::Descriptor descriptor(fd);
    if (n == 0) return error(ErrorCode::kUnavailable, "the other process has gone");
    std::string_view bytes(packet.data(), static_cast<std::size_t>(n));
    if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        return error(ErrorCode::kDataLoss, "a packet is too long");
    }
    auto message = take_message(bytes);
    if (!message) return tl::unexpected<Error>(std::move(message.error()));
    if (!*message || !bytes.empty()) {
        return error(ErrorCode::kDataLoss, "a packet is not one message");
    }
    const auto on_message = on_message_;
    if (auto ok = on_message(**message, descriptor); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    return true;
}

void PacketSocket::send(const Message& message, int descriptor) {
    if (closed_) return;
    if (queue_.size() >= kMaxQueue) {
        close(error(ErrorCode::kOverloaded, "the other process does not read").value());
        return;
    }
    std::string packet;
    append_message(packet, message);
    queue_.emplace_back(std::move(packet), descriptor);
    if (!waiting_writable_) flush();
}

void PacketSocket::flush() {
    while (!queue_.empty() && !closed_) {
        const int reason = send_now(queue_.front().first, queue_.front().second);
        if (reason == EAGAIN) {
            waiting_writable_ = true;
            fd_.async_wait(boost::asio::posix::stream_descriptor::wait_write,
                           [self = shared_from_this()](const boost::system::error_code& ec) {
                               self->waiting_writable_ = false;
                               if (!ec) self->flush();
                           });
            return;
        }
        if (reason != 0) {
            close(error(ErrorCode::kUnavailable, "the connection is lost: {}",
                        net::system_message(reason))
                      .value());
            return;
        }
        queue_.pop_front();
    }
}

int PacketSocket::send_now(const std::string& packet, int descriptor) {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    iovec from{const_cast<char*>(packet.data()), packet.size()};
    msghdr header{};
    header.msg_iov = &from;
    header.msg_iovlen = 1;
    if (descriptor >= 0) {
        header.msg_control = control.data();
        header.msg_controllen = control.size();
        cmsghdr* c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof descriptor);
        std::memcpy(CMSG_DATA(c), &descriptor, sizeof descriptor);
    }
    while (::sendmsg(fd_.native_handle(), &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        if (errno != EINTR) return errno;
    }
    return 0;
}

void PacketSocket::close(Error why) {
    if (closed_) return;
    closed_ = true;
    boost::system::error_code ignored;
    fd_.close(ignored);
    queue_.clear();
    on_message_ = nullptr;
    auto on_closed = std::move(on_closed_);
    on_closed_ = nullptr;
    if (!on_closed) return;
    if (!loop_.post([on_closed, why] { on_closed(why); })) on_closed(why);
}

}  // namespace stator::transfer
