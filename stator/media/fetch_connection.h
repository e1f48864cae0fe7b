#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/media/ip_address.h"
#include "stator/net/tls.h"
#include "stator/runtime/descriptor.h"

// Inside of the fetcher.
namespace stator::media {

/// One TCP connection to one address, perhaps with TLS; blocking, with deadlines. No name is looked
/// up here.
class FetchConnection {
  public:
    FetchConnection(const Clock& clock, const std::atomic<bool>& cancelled)
        : clock_(clock), cancelled_(cancelled) {}

    /// kUnavailable: the peer refuses or has no such certificate.
    [[nodiscard]] Result<void> connect(const IpAddress& address, std::uint16_t port,
                                       Deadline deadline);
    /// The certificate must be made for `host`.
    [[nodiscard]] Result<void> begin_tls(std::shared_ptr<const net::TlsContext> context,
                                         std::string_view host, Deadline deadline);
    [[nodiscard]] Result<void> send(std::string_view bytes, Deadline deadline);
    /// Bytes in place of what `out` held; empty once the peer has ended. `in_order`: it said so.
    [[nodiscard]] Result<void> receive(std::string& out, bool& in_order, Deadline deadline);

  private:
    /// Until the socket is ready for `events`.
    [[nodiscard]] Result<void> wait(short events, Deadline deadline) const;
    [[nodiscard]] Result<void> send_raw(std::string_view bytes, Deadline deadline) const;
    /// How many bytes came into buffer_; 0 at the end.
    [[nodiscard]] Result<std::size_t> receive_raw(Deadline deadline);

    const Clock& clock_;
    const std::atomic<bool>& cancelled_;
    std::optional<runtime::Descriptor> socket_;
    std::optional<net::TlsSession> tls_;
    std::string buffer_;
    bool ended_ = false;
};

}  // namespace stator::media
