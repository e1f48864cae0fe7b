#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/net/http_server.h"

namespace stator::frontend {

/// The API keys, kept as keyed digests (HMAC-SHA-256 under a secret of this process). A presented
/// key is compared with all of them in constant time: neither its length nor how much of it is
/// right, nor which key matched, shows in the time. Thread-safe, immutable.
class KeyRing {
  public:
    /// Empty keys are not allowed. With a secret from the system's randomness.
    explicit KeyRing(std::span<const std::string> keys);

    /// No keys: nothing is asked of anyone.
    [[nodiscard]] bool open() const { return digests_.empty(); }
    [[nodiscard]] bool has(std::string_view presented) const { return find(presented).has_value(); }
    /// Which of the keys it is, counted from 0.
    [[nodiscard]] std::optional<std::size_t> find(std::string_view presented) const;

  private:
    using Digest = std::array<std::uint8_t, 32>;
    [[nodiscard]] Digest digest(std::string_view key) const;

    Digest secret_{};
    std::vector<Digest> digests_;
};

/// The key a request carries: `Authorization: Bearer KEY`, else `x-api-key`. Empty where there is
/// none.
[[nodiscard]] std::string_view presented_key(const net::HttpRequest& request);

}  // namespace stator::frontend
