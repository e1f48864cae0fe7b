#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/engine/llama/media_rows.h"
#include "stator/engine/llama/prefix_cache.h"
#include "stator/protocol/generate.h"
#include "stator/protocol/load.h"
#include "stator/tokens/token_sequence.h"

namespace stator::engine::llama {

using protocol::RequestId;

struct SchedulerOptions {
    std::uint32_t kv_tokens = 8192;  ///< cells of the KV cache, all sequences together
    std::uint32_t max_sequence_tokens =
        8192;  ///< prompt + output of one request; at most kv_tokens
    std::uint32_t block_tokens = 16;
    std::uint32_t step_tokens = 512;  ///< most tokens computed in one step; at least max_running
    std::uint32_t max_running = 16;   ///< 1..kMaxSequences - 1
    std::uint32_t max_waiting = 256;
    std::uint32_t parked_tokens = 32768;  ///< prefixes kept in host memory beside the KV cache
    bool prefix_cache = true;
};

/// One token to compute. Where `output` is set its logits are wanted.
struct BatchToken {
    TokenId token = 0;
    std::uint32_t position = 0;
    SeqId sequence = -1;
    bool output = false;
    /// Of a media token: its row of embeddings; null where that is not here.
    const std::byte* row = nullptr;
    bool operator==(const BatchToken&) const = default;
};

/// The next token of `id` is drawn from the logits of batch[index].
struct OutputRow {
    RequestId id;
    std::uint32_t index = 0;
};

/// KV of a decode leg's prompt that came from elsewhere: `sequence` gets the positions [begin, end)
/// from the handoff's parts [first_part, last_part), which have arrived. The first of them may
/// begin before `begin`; all of a part passes through free cells.
struct KvImport {
    RequestId id;
    SeqId sequence = -1;
    std::shared_ptr<const protocol::HandoffBytes> from;
    std::size_t first_part = 0;
    std::size_t last_part = 0;
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
};

/// What to do now: first the ops, in order, then the imports (each is answered by imported()),
/// then one forward pass over the batch. May have ops or imports and no batch.
struct StepPlan {
    std::vector<KvOp> ops;
    std::vector<KvImport> imports;
    std::vector<BatchToken> batch;
    std::vector<OutputRow> outputs;
    std::uint32_t prefill_tokens = 0;
    std::uint32_t decode_tokens = 0;
    std::uint32_t cached_tokens = 0;  ///< of requests that start in this step
};

struct SampledToken {
    RequestId id;
    TokenId token = 0;
    bool is_end = false;  ///< the vocabulary's end-of-generation
    bool ends = false;    ///< the sequence ends here, whatever it asked for (a constraint is done)
};

/// One request's outcome of a step.
struct Progress {
    RequestId id;
    std::optional<protocol::FinishReason> finish;
    std::uint32_t prompt_tokens = 0;  ///< without resumed ones
    std::uint32_t cached_tokens = 0;  ///< of those
};

/// A request on its way through the scheduler.
struct Sequence {
    /// Its prompt has moved into `tokens`. `kv` is dropped once it is imported.
    protocol::GenerateRequest request;
    tokens::TokenSequence tokens;  ///< prompt and output so far
    MediaRows media = {};          ///< into request.media
    std::uint32_t prompt_tokens = 0;
    std::uint32_t cached_tokens = 0;
    std::uint32_t generated = 0;
    SeqId kv = -1;               ///< -1 while waiting
    std::uint32_t computed = 0;  ///< positions whose KV is there
    std::uint32_t planned = 0;   ///< positions being computed in this step
    bool started = false;        ///< ran before (true again after a preemption)
};

/// The hash seed of a salt: salts are numbers here and strings in the hash's recipe, the decimal
/// spelling, empty for 0.
[[nodiscard]] std::uint64_t seed_of(std::uint64_t salt);

/// Decides what each step computes: continuous batching, chunked prefill mixed with decode under a
/// token budget, prefix reuse, eviction, preemption. Order is first come, first served; one request
/// running ahead of its turn is never the reason for another's preemption.
///
/// - A step takes one token of every decoding request first, then chunks of prompts, then starts
/// waiting requests.
/// - A request whose next block is just being computed by another waits for it instead of computing
/// it twice.
/// - A prefill leg computes its prompt but the last token and is then ready(): its owner takes the
/// KV and calls hand_over().
/// - A decode leg whose prompt's KV came along imports what the prefix cache lacks, as far as it
/// came without gaps, and computes the rest.
/// - Out of cells: the request that started last gives way, keeping the tokens it has produced. Its
/// KV is parked in host
///   memory like that of ended requests, so that going on later costs a copy as long as it is not
///   forgotten.
///
/// Pure and single-threaded: no clock, no model. The owner calls plan(), carries it out, calls
/// complete().
class Scheduler {
  public:
    /// STATOR_CHECKs the relations stated in SchedulerOptions.
    explicit Scheduler(SchedulerOptions options);

