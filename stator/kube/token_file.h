#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "stator/base/clock.h"
#include "stator/base/error.h"

namespace stator::kube {

/// A bearer token that somebody else renews in a file (a kubelet does at four fifths of its life).
/// Read again each minute, and at once after the server has refused it. A file that can't be read
/// or makes no sense leaves the last good token in use. No clock of its own; not thread-safe.
class TokenFile {
  public:
    using Read = std::function<Result<std::string>()>;
    static constexpr std::chrono::seconds kReadEvery{60};
    static constexpr std::size_t kMaxBytes = 64 * 1024;

    explicit TokenFile(Read read) : read_(std::move(read)) {}

    /// What to send now; fails only as long as there has never been a good one.
    [[nodiscard]] Result<std::string> get(TimePoint now);
    /// The server has answered 401: the file is read at the next get().
    void refused() { read_at_.reset(); }
    [[nodiscard]] std::uint64_t reads() const { return reads_; }

  private:
    Read read_;
    std::string token_;
    std::optional<TimePoint> read_at_;
    std::uint64_t reads_ = 0;
};

}  // namespace stator::kube
