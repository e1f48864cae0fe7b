#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/protocol/generate.h"
#include "stator/protocol/kv_event.h"
#include "stator/protocol/load.h"

namespace stator::engine {

using protocol::RequestId;

/// What an engine says about itself once it is ready. Does not change during its life.
struct EngineInfo {
    std::string kind;                  ///< "llama", "echo"
    std::string device;                ///< "cpu" or "gpu"
    std::uint32_t context_tokens = 0;  ///< longest prompt + output of one request
    std::uint32_t block_tokens = 0;    ///< tokens per KV block; 0 = no prefix cache
    std::uint32_t max_running = 0;
    std::uint32_t max_waiting = 0;
    std::uint32_t max_top_logprobs = 0;
    bool structured_output = false;  ///< requests may have a constraint; else kUnsupported
    /// What a KV handoff must agree on to be read here; empty: makes and reads none.
    std::string kv_layout = {};
    std::uint64_t kv_bytes_per_token = 0;  ///< of such a handoff; 0 = not known
    /// Its handoffs are an engine's own (Handoff::object): it makes and takes them without a
    /// transfer plane, by this way ("vllm/nixl"), which the engine at the other end must have too.
    /// Empty: they are bytes that the transfer plane moves.
    std::string kv_method = {};
    /// Else nobody hears what its prefix cache holds.
    bool kv_events = true;
    /// Else it can only go on from KV that another engine has made.
    bool computes_prompts = true;
    /// What its encode legs take: "image", "video"; empty: it has none.
    std::vector<std::string> media = {};
    /// Its embeddings are an engine's own (Handoff::object): it makes and takes them without a
    /// transfer plane.
    bool media_objects = false;
    /// LoRA adapters that requests may name.
    std::vector<std::string> adapters = {};
};

/// Receives what the steps of an engine produced for the requests of one submitter.
/// Called on the engine's thread, at most once per step, with everything of that step; must not
/// block and must not call back into the engine other than cancel(). The batch is the receiver's to
/// move from.
class StepSink {
  public:
    virtual ~StepSink() = default;
    virtual void on_step(protocol::StepBatch&& batch) = 0;
};

/// Receives changes of the prefix cache, in order, on the engine's thread; must not block.
using KvEventSink = std::function<void(const std::vector<protocol::KvEvent>&)>;

/// Something that turns token ids into token ids. The only interface between the serving side and a
/// model. Every method is thread-safe. An accepted request ends with exactly one event that has
/// `finish` set, whatever happens: its own end, cancel(), its deadline, an engine failure, stop().
class Engine {
  public:
    virtual ~Engine() = default;

    [[nodiscard]] virtual const EngineInfo& info() const = 0;

    /// Accepts the request or refuses it before any work: kInvalidArgument (does not fit the
    /// context), kOverloaded with retry_after_ms (the waiting queue is full), kUnavailable
    /// (stopping or failed). `sink` is kept until the end.
    [[nodiscard]] virtual Result<void> submit(protocol::GenerateRequest request,
                                              std::shared_ptr<StepSink> sink) = 0;

    /// Ends the request with kCancelled within one step. Unknown and ended ids are ignored.
    virtual void cancel(RequestId id) = 0;

    /// Nobody will claim this handoff, which a leg here has left: it may go before its lease is
    /// over. Best effort; those of others are ignored. May be called from within on_step().
    virtual void release(std::shared_ptr<const protocol::Handoff> /*handoff*/) {}

    /// How many leading tokens of the request's prompt need not be computed here: parts of a decode
    /// leg's KV that end there or before need not be fetched. May be out of date a moment later;
    /// what then lacks is computed.
    [[nodiscard]] virtual std::uint32_t cached_prefix_tokens(
        const protocol::GenerateRequest& /*request*/) const {
        return 0;
    }

    [[nodiscard]] virtual protocol::LoadReport load() const = 0;
    [[nodiscard]] virtual protocol::ForwardPassMetrics forward_pass_metrics() const = 0;

    /// False once the engine can't serve any more (and says why in the log).
    [[nodiscard]] virtual bool healthy() const = 0;

    /// Refuses new requests, lets the accepted ones end until the deadline, cancels the rest,
    /// returns when none is left.
    virtual void stop(Deadline deadline) = 0;
};

}  // namespace stator::engine
