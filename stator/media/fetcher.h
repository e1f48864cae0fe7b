#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/media/media_url.h"
#include "stator/media/resolver.h"
#include "stator/net/tls.h"

namespace stator::media {

struct FetchOptions {
    bool allow_http = false;     ///< without TLS, too
    bool allow_private = false;  ///< addresses that are not public, and every port; for tests and
                                 ///< for media servers inside, then with `hosts`
    std::vector<IpAddress> allowed_addresses;  ///< though they are not public
    /// Where not empty, only these: "images.example.org", "*.example.org" (not example.org itself).
    std::vector<std::string> hosts;
    std::uint32_t max_redirects = 0;
    std::uint64_t max_bytes = 16ULL * 1024 * 1024;
    std::chrono::milliseconds connect_timeout{3'000};  ///< of each address, and of TLS
    std::chrono::milliseconds total_timeout{15'000};   ///< from the name to the last byte
    /// On the average, once the body has taken `rate_after`.
    std::uint64_t min_bytes_per_second = 4096;
    std::chrono::milliseconds rate_after{2'000};
    std::shared_ptr<const net::TlsContext> tls;  ///< null: https is refused
};

/// Gets what a client's URL leads to, and nothing that the client could not get itself: one parser
/// (media_url.h), one look-up whose every address is checked, and a connection to one of just these
/// addresses. Redirects are checked in the same way. Answers are taken without content coding, as
/// image, video or octet-stream. No cookies, no credentials, no proxy. Thread-safe; blocks the
/// caller, at most for total_timeout.
class Fetcher {
  public:
    Fetcher(FetchOptions options, std::shared_ptr<Resolver> resolver, const Clock& clock);

    /// The body. kInvalidArgument: not such a URL; kPermissionDenied: it leads where nobody may
    /// (scheme, host, port, address, redirect); kUnavailable: no address, no connection, or another
    /// status than 200; kUnsupported: type or coding; kTooLarge; kDataLoss: cut short or not HTTP;
    /// kDeadlineExceeded: too slow, or `deadline`; kCancelled.
    [[nodiscard]] Result<std::string> fetch(std::string_view url, Deadline deadline,
                                            const std::atomic<bool>& cancelled) const;

    /// Where fetch() would connect to first: the checks without the connection. Looks names up.
    struct Destination {
        MediaUrl url;
        std::vector<IpAddress> addresses;
    };
    [[nodiscard]] Result<Destination> check(std::string_view url) const;

  private:
    [[nodiscard]] Result<Destination> check(Result<MediaUrl> url, Deadline deadline) const;
    /// Says which limit it was that a deadline came of. `over`: the whole fetch's.
    [[nodiscard]] Error with_limit(Error why, bool connected, bool over) const;
    [[nodiscard]] Result<void> check_url(const MediaUrl& url) const;
    [[nodiscard]] Result<std::vector<IpAddress>> checked_addresses(const MediaUrl& url,
                                                                   Deadline deadline) const;

    const FetchOptions options_;
    const std::shared_ptr<Resolver> resolver_;
    const Clock& clock_;
};

}  // namespace stator::media
