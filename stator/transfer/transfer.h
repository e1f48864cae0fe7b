#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/base/strong.h"
#include "stator/metrics/registry.h"
#include "stator/net/socket_address.h"
#include "stator/net/tls.h"
#include "stator/protocol/handoff.h"
#include "stator/transfer/handoff_store.h"

namespace stator::transfer {

struct TransferOptions {
    /// Claims, and hands nothing out: nothing listens, and NIXL, which takes long to start and a
    /// thread that polls, is left out unless it is the only method.
    bool takes_only = false;
    /// Which backends, best first; "shm" and "tcp" are always there, "nixl" where its library is.
    std::vector<std::string> methods{"shm", "nixl", "tcp"};
    std::uint64_t budget_bytes = 1ULL << 30;  ///< of handoffs not yet claimed, reserved ones too
    std::size_t most_unclaimed = 1024;
    std::chrono::milliseconds lease{30'000};
    /// Bytes of claims that this process works on at once; more wait.
    std::uint64_t incoming_bytes = 2ULL << 30;
    net::SocketAddress listen;          ///< of the TCP backend; port 0 takes a free one
    std::string advertise;              ///< host that others reach it by; empty = as bound
    std::uint32_t tcp_connections = 4;  ///< at most so many for one claim
    /// A claimer gives a connection up on which nothing comes of what it waits for, for so long.
    std::chrono::milliseconds tcp_silence{3'000};
    /// A producer takes back what it has granted over a connection on which nothing moves.
    std::chrono::milliseconds tcp_idle{30'000};
    bool checksums = true;                ///< of what comes over TCP
    std::string nixl_library;             ///< path of libnixl_capi.so; empty = looked for; "off"
    std::function<std::string()> secret;  ///< of links: claims over TCP prove that they know it
    std::function<std::shared_ptr<const net::TlsContext>()> tls;  ///< a server's, for `listen`
    /// A client's, for claims over TCP; both or neither. Certificates name the advertised host.
    std::function<std::shared_ptr<const net::TlsContext>()> tls_client;
};

using ClaimId = Strong<std::uint64_t, struct ClaimIdTag>;

/// What of a handoff is wanted. No parts: all.
struct ClaimOptions {
    std::vector<std::uint32_t> parts;  ///< indexes, ascending
    Deadline deadline;                 ///< never: twice the lease
};

/// Moves handoffs between processes, and within this one. Thread-safe.
class TransferPlane : public HandoffStore {
  public:
    /// Takes a handoff over: afterwards it is claimed, whatever becomes of the bytes. `done` is
    /// called exactly once, on a thread of the plane, and must not block. Tries the places in the
    /// order of our methods. Errors: kNotFound (claimed, released or expired already),
    /// kDeadlineExceeded, kCancelled, kDataLoss (checksum), kUnavailable (the other side is gone,
    /// no method in common), kExhausted (larger than all that may come in at once).
    virtual ClaimId claim(
        std::shared_ptr<const protocol::Handoff> what, ClaimOptions options,
        std::function<void(Result<std::shared_ptr<const protocol::HandoffBytes>>)> done) = 0;
    /// `done` is called with kCancelled, unless it was called. Unknown ids are ignored.
    virtual void cancel(ClaimId id) = 0;
    /// Tells whoever holds the handoff, here or elsewhere, that nobody will claim it. Best effort:
    /// it expires anyway.
    virtual void release(std::shared_ptr<const protocol::Handoff> what) = 0;

    struct Usage {
        std::size_t unclaimed = 0;
        std::uint64_t unclaimed_bytes = 0;
        std::uint64_t budget_bytes = 0;
        std::uint64_t incoming_bytes = 0;
    };
    [[nodiscard]] virtual Usage usage() const = 0;
    /// Of the backends that work here, best first.
    [[nodiscard]] virtual std::vector<std::string> methods() const = 0;
    /// Backends that were asked for and do not work, with the reason as a sentence.
    [[nodiscard]] virtual std::map<std::string, std::string> why_off() const = 0;
    /// Bytes a second of recent claims by method, as measured; 0 = none yet.
    [[nodiscard]] virtual double bytes_per_second(std::string_view method) const = 0;
    /// Ends every claim with kCancelled and forgets every handoff. Blocks; not on a loop.
    virtual void stop() = 0;
};

/// Names where this process is as far as shared memory reaches: equal for two processes that can
/// hand over through it (one boot, one network namespace), and for people to read. Empty: no two
/// can.
[[nodiscard]] std::string host_label();

[[nodiscard]] Result<std::unique_ptr<TransferPlane>> start_transfer(
    TransferOptions options, metrics::Registry& registry, const Clock& clock = Clock::real());

}  // namespace stator::transfer
