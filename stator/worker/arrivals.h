#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/protocol/generate.h"
#include "stator/runtime/loop.h"
#include "stator/runtime/mailbox.h"
#include "stator/transfer/transfer.h"
#include "stator/worker/worker_metrics.h"

namespace stator::worker {

/// What the leg's engine says and asks for, of one request.
struct ArrivalPlan {
    std::string kv_layout;            ///< EngineInfo::kv_layout
    std::string kv_method = {};       ///< EngineInfo::kv_method
    bool media_objects = false;       ///< EngineInfo::media_objects
    std::uint32_t cached_tokens = 0;  ///< Engine::cached_prefix_tokens()
};

/// One link's requests whose handoffs are on their way here. Lives on the link's loop.
///
///          ┌─ decode leg ──▶ KV ──┬─ arrived, not sound, cached ──▶ ready, with `kv` or without
///   begin ─┤                      └─ failed ─┬─ no media ─────────▶ ready, without
///          └─ has media ──▶ embeddings ◀─────┘ has media
///                            ├─ all arrived ──▶ ready
///                            └─ one failed ───▶ an error: kUnavailable, retryable, param "media"
///
/// KV that does not come is computed again, and the client never hears of it. A decode leg's
/// embeddings are claimed only then: its prefill leg has used the ones it was booked with.
///
/// Embeddings that are an engine's own are not claimed either, and stay in the request with the
/// item's content.
///
/// KV that engines move among themselves (Handoff::object) is not claimed: where it is of this
/// prompt and in this engine's words, the request keeps its `handoff` for the engine, else loses
/// it. Of all other requests the engine gets `kv` or nothing.
class Arrivals {
  public:
    /// On the loop, in a turn after begin()'s.
    using Ready = std::function<void(std::uint32_t stream, Result<protocol::GenerateRequest>)>;

    /// `transfer` may be null.
    Arrivals(runtime::Loop& loop, std::shared_ptr<transfer::TransferPlane> transfer,
             const WorkerMetrics& metrics, const Clock& clock,
             std::chrono::milliseconds claim_within, Ready ready);
    ~Arrivals();
    Arrivals(const Arrivals&) = delete;
    Arrivals& operator=(const Arrivals&) = delete;

    /// Whether the request needs anything that is not here: only then begin() claims.
    [[nodiscard]] static bool needed(const protocol::GenerateRequest& request);
    /// Takes the request and answers true: `ready` comes later, unless it is cancelled. False: it
    /// can be submitted as it is now. An error: nothing can be done with it here.
    [[nodiscard]] Result<bool> begin(std::uint32_t stream, protocol::GenerateRequest& request,
                                     const ArrivalPlan& plan);
    /// Takes the claims back; `ready` is not called. Unknown streams are ignored.
    void cancel(std::uint32_t stream);
    /// All of them; nothing is told afterwards, and the loop not touched.
    void close();

  private:
    struct Waiting {
        protocol::GenerateRequest request;
        bool kv = false;  ///< that is claimed, else embeddings
        std::vector<transfer::ClaimId> claims;
        std::size_t missing = 0;
    };
    struct Arrived {
        std::uint32_t stream = 0;
        std::size_t item = 0;  ///< of the media
        bool kv = false;
        Result<std::shared_ptr<const protocol::HandoffBytes>> bytes;
    };
    using Mailbox = runtime::Mailbox<Arrived>;

    [[nodiscard]] bool engines_own(const protocol::GenerateRequest& request,
                                   const ArrivalPlan& plan);
    [[nodiscard]] bool claim_kv(std::uint32_t stream, protocol::GenerateRequest& request,
                                const ArrivalPlan& plan);
    [[nodiscard]] Result<bool> claim_media(std::uint32_t stream, protocol::GenerateRequest& request,
                                           bool objects);
    void claim(Waiting& waiting, std::uint32_t stream, std::size_t item,
               std::shared_ptr<const protocol::Handoff> what, std::vector<std::uint32_t> parts);
    void arrived(Arrived&& what);
    void kv_arrived(std::uint32_t stream, Waiting waiting, Arrived&& what);
    void finish(std::uint32_t stream, Result<protocol::GenerateRequest> outcome);

    std::shared_ptr<transfer::TransferPlane> transfer_;
    WorkerMetrics metrics_;
    const Clock& clock_;
    std::chrono::milliseconds claim_within_;
    Ready ready_;
    std::shared_ptr<Mailbox> mailbox_;
    std::unordered_map<std::uint32_t, Waiting> waiting_;  // bound: the link's open requests
};

}  // namespace stator::worker