    /// Queues a request. kInvalidArgument if it can never fit, kOverloaded if the queue is full.
    [[nodiscard]] Result<void> add(protocol::GenerateRequest request);

    /// Takes a request out, wherever it is; its whole blocks stay cached. False if it is not here.
    bool cancel(RequestId id);

    /// Requests whose deadline is reached.
    void expired(TimePoint now, std::vector<RequestId>& out) const;

    [[nodiscard]] bool idle() const { return running_.empty() && waiting_.empty(); }
    [[nodiscard]] StepPlan plan();

    /// Of the plan that plan() returned last, before its forward pass: the positions of `import`
    /// are there up to `until`. Falls short: the request's tokens are taken out of the plan; what
    /// is missing is computed in later steps. None from `until` on are there.
    void imported(StepPlan& plan, const KvImport& import, std::uint32_t until);

    /// What changed since plan(), to be carried out before the next plan's ops at the latest.
    [[nodiscard]] std::vector<KvOp> take_ops() { return cache_.take_ops(); }

    /// Takes the request that `sequence` is of out of the plan that plan() returned last, and out
    /// of the scheduler. Before the forward pass.
    RequestId withdraw(StepPlan& plan, SeqId sequence);

    /// Prefill legs whose KV is there, all of it.
    void ready(std::vector<RequestId>& out) const;
    /// The owner has taken what it wants of a ready request: it leaves.
    Progress hand_over(RequestId id);

    /// The plan was carried out and these tokens were drawn, one for each of plan.outputs, in
    /// order.
    void complete(std::span<const SampledToken> sampled, std::vector<Progress>& progress);

    /// The plan failed: every request in it is taken out (their ids go to `lost`), the KV cache is
    /// forgotten (the owner clears it) and the others start again.
    void abandon(std::vector<RequestId>& lost);

    /// The cache had no room for the plan after all: undoes it and preempts the request that
    /// started last, which goes to `lost` if it was alone.
    void no_room(std::vector<RequestId>& lost);

    [[nodiscard]] const Sequence* find(RequestId id) const;
    [[nodiscard]] std::vector<protocol::KvEvent> take_events() { return cache_.take_events(); }
    [[nodiscard]] protocol::LoadReport load() const;
    [[nodiscard]] std::uint64_t preemptions() const { return preemptions_; }
    /// Cells that running requests take, by the cache's bookkeeping.
    [[nodiscard]] std::uint32_t used_cells() const;
    /// Whole blocks in the prefix cache: what a replay of all events ends up with.
    [[nodiscard]] std::uint32_t cached_blocks() const { return cache_.known_blocks(); }

  private:
    using SequencePtr = std::unique_ptr<Sequence>;

    void plan_decodes(StepPlan& plan);
    void plan_prefills(StepPlan& plan);
    void plan_admissions(StepPlan& plan);
    bool admit(std::size_t waiting_index, StepPlan& plan);
    void put(Sequence& sequence, std::uint32_t count, StepPlan& plan);
    void plan_import(Sequence& sequence, StepPlan& plan);
    void take_out(const Sequence& sequence, StepPlan& plan);
    [[nodiscard]] static Progress progress_of(const Sequence& sequence,
                                              std::optional<protocol::FinishReason> finish);
    [[nodiscard]] std::uint32_t budget(const StepPlan& plan) const;
    [[nodiscard]] std::uint32_t free_cells() const;
    void preempt_last();
    void leave(Sequence& sequence);
    void claim_blocks(const Sequence& sequence);
    void release_claims(const Sequence& sequence);
    void commit_blocks(Sequence& sequence);
    [[nodiscard]] std::optional<protocol::FinishReason> verdict(const Sequence& sequence,
                                                                const SampledToken& token) const;

    SchedulerOptions options_;
    PrefixCache cache_;
    std::vector<SequencePtr> running_;  ///< in order of start; bound: max_running
    std::deque<SequencePtr>
        waiting_;  ///< bound: max_waiting, and max_running more after preemptions
    std::vector<OutputRow> outputs_;  ///< of the plan under way
    /// Blocks being computed right now, by whom.
    std::unordered_map<tokens::SequenceHash, RequestId> claimed_;
    std::uint64_t preemptions_ = 0;
};

}  // namespace stator::engine::llama
