#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

namespace stator::frontend {

/// Whether a client's x-request-id is taken over: 1 to 128 of [A-Za-z0-9._:-]. Anything else could
/// break logs.
[[nodiscard]] bool valid_request_id(std::string_view id);

/// Ids that do not repeat within a process and hardly ever between processes. Thread-safe.
class IdSource {
  public:
    explicit IdSource(std::uint64_t seed) : next_(seed) {}
    /// `prefix` and 16 hexadecimal digits.
    [[nodiscard]] std::string next(std::string_view prefix);
    /// "call_" and 24 letters and digits, as OpenAI names calls of tools.
    [[nodiscard]] std::string next_call();

  private:
    [[nodiscard]] std::uint64_t draw();

    std::atomic<std::uint64_t> next_;
};

}  // namespace stator::frontend
