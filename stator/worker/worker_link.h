#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "stator/base/clock.h"
#include "stator/engine/engine.h"
#include "stator/protocol/generate.h"
#include "stator/requests/link.h"
#include "stator/worker/arrivals.h"
#include "stator/worker/handed_off.h"
#include "stator/worker/station.h"
#include "stator/worker/step_inbox.h"

namespace stator::worker {

/// The load of every rank at one moment, shared by the links that are told of it.
using RankLoads = std::shared_ptr<const std::vector<requests::LoadMessage>>;
/// Of what its legs have left, which is the same for every rank of a worker: `transfer` may be
/// null.
[[nodiscard]] requests::LoadMessage load_of(std::uint32_t rank, const engine::Engine& engine,
                                            const transfer::TransferPlane* transfer);

/// One client's requests: names them for the engines, carries what the engines' steps produced to
/// the link, all of a turn in one write, and takes everything back when the link is lost.
///
///   open ─► (handoffs claimed) ─► submit
///   engine's thread ─ on_step ─► inbox ─► link's loop ─ send_step… ─► one flush a turn
///
/// A request's id is this link's number in the high 32 bits and its stream in the low ones, so that
/// no table is asked per token. Lives on its link's loop; the methods that say so may be called
/// from any thread and run there.
class WorkerLink final : public requests::WorkerSessionEvents,
                         public std::enable_shared_from_this<WorkerLink> {
  public:
    [[nodiscard]] static std::shared_ptr<WorkerLink> make(
        std::shared_ptr<Station> station, std::shared_ptr<requests::ServerLink> link);
    ~WorkerLink() override;

    // Any thread.
    /// Sends the worker's present words about itself.
    void tell_info();
    /// Sends those that differ from what this client was told last.
    void tell_load(RankLoads loads);
    void say_go_away(requests::GoAway go_away);
    /// Ends what is open here with an error that says so.
    void end_all(Error why);
    /// Streams that are not wholly sent; 0 after the link is lost. `told` is called on the loop.
    void count_unsent(std::function<void(std::size_t)> told);

    // requests::WorkerSessionEvents, on the loop.
    void on_ready(const requests::Hello& client) override;
    [[nodiscard]] Result<void> on_open(requests::StreamId stream, std::uint32_t rank,
                                       std::uint64_t booking,
                                       protocol::GenerateRequest&& request) override;
    void on_cancel(requests::StreamId stream) override;
    void on_late_cancel(requests::StreamId stream) override;
    void on_fetch(std::uint64_t fetch, const requests::Fetch& what) override;
    void on_lane_unwanted(requests::LaneId lane, const Error& why) override;
    void on_lost(const Error& why) override;

  private:
    /// A request that waits for its handoffs, or that the engine works on until it says that it has
    /// ended.
    struct Open {
        engine::Engine* engine = nullptr;
        std::uint32_t rank = 0;
        bool arriving = false;  ///< the engine does not have it yet
        bool cancelled = false;
    };
    struct Told {
        std::optional<requests::LoadMessage> load;
        bool due = false;  ///< a request of this link has begun or ended there since
    };

    WorkerLink(std::shared_ptr<Station> station, std::shared_ptr<requests::ServerLink> link);
    void on_loop(std::function<void(WorkerLink&)> f);
    [[nodiscard]] protocol::RequestId id_of(requests::StreamId stream) const;
    [[nodiscard]] Result<void> admit(requests::StreamId stream, std::uint32_t rank,
                                     protocol::GenerateRequest&& request, const WorkerState& state);
    [[nodiscard]] Result<void> take(requests::StreamId stream, std::uint32_t rank,
                                    protocol::GenerateRequest&& request, const WorkerState& state);
    void arrived(std::uint32_t stream, Result<protocol::GenerateRequest> request);
    void tell_refusal(std::uint32_t rank, Error& why, const WorkerState& state);
    /// Takes the request off what is open here.
    void forget(std::uint32_t stream);
    void release_handed_off(requests::StreamId stream);
    void receive(std::vector<protocol::StepBatch>&& batches);
    void tell_lost(const protocol::LostHandoff& lost);
    void note(const protocol::StepEvent& event, TimePoint now);
    void send_loads_with_step(TimePoint now);
    void send_load_if_changed(const requests::LoadMessage& load, TimePoint now);
    void answer_artifact(std::uint64_t fetch, const requests::Fetch& what);
    void answer_events(std::uint64_t fetch, const requests::Fetch& what);
    void answer(std::uint64_t fetch, std::string_view kind,
                Result<std::shared_ptr<const std::string>> body);
    /// Cancels everything in the engines and forgets it; what they still say of it is dropped.
    void cancel_all();

    std::shared_ptr<Station> station_;
    runtime::Loop& loop_;
    std::shared_ptr<requests::ServerLink> link_;  ///< null once lost; the loop's
    std::uint32_t number_;
    std::shared_ptr<StepInbox> inbox_;
    std::unique_ptr<Arrivals> arrivals_;
    HandedOff handed_off_;
    bool ready_ = false;
    std::unordered_map<std::uint32_t, Open> open_;  ///< by stream; bound: the session's max_streams
    std::vector<Told> told_;                        ///< by rank
    TimePoint loads_sent_;
    std::uint64_t sends_seen_ = 0;
};

}  // namespace stator::worker
