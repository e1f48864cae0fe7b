#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace stator::engine {

/// What one rank of an engine shows of itself in its Prometheus text. Totals are since its start.
struct EngineRankMetrics {
    std::uint32_t rank = 0;
    std::uint32_t running = 0;
    std::uint32_t waiting = 0;
    double kv_usage = 0;               ///< of its KV cache, 0 to 1; running requests' only
    std::uint32_t block_tokens = 0;    ///< 0 = not said
    std::uint64_t kv_blocks = 0;       ///< 0 = not said
    std::uint64_t kv_tokens = 0;       ///< of SGLang, which has no blocks; 0 = not said
    std::uint64_t prefix_queries = 0;  ///< prompt tokens looked up in the prefix cache
    std::uint64_t prefix_hits = 0;     ///< and found
    std::uint64_t prompt_tokens = 0;
    std::uint64_t generated_tokens = 0;
    std::uint64_t preemptions = 0;
    bool operator==(const EngineRankMetrics&) const = default;
};

/// The ranks named in the Prometheus text of vLLM ("vllm:…", label engine), SGLang ("sglang:…" or
/// "sglang_…", label dp_rank) or TensorRT-LLM ("trtllm_…"), by rank; empty where it names nothing
/// known. At most kMostRanks. Lines that can't be read are passed over: names and labels come and
/// go with versions. One pass, which looks at nothing but the beginnings of lines that begin
/// otherwise: 100 engines are read often.
inline constexpr std::size_t kMostRanks = 1024;
[[nodiscard]] std::vector<EngineRankMetrics> read_engine_metrics(std::string_view text);

}  // namespace stator::engine
