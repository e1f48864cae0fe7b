#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <random>
#include <unordered_map>
#include <vector>

#include "stator/engine/mock/core.h"
#include "stator/engine/mock/memory.h"
#include "stator/engine/mock/resident_set.h"
#include "stator/engine/mock/token_source.h"

namespace stator::engine::mock {

/// A request in work. Its tokens are known up to `known`; KV is computed for the first `computed`.
struct Sequence {
    enum class State : std::uint8_t {
        kFree,     ///< the slot is unused
        kWaiting,  ///< no place yet; perhaps with blocks that were copied for it
        kCopying,  ///< waits for blocks on their way to the device
        kRunning,
        kHeld,  ///< a prefill leg that is done: its blocks stay until release()
    };
    CoreRequest request;
    State state = State::kFree;
    std::vector<BlockPool::BlockId> blocks;
    std::vector<SequenceHash> names;  ///< of the whole blocks among the known tokens
    std::vector<TokenId> partial;     ///< the known tokens after these
    PrefixState prefix;               ///< of all known tokens; right once they are computed
    std::uint32_t prompt_tokens = 0;
    std::uint32_t known = 0;
    std::uint32_t computed = 0;
    std::uint32_t produced = 0;
    std::uint32_t cached = 0;  ///< prompt tokens not computed here
    Nanos ready{0};            ///< kCopying: when the copy is done
    std::uint32_t copied = 0;  ///< kCopying: tokens that are then computed
    bool looked_up = false;    ///< `cached` counts
    bool handed_off = false;   ///< a decode leg's KV was received
    bool mentioned = false;    ///< an output was given
    bool cancelled = false;
    bool cacheable = true;  ///< its further blocks may be published
    std::uint64_t arrival = 0;

    [[nodiscard]] bool decoding() const { return produced > 0 && computed + 1 == known; }
};

struct Core::Impl {
    using Slot = std::uint32_t;
    struct Planned {
        Slot slot;
        std::uint32_t tokens;
    };

    explicit Impl(CoreOptions o);

    // Requests (core.cc).
    [[nodiscard]] Result<void> check(const CoreRequest& request) const;
    [[nodiscard]] Result<void> submit(CoreRequest request);
    void enqueue(Slot slot, bool first_of_its_priority);
    void end(Slot slot, std::optional<protocol::FinishReason> reason,
             std::optional<TokenId> last_token);
    void free_slot(Slot slot);
    void free_blocks(Sequence& s);
    void end_cancelled();

    // Steps (core_steps.cc).
    [[nodiscard]] std::optional<StepPlan> begin_step(Nanos now);
    void finish_copies();
    void plan_running(std::uint32_t& budget);
    void plan_waiting(std::uint32_t& budget);
    enum class Admission : std::uint8_t { kRuns, kCopies, kPassedOver, kNoRoom };
    [[nodiscard]] Admission admit(Slot slot, std::uint32_t& budget);
    [[nodiscard]] bool bring_prefix(Sequence& s);
    void settle_cached(Sequence& s);
    [[nodiscard]] bool receive_handoff(Sequence& s);
    [[nodiscard]] bool grow(Sequence& s, std::uint32_t tokens);
    [[nodiscard]] bool make_room(Slot slot);
    void preempt(Slot slot);
    bool strip_a_waiting_one(Slot but);
    void plan(Slot slot, std::uint32_t tokens, std::uint32_t& budget);
    void plan_images(const Sequence& s, std::uint32_t tokens);
    void plan_encoding(Slot slot);
    [[nodiscard]] bool adapter_fits(std::uint32_t adapter) const;
    void end_step(std::vector<CoreOutput>& outputs);
    void complete(const Planned& done);
    void publish_blocks(Sequence& s, std::uint32_t before);
    void produce(Slot slot);
    void learn_token(Sequence& s, TokenId token);
    void restore_prefix(Sequence& s);
    [[nodiscard]] SequenceHash content_of(const Sequence& s, std::uint32_t block) const;

    [[nodiscard]] std::uint32_t blocks_for(std::uint32_t tokens) const {
        return (tokens + options.block_tokens - 1) / options.block_tokens;
    }

    CoreOptions options;
    Memory memory;
    TokenSource source;
    ResidentSet encoder_cache;
    ResidentSet adapters;
    std::vector<Sequence> sequences;
    std::vector<Slot> free_slots;
    std::unordered_map<std::uint64_t, Slot> by_id;
    std::deque<Slot> waiting;     ///< by priority, then by arrival; preempted ones first
    std::vector<Slot> running;    ///< in the order in which they started
    std::vector<Slot> cancelled;  ///< to be ended
    std::vector<CoreOutput> out;  ///< since the last end_step() or drain_ended()
    std::uint64_t arrivals = 0;
    std::uint64_t waiting_tokens = 0;
    std::size_t copying = 0;

    Nanos now{0};
    bool in_step = false;
    bool preempted = false;  ///< in this step: then nobody new starts
    std::vector<Planned> planned;
    StepShape shape;
    Nanos extra{0};  ///< adapters that this step loads
    std::vector<Slot> encoded;
    std::minstd_rand noise;
    protocol::ForwardPassMetrics totals;
};

}  // namespace stator::engine::mock
