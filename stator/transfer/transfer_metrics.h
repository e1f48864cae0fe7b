#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/metrics/registry.h"
#include "stator/transfer/store.h"

namespace stator::transfer {

/// The room's metrics, stator_transfer_*, and how fast each method was of late. Thread-safe.
class TransferMetrics {
  public:
    /// A claim that took its bytes from this process itself.
    static constexpr std::string_view kLocal = "local";

    TransferMetrics(metrics::Registry& registry, const std::shared_ptr<Store>& store);

    void gave(std::string_view method, std::uint64_t bytes);
    void claimed(std::string_view method, std::uint64_t bytes, double seconds);
    /// A way that failed, or a claim that ended before one was tried (method "none").
    void failed(std::string_view method, ErrorCode why);
    [[nodiscard]] double bytes_per_second(std::string_view method) const;

  private:
    metrics::Counter& claims(std::string_view method, std::string_view outcome);
    metrics::Counter& bytes(std::string_view method, std::string_view direction);

    metrics::Registry& registry_;
    mutable std::mutex mutex_;
    std::map<std::string, double, std::less<>> rates_;
};

}  // namespace stator::transfer
