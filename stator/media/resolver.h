#pragma once

#include <memory>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/media/ip_address.h"

namespace stator::media {

/// Names to addresses. Thread-safe; may block.
class Resolver {
  public:
    virtual ~Resolver() = default;
    /// At least one address, or kUnavailable.
    [[nodiscard]] virtual Result<std::vector<IpAddress>> resolve(const std::string& host) = 0;
};

/// The system's (getaddrinfo). Names are absolute: search domains are not tried.
[[nodiscard]] std::shared_ptr<Resolver> system_resolver();

}  // namespace stator::media
