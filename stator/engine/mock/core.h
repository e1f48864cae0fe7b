#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/engine/mock/step_time.h"
#include "stator/protocol/generate.h"
#include "stator/protocol/kv_event.h"
#include "stator/protocol/load.h"
#include "stator/tokens/token.h"

namespace stator::engine::mock {

using protocol::KvTier;
using protocol::RequestId;
using tokens::SequenceHash;
using tokens::TokenId;
/// Time since the core's own zero. Whoever drives the core keeps it: a wall clock, perhaps sped up,
/// or the simulator's.
using Nanos = std::chrono::nanoseconds;

/// A slower memory behind the device's. Blocks that the device evicts go there, the least recently
/// used ones make room; a prompt's blocks found there are copied back before the prompt runs.
struct TierOptions {
    std::uint32_t blocks = 0;     ///< 0 = there is none
    double read_gb_per_s = 0.0;   ///< to the device; 1e9 bytes
    double write_gb_per_s = 0.0;  ///< from the device
};

struct CoreOptions {
    std::uint32_t blocks = 16'384;  ///< of the device's KV memory
    std::uint32_t block_tokens = 16;
    std::uint32_t context_tokens = 131'072;  ///< longest prompt + output
    std::uint32_t max_running = 256;
    std::uint32_t max_waiting = 1024;
    std::uint32_t step_tokens = 8192;  ///< budget of a step: prompt chunks and one per decode
    bool chunked_prefill = true;       ///< off: a prompt runs in one step, alone over the budget
    bool prefix_cache = true;
    std::uint64_t kv_bytes_per_token = 131'072;
    TierOptions host;
    TierOptions disk;
    double handoff_gb_per_s = 64.0;  ///< KV that comes from a prefill worker
    Nanos handoff_latency{std::chrono::milliseconds(1)};
    std::uint32_t max_adapters = 4;  ///< LoRA adapters in device memory at once
    Nanos adapter_load{std::chrono::milliseconds(50)};
    std::uint32_t encoder_cache_tokens = 65'536;  ///< outputs of the encoder kept, by image
    StepTime step_time;
    double noise = 0.0;      ///< standard deviation of a step's time, relative
    std::uint64_t seed = 0;  ///< of the noise; never of the tokens
    /// Output tokens are drawn from these; empty = all ids below `vocab_size`.
    std::vector<TokenId> alphabet;
    std::uint32_t vocab_size = 32'000;
    TokenId eos = 0;
    /// Mean output where the request does not ignore the end of generation; 0 = it never comes.
    std::uint32_t mean_output_tokens = 0;
};

/// Which part of a request this engine computes.
enum class Leg : std::uint8_t {
    kWhole = 1,
    kPrefill,  ///< the prompt; its KV stays until release()
    kDecode,   ///< the KV of all but the prompt's last token comes from elsewhere
    kEncode,   ///< only the images
};

struct CoreImage {
    std::uint64_t content = 0;
    std::uint32_t position = 0;  ///< of its first token in the prompt
    std::uint32_t tokens = 0;    ///< that it takes in the prompt
};

struct CoreRequest {
    RequestId id;
    /// The prompt: hashes of its whole blocks, and the tokens that follow them (fewer than
    /// block_tokens). Hashes must come from tokens::sequence_hash or be as well mixed.
    std::vector<SequenceHash> blocks;
    std::vector<TokenId> tail;
    std::uint64_t hash_seed =
        0;  ///< tokens::hash_seed(): salt and adapter, for the output's blocks
    std::uint64_t token_seed = 0;  ///< the output is a function of (prefix, position, this)
    std::uint32_t max_tokens = 1;
    std::uint32_t min_tokens = 0;
    bool ignore_eos = false;
    std::vector<TokenId> stop_tokens;
    std::uint32_t adapter = 0;  ///< 0 = none
    std::int32_t priority = 0;  ///< higher goes first
    Leg leg = Leg::kWhole;
    std::vector<CoreImage> images;  ///< by position
};

/// One token, or the end, of one request in one step.
struct CoreOutput {
    RequestId id;
    TokenId token = 0;
    bool has_token = false;
    bool first = false;                            ///< the first mention of this request
    std::optional<protocol::FinishReason> finish;  ///< its last mention
    std::uint32_t prompt_tokens = 0;               ///< with `first` and `finish`
    std::uint32_t cached_tokens = 0;               ///< likewise
};

/// A change of the blocks held for reuse.
struct KvChange {
    enum class Kind : std::uint8_t { kStored, kRemoved, kCleared };
    Kind kind = Kind::kStored;
    KvTier tier = KvTier::kDevice;
    SequenceHash block;                  ///< stored, removed
    std::optional<SequenceHash> parent;  ///< stored; none = a root
    /// Stored in the device's memory: the request that brought the block, which is its block
    /// `index`. Its end comes no earlier than with the same step.
    RequestId owner;
    std::uint32_t index = 0;
    bool operator==(const KvChange&) const = default;
};

/// What a step will do and how long that takes.
struct StepPlan {
    Nanos duration{0};
    StepShape shape;
};

/// The scheduler and memory of one engine rank, imitating vLLM's: waiting and running queues, a
/// budget of tokens per step, chunked prefill, blocks with a prefix cache (least recently used go
/// first), preemption by recomputing, slower tiers, prefill and decode legs, images, adapters. No
/// clock, no thread, no model: whoever drives it says what time it is, and waits out the steps.
///
///     core.submit(...);
///     if (auto plan = core.begin_step(now)) { …plan->duration later… core.end_step(outputs,
///     changes); } else …until core.next_ready() or the next submit()
///
/// submit() and cancel() may come between begin_step() and end_step(); they count from the next
/// step on. Tokens are a pure function of (prefix, position, token_seed) and read from the blocks
/// that the request uses: KV of another prefix, shared by mistake, gives other tokens.
class Core {
  public:
    explicit Core(CoreOptions options);
    Core(Core&&) noexcept;
    Core& operator=(Core&&) noexcept;
    ~Core();

