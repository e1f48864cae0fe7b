#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/tokens/token.h"

namespace stator::engine {

/// What a block's hash depends on besides its tokens, as vLLM publishes it: a picture with the
/// place where it begins, counted from the block's first token, or a text (an adapter's name, a
/// salt) without one.
struct EngineExtraKey {
    std::uint32_t block = 0;  ///< of the event's blocks
    std::string_view text;
    std::optional<std::int64_t> offset;
};

/// One event of an engine's prefix cache in the engine's own words. Views are into the payload.
struct EngineKvEvent {
    enum class Kind : std::uint8_t {
        kStored,
        kRemoved,
        kCleared,
        kUnknown,  ///< of a type, or in a shape, that is not known here: to be passed over
    };
    Kind kind = Kind::kUnknown;
    /// 64 bits: of integers the bits, of binaries the last eight bytes, big-endian (vLLM's integers
    /// are those of its binaries).
    std::vector<std::uint64_t> hashes;
    std::optional<std::uint64_t> parent;  ///< of the first block; none = a root
    std::vector<tokens::TokenId> tokens;
    bool tokens_known = true;  ///< false: some were no integers of 32 bits
    std::uint32_t block_tokens = 0;
    std::string_view lora;  ///< the adapter's name; empty: none, or only an id
    std::optional<std::int64_t> lora_id;
    std::string_view salt;    ///< SGLang's own field
    std::string_view medium;  ///< "GPU", "CPU", …; empty: not said, the device's
    bool shared = false;      ///< locality REMOTE: in a store of several engines
    std::vector<EngineExtraKey> extra;
    bool has_extra_keys = false;  ///< the engine names them at all, so that salts show
    std::uint32_t group = 0;      ///< of KV, in models that have several
    std::string_view spec_kind;   ///< "full_attention", "sliding_window", …; empty: not said

    void clear();
};

/// One message: events in order.
struct EngineKvBatch {
    double time = 0;  ///< seconds since 1970, by the engine's clock
    std::optional<std::uint32_t> rank;
    [[nodiscard]] std::span<const EngineKvEvent> events() const {
        return std::span(pool_).first(count_);
    }

  private:
    friend class EngineBatchReader;
    EngineKvEvent& add();
    void clear();
    std::vector<EngineKvEvent> pool_;  // kept, so that the next batch allocates nothing
    std::size_t count_ = 0;
};

/// Reads the payload of vLLM's, SGLang's or TensorRT-LLM's ZeroMQ messages: MessagePack, the batch
/// an array [time, events, rank?], events either arrays in the order of their fields (vLLM up to
/// about 0.22, SGLang up to summer 2026) or maps with "type". Untrusted: events and fields that are
/// not known are passed over, what lacks is absent, bytes that are no MessagePack are
/// kInvalidArgument. `batch` views `payload`.
/// Sources: vllm/distributed/kv_events.py, sglang/srt/disaggregation/kv_events.py,
/// tensorrt_llm/_torch/pyexecutor/kv_cache_events.py; recorded traffic of vLLM 0.14.1, 0.32.0 and
/// SGLang 0.5.23.
[[nodiscard]] Result<void> read_engine_batch(std::string_view payload, EngineKvBatch& batch);

}  // namespace stator::engine
