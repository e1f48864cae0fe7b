#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "stator/base/error.h"
#include "stator/cli/stop_signal.h"
#include "stator/config/settings.h"
#include "stator/net/socket_address.h"
#include "stator/net/tls.h"

namespace stator::cli {

/// What the processes of a fleet prove to each other, read from the files that the settings name.
/// Thread-safe; connections ask for it when they are made, so a reload counts for new ones.
class LinkSecurity {
  public:
    enum class Side : unsigned char { kFrontend, kWorker };

    /// kInvalidArgument names option and file: a certificate without a key, an empty secret, a
    /// secret file that others may read.
    [[nodiscard]] static Result<std::shared_ptr<LinkSecurity>> read(
        const config::LinkSettings& settings, Side side);

    [[nodiscard]] std::string secret() const;
    /// Null: no TLS.
    [[nodiscard]] std::shared_ptr<const net::TlsContext> tls() const;
    /// For connections to other workers; null: no TLS. A worker's is made of the same files.
    [[nodiscard]] std::shared_ptr<const net::TlsContext> client_tls() const;
    /// Reads the files again; on an error everything stays as it was.
    [[nodiscard]] Result<void> reload();
    /// Whether there are files to read again.
    [[nodiscard]] bool reloadable() const;

  private:
    LinkSecurity(config::LinkSettings settings, Side side)
        : settings_(std::move(settings)), side_(side) {}

    const config::LinkSettings settings_;
    const Side side_;
    mutable std::mutex mutex_;
    std::string secret_;
    std::shared_ptr<const net::TlsContext> tls_;
    std::shared_ptr<const net::TlsContext> client_tls_;
};

/// Waits for the signal that ends a server and gives its number. SIGHUP reads `security` again and
/// logs how that went; then `other` gets it, as it does every further signal that `stop` was made
/// with.
[[nodiscard]] int wait_for_end(StopSignal& stop, LinkSecurity& security,
                               const std::function<void(int signal)>& other = {});

/// Refuses to take links from other machines where nothing is asked of them (a secret, or a
/// certificate that the authorities signed), unless that was asked for.
[[nodiscard]] Result<void> check_link_bind(const net::SocketAddress& listen,
                                           const config::LinkSettings& settings,
                                           bool allow_unauthenticated);

}  // namespace stator::cli
