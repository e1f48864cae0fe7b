#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::kube {

/// A Lease (coordination.k8s.io/v1) as a leader election uses it. Times are as the server has them,
/// texts that are kept but never compared with a clock.
struct Lease {
    std::string version;  ///< resourceVersion; empty: it is not there yet
    std::string holder;   ///< empty: nobody
    std::int64_t duration_seconds = 0;
    std::string acquired;
    std::string renewed;
    std::int64_t transitions = 0;
    bool operator==(const Lease&) const = default;
};

/// kDataLoss: no JSON, or no Lease.
[[nodiscard]] Result<Lease> parse_lease(std::string_view json);
[[nodiscard]] std::string format_lease(const Lease& lease, std::string_view in_namespace,
                                       std::string_view name);
/// "2026-01-02T03:04:05.000000Z", as a Lease wants it.
[[nodiscard]] std::string micro_time(std::int64_t unix_seconds);

}  // namespace stator::kube
