#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "stator/base/clock.h"
#include "stator/net/stream_socket.h"
#include "stator/requests/client_link.h"
#include "stator/requests/worker_session.h"
#include "stator/runtime/loop.h"

namespace stator::requests {

struct LinkOptions {
    net::SocketAddress address;
    net::StreamOptions stream;
    ClientLinkOptions link;
};

/// A ClientLink on sockets, living on one loop: makes the control connection at once and bulk
/// connections when they are wanted; drives its timers. One attempt: after on_lost() it is done
/// (reconnecting is the owner's business, with a new Link). Every method on the loop; kept alive by
/// its sockets.
class Link {
  public:
    virtual ~Link() = default;
    [[nodiscard]] virtual Result<StreamId> open(
        std::shared_ptr<const protocol::GenerateRequest> request, std::uint32_t rank,
        std::uint64_t booking) = 0;
    virtual void cancel(StreamId stream) = 0;
    virtual void release(StreamId stream) = 0;
    [[nodiscard]] virtual Result<std::uint64_t> fetch(const Fetch& fetch) = 0;
    [[nodiscard]] virtual std::size_t open_streams() const = 0;
    /// Closes all connections; on_lost() is not called. The events object is not used afterwards.
    virtual void close() = 0;
    /// send() calls so far, all lanes.
    [[nodiscard]] virtual std::uint64_t sends() const = 0;
};

/// `events` must live until on_lost() or close().
[[nodiscard]] std::shared_ptr<Link> connect_link(runtime::Loop& loop, LinkOptions options,
                                                 ClientLinkEvents& events,
                                                 const Clock& clock = Clock::real());

/// One client's link at a worker: what LinkServer's owner talks to. On its loop.
class ServerLink {
  public:
    virtual ~ServerLink() = default;
    /// Sends at the end of the turn; see WorkerSession.
    [[nodiscard]] virtual WorkerSession& session() = 0;
    /// After a call of session().send_…: flushes at the end of the turn.
    virtual void flush() = 0;
    [[nodiscard]] virtual runtime::Loop& loop() = 0;
    /// "NAME at PEER", for logs.
    [[nodiscard]] virtual const std::string& peer() const = 0;
    virtual void close() = 0;
    [[nodiscard]] virtual std::uint64_t sends() const = 0;
};

/// Makes the receiver of one link's events, on the link's loop, when its control lane has passed
/// the handshake; lives until its on_lost(). nullptr refuses the link.
using ServerLinkAccept =
    std::function<std::shared_ptr<WorkerSessionEvents>(std::shared_ptr<ServerLink>)>;

struct LinkServerOptions {
    net::SocketAddress address;
    net::ListenOptions listen;
    WorkerSessionOptions session;
    std::size_t max_links = 1024;
    /// Asked for each new connection, so that a reloaded secret or certificate counts at once. May
    /// be empty: what listen and session say.
    std::function<std::string()> secret;
    std::function<std::shared_ptr<const net::TlsContext>()> tls;
};

/// Listens for links. Connections that fail the handshake, repeat a LinkId that is there or are too
/// many are closed, logged and counted.
class LinkServer {
  public:
    virtual ~LinkServer() = default;
    [[nodiscard]] virtual const net::SocketAddress& address() const = 0;
    /// Stops accepting; links go on.
    virtual void stop_accepting() = 0;
    /// Closes all links, returns when their on_lost() has been called. Not on a loop.
    virtual void stop() = 0;
    /// The same, but nothing more is sent, not even what is queued: peers see what they would see
    /// if the process had died.
    virtual void cut() = 0;
    struct Stats {
        std::uint64_t links = 0;  ///< open now
        std::uint64_t accepted = 0;
        std::uint64_t refused = 0;
    };
    [[nodiscard]] virtual Stats stats() const = 0;
};
[[nodiscard]] Result<std::unique_ptr<LinkServer>> listen_links(runtime::LoopPool& loops,
                                                               LinkServerOptions options,
                                                               ServerLinkAccept accept,
                                                               const Clock& clock = Clock::real());

}  // namespace stator::requests
