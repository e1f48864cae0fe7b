#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/media/ip_address.h"

namespace stator::media {

/// Names to addresses. Thread-safe.
class Resolver {
  public:
    virtual ~Resolver() = default;
    /// Blocks, at most for `within`. At least one address; kUnavailable: there is none;
    /// kDeadlineExceeded: it took too long; kOverloaded: too many look-ups are under way.
    [[nodiscard]] virtual Result<std::vector<IpAddress>> resolve(
        const std::string& host, std::chrono::nanoseconds within) = 0;
};

/// As one look-up without a time limit does it: at least one address, or kUnavailable.
using LookUp = std::function<Result<std::vector<IpAddress>>(const std::string& host)>;

/// Puts a time limit on `look_up` by calling it on a thread of its own, which is left behind when
/// the time is over; at most `most` are there at once.
[[nodiscard]] std::shared_ptr<Resolver> make_resolver(LookUp look_up, std::size_t most);

/// The system's (getaddrinfo, which has no time limit). Names are absolute: search domains are not
/// tried.
[[nodiscard]] std::shared_ptr<Resolver> system_resolver();

}  // namespace stator::media
