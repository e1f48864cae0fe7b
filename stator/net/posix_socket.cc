#include "stator/net/posix_socket.h"
#include "stator/runtime/descriptor.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

namespace stator::net {
namespace {

using runtime::Descriptor;

constexpr int kBacklog = 1024;

/// Whether the socket file at `name` is left over from a process that is gone.
bool is_stale(const sockaddr_un& name) {
    struct stat status{};
    if (::lstat(name.sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
    const Descriptor probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 &&
           errno == ECONNREFUSED;
}

}  // namespace

std::string system_message(int error) {
    const char* text = ::strerrordesc_np(error);
    return text != nullptr ? text : "error " + std::to_string(error);
}

std::string printed(const sockaddr_storage& address, socklen_t length) {
    if (address.ss_family == AF_UNIX) return "unix";
    std::array<char, NI_MAXHOST> host{};
    std::array<char, NI_MAXSERV> port{};
    if (::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host.data(), host.size(),
                      port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return "unknown";
    }
    std::string out = host.data();
    if (address.ss_family == AF_INET6) out = "[" + out + "]";
    return out + ":" + port.data();
}

std::string peer_of(int fd) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return "unknown";
    return printed(address, length);
}

std::uint16_t bound_port(int fd) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
    if (address.ss_family == AF_INET6) {
        return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
    }
    if (address.ss_family != AF_INET) return 0;
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

Result<int> listen_tcp(const std::string& host, std::uint16_t port) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    addrinfo* found = nullptr;
    const int rc = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
    if (rc != 0) {
        return error(ErrorCode::kInvalidArgument,
                     "can't listen on '{}': not an address or a known name ({})", host,
                     ::gai_strerror(rc));
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
    // IPv4 first: "localhost" is often both, and clients that try only one try that.
    std::vector<const addrinfo*> addresses;
    for (const bool v4 : {true, false}) {
        for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
            if ((a->ai_family == AF_INET) == v4) addresses.push_back(a);
        }
    }
    int last_error = 0;
    for (const addrinfo* a : addresses) {
        Descriptor fd(
            ::socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol));
        const int on = 1;
        const int off = 0;
        if (fd.get() >= 0) {
            ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
            if (a->ai_family == AF_INET6) {
                ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
            }
            if (::bind(fd.get(), a->ai_addr, a->ai_addrlen) == 0 &&
                ::listen(fd.get(), kBacklog) == 0) {
                return fd.release();
            }
        }
        last_error = errno;
    }
    return error(ErrorCode::kUnavailable, "can't listen on {} port {}: {}", host, port,
                 system_message(last_error));
}

Result<int> listen_unix(const std::string& path) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof name.sun_path) {
        return error(ErrorCode::kInvalidArgument,
                     "can't listen on unix:{}: the path must have 1 to {} bytes", path,
                     sizeof name.sun_path - 1);
    }
    path.copy(name.sun_path, path.size());
    const auto* address = reinterpret_cast<const sockaddr*>(&name);

    Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    // Before it is bound: the file must not be open to others for a moment either.
    bool listening = fd.get() >= 0 && ::fchmod(fd.get(), S_IRUSR | S_IWUSR) == 0;
    if (listening && ::bind(fd.get(), address, sizeof name) != 0) {
        const int reason = errno;
        listening = reason == EADDRINUSE && is_stale(name) && ::unlink(path.c_str()) == 0 &&
                    ::bind(fd.get(), address, sizeof name) == 0;
        if (!listening) errno = reason;
    }
    if (!listening || ::listen(fd.get(), kBacklog) != 0) {
        return error(ErrorCode::kUnavailable, "can't listen on unix:{}: {}", path,
                     system_message(errno));
    }
    return fd.release();
}

Accepted accept_client(int listener) {
    Accepted out;
    out.fd = ::accept4(listener, reinterpret_cast<sockaddr*>(&out.address), &out.length,
                       SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (out.fd >= 0) {
        out.what = Accepted::What::kClient;
        return out;
    }
    out.error = errno;
    switch (out.error) {
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            out.what = Accepted::What::kExhausted;
            break;
        case EAGAIN:
            out.what = Accepted::What::kNobody;
            break;
        default:
            out.what = Accepted::What::kGone;
    }
    return out;
}

}  // namespace stator::net
