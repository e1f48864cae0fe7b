#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/net/socket_address.h"
#include "stator/net/tls.h"
#include "stator/runtime/loop.h"

namespace stator::net {

/// Told what happens on a StreamSocket, on its loop.
class StreamHandler {
  public:
    virtual ~StreamHandler() = default;
    /// Connected, TLS handshake included. First call, unless the attempt fails.
    virtual void on_open() = 0;
    /// Bytes as they come, at most StreamOptions::read_bytes at once. The view is gone afterwards.
    virtual void on_bytes(std::string_view bytes) = 0;
    /// All of the output is with the kernel, after some of it was not.
    virtual void on_drained() = 0;
    /// The last call, exactly once, after close() and abort() too (in a later turn). kUnavailable:
    /// the peer closed or can't be reached; kDeadlineExceeded; kUnauthenticated (TLS); kCancelled:
    /// closed here.
    virtual void on_closed(const Error& why) = 0;
};

struct StreamOptions {
    std::size_t read_bytes = 64 * 1024;
    std::chrono::milliseconds connect_timeout{3'000};  ///< TLS handshake included
    std::shared_ptr<const TlsContext> tls;             ///< null = plain
};

/// One connection over TCP (TCP_NODELAY) or a Unix socket, perhaps with TLS, on one loop; every
/// method on that loop. Output is collected in out() and sent by one system call at the end of the
/// turn. Reads are fair: one read per turn and socket. Kept alive by its I/O until closed; the
/// handler must stay alive until on_closed().
class StreamSocket {
  public:
    virtual ~StreamSocket() = default;

    /// Bytes appended here leave at the end of the turn in which flush_later() is called.
    [[nodiscard]] virtual std::string& out() = 0;
    virtual void flush_later() = 0;
    /// Bytes in out() and below (TLS) that the kernel has not taken yet.
    [[nodiscard]] virtual std::size_t unsent() const = 0;
    /// While paused nothing is read and a peer's leaving may not be seen.
    virtual void pause_reading(bool paused) = 0;
    /// Sends what is in out(), then closes; at most `linger` long.
    virtual void close(std::chrono::milliseconds linger) = 0;
    void close() { close(std::chrono::milliseconds(1'000)); }
    /// Closes now (TCP: reset).
    virtual void abort() = 0;
    /// In on_closed(): the peer ended its side in order (over TLS: with a farewell), nothing was
    /// lost.
    [[nodiscard]] virtual bool peer_ended() const = 0;
    /// "127.0.0.1:51234", "unix"; for logs.
    [[nodiscard]] virtual const std::string& peer() const = 0;
    /// send() calls so far.
    [[nodiscard]] virtual std::uint64_t sends() const = 0;
};

/// Starts a connection attempt. Names are resolved without blocking the loop. On the loop.
[[nodiscard]] std::shared_ptr<StreamSocket> connect_stream(runtime::Loop& loop,
                                                           const SocketAddress& address,
                                                           StreamOptions options,
                                                           std::shared_ptr<StreamHandler> handler);

/// Makes the handler of an accepted connection; nullptr refuses it (it is closed at once). Runs on
/// the connection's loop, before on_open().
using StreamAccept = std::function<std::shared_ptr<StreamHandler>(std::shared_ptr<StreamSocket>)>;

struct ListenOptions {
    StreamOptions stream;
    /// Where it is set: asked for each accepted connection in place of stream.tls, on the
    /// connection's loop (so by several threads at once), that a reloaded certificate counts from
    /// the next connection on. null = plain.
    std::function<std::shared_ptr<const TlsContext>()> tls;
    std::size_t max_connections = 4096;  ///< beyond: accepted and closed, counted
};

/// Accepts connections and spreads them over the loops given (fewest first).
class StreamListener {
  public:
    virtual ~StreamListener() = default;
    /// As bound: port 0 is replaced by the port taken.
    [[nodiscard]] virtual const SocketAddress& address() const = 0;
    /// Stops accepting and removes a Unix socket's file. Open connections go on. Any thread but a
    /// loop's; idempotent.
    virtual void stop() = 0;
    [[nodiscard]] virtual std::uint64_t refused() const = 0;
};

/// Binds and listens. A Unix socket's stale file (nobody listens on it) is replaced; its mode is
/// 0600. Errors name the address and the system's reason.
[[nodiscard]] Result<std::unique_ptr<StreamListener>> listen_stream(runtime::LoopPool& loops,
                                                                    const SocketAddress& address,
                                                                    ListenOptions options,
                                                                    StreamAccept accept);

}  // namespace stator::net