    [[nodiscard]] const CoreOptions& options() const;

    /// kInvalidArgument: can never run here (context, blocks). kOverloaded: the queue is full.
    [[nodiscard]] Result<void> submit(CoreRequest request);
    /// Ends it with kCancelled in the next end_step() or drain_ended(). Unknown ids are ignored.
    void cancel(RequestId id);
    /// Lets go of the KV that a prefill leg left. Unknown ids are ignored.
    void release(RequestId id);
    /// Forgets every block that no request uses, in all tiers (an operator's reset of the cache).
    void clear_cache();

    /// Plans a step. None: there is nothing to do before next_ready() or another call. A step that
    /// has begun must end before the next begins (STATOR_CHECK).
    [[nodiscard]] std::optional<StepPlan> begin_step(Nanos now);
    /// Appends what the step brought, in a fixed order.
    void end_step(std::vector<CoreOutput>& outputs);
    /// Without a step: ends of cancelled requests.
    void drain_ended(std::vector<CoreOutput>& outputs);
    /// When a copy that a waiting request needs is there; none: nothing is on its way.
    [[nodiscard]] std::optional<Nanos> next_ready() const;

    /// Changes of the cache since the last call, in order. Takes them out.
    void take_changes(std::vector<KvChange>& changes);

    /// How far these blocks, a prompt's from the first on, are here for reuse: the first `device`
    /// of them in device memory, the next `slow` behind it.
    struct CachedPrefix {
        std::uint32_t device = 0;
        std::uint32_t slow = 0;
    };
    [[nodiscard]] CachedPrefix cached_prefix(std::span<const SequenceHash> blocks) const;

    [[nodiscard]] protocol::LoadReport load() const;
    [[nodiscard]] protocol::ForwardPassMetrics metrics() const;
    [[nodiscard]] bool idle() const;  ///< no request is here
    /// Blocks held for reuse, by tier, sorted: what the changes add up to. For tests; slow.
    [[nodiscard]] std::vector<SequenceHash> cached_blocks(KvTier tier) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::engine::mock
