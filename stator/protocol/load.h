#pragma once

#include <cstdint>

namespace stator::protocol {

/// What a rank holds and has queued at one moment. All counts are of this rank alone.
struct LoadReport {
    std::uint32_t running = 0;  ///< sequences in prefill or decode
    std::uint32_t waiting = 0;  ///< admitted, not yet started
    std::uint32_t running_limit = 0;
    std::uint32_t waiting_limit = 0;
    std::uint64_t waiting_tokens = 0;    ///< prompt tokens of those waiting
    std::uint64_t kv_used_tokens = 0;    ///< KV that running sequences need
    std::uint64_t kv_cached_tokens = 0;  ///< KV kept only for reuse, in whatever memory
    std::uint64_t kv_total_tokens = 0;
    std::uint32_t unclaimed_handoffs = 0;  ///< that its legs have left and nobody has taken yet
    std::uint64_t unclaimed_bytes = 0;
    std::uint64_t unclaimed_limit = 0;  ///< bytes; 0 = makes no handoffs
    bool operator==(const LoadReport&) const = default;
};

/// Totals since start, of what the forward passes did. Readers take differences.
struct ForwardPassMetrics {
    std::uint64_t steps = 0;
    std::uint64_t prefill_tokens = 0;  ///< prompt tokens computed, cached ones not included
    std::uint64_t decode_tokens = 0;
    std::uint64_t cached_tokens = 0;  ///< prompt tokens taken from the prefix cache
    std::uint64_t preemptions = 0;
    double model_seconds = 0.0;         ///< wall time inside the model
    double model_cpu_seconds = 0.0;     ///< CPU time of the engine's thread inside the model
    double engine_cpu_seconds = 0.0;    ///< CPU time of the engine's thread outside the model
    std::uint64_t guided_tokens = 0;    ///< generated under a constraint
    double guide_seconds = 0.0;         ///< of engine_cpu_seconds: for which tokens those might be
    std::uint64_t exported_tokens = 0;  ///< whose KV prefill legs have left
    std::uint64_t imported_tokens = 0;  ///< prompt tokens whose KV came by handoff
    std::uint64_t refused_imports = 0;  ///< decode legs whose KV came and could not be used
    double handoff_seconds = 0.0;       ///< wall time of exports and imports
    bool operator==(const ForwardPassMetrics&) const = default;
};

}  // namespace stator::protocol
