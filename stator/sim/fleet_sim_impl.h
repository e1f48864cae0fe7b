#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "stator/legs/request_life.h"
#include "stator/report/collector.h"
#include "stator/router/admission_queue.h"
#include "stator/sim/break_even.h"
#include "stator/sim/event_queue.h"
#include "stator/sim/fleet.h"
#include "stator/sim/fleet_sim.h"
#include "stator/sim/planning.h"
#include "stator/sim/prompt_builder.h"
#include "stator/sim/routing.h"
#include "stator/sim/sessions.h"

namespace stator::sim {

using engine::mock::CoreOutput;
using engine::mock::CoreRequest;
using engine::mock::Leg;
using protocol::RequestId;
using protocol::Role;
using report::Outcome;
using tokens::TokenId;
using workload::RequestSpec;

constexpr std::uint32_t kNobody = Fleet::kNobody;
/// A leg's id at the workers: a serial number above, the request's place below.
constexpr unsigned kSlotBits = 24;

[[nodiscard]] protocol::Leg protocol_leg(Leg leg);

/// A request from its start to its end.
struct Live {
    RequestSpec spec;
    report::RequestRecord record;
    std::vector<float> gaps;
    std::vector<TokenId> output;  ///< kept only where it may be needed again
    /// Which leg comes next, and what of it: the rules of real traffic.
    std::optional<legs::RequestLife> life;
    std::uint32_t told = 0;  ///< of its output tokens, to `life`
    std::uint64_t id = 0;    ///< of its leg, at the workers; 0 = none
    Leg leg = Leg::kWhole;
    std::uint32_t worker = kNobody;
    std::uint32_t decoder = kNobody;   ///< chosen together with the prefiller
    CoreRequest request;               ///< on its way to the worker
    router::BookingId booking;         ///< of its leg; 0 = none
    std::vector<std::uint32_t> tried;  ///< workers that refused it
    double booked = 0;
    std::optional<router::AuditSample> sample;  ///< of its booking
    double predicted = -1;                      ///< seconds to its first token; negative: not said
    std::uint32_t prefiller = kNobody;          ///< holds the KV of its prompt, under prefill_id
    std::uint64_t prefill_id = 0;
    std::uint32_t encoder = kNobody;  ///< has made the embeddings of its images
    double last_token = 0;
    std::vector<engine::mock::CoreImage> images;  ///< of its encode leg
    Nanos waited{0};                              ///< for a worker, once it has had one
    bool accepted = false;                        ///< a worker has had it
    bool refused = false;                         ///< by the last worker it was sent to
    bool counted = false;                         ///< its input is in the record
    bool recomputes = false;                      ///< the next prompt was computed once already
    bool started = false;
    bool queued = false;  ///< waits at the router
};

/// What losses cost.
struct Recomputed {
    std::uint64_t moves = 0;     ///< to another worker
    std::uint64_t lost = 0;      ///< handoffs that were there and did not arrive
    std::uint64_t given_up = 0;  ///< handoffs that no worker took in time
    std::uint64_t prompts = 0;
    std::uint64_t tokens = 0;  ///< of these
    std::uint64_t images = 0;  ///< encode legs
};

struct Event {
    enum class Kind : std::uint8_t {
        kArrival,
        kStart,
        kRoute,
        kArrive,
        kNotice,
        kReport,
        kDrain,
        kStepEnd,
        kWake,
        kCrash,
        kStartAnew,
        kResize,
        kUp,
        kReplicas,
        kPlan
    };
    Kind kind = Kind::kArrival;
    std::uint32_t what = 0;  ///< a worker, a request's place or the number of a resize
    std::uint64_t detail =
        0;  ///< kWake: the wake-up's number; kNotice: its place; kArrive: the leg
};

/// A run of a scenario: events in the order of their time. fleet_sim.cc has the run, requests'
/// beginning and end, fleet_sim_routing.cc their way to the workers, fleet_sim_legs.cc what comes
/// after what, fleet_sim_workers.cc the workers.
class FleetSim {
  public:
    FleetSim(const Scenario& scenario, workload::Workload& workload, const RunOptions& options);
    report::Report run();

  private:
    void handle(const Event& event);
    void run_replicas_in_time();
    void prepare();

    // Requests.
    void pull();
    std::uint32_t take_place(RequestSpec spec);
    void start(std::uint32_t place);
    void route(std::uint32_t place);
    void sent(std::uint32_t place, const router::Decision& decision);
    void enqueue(std::uint32_t place, double work_s);
    void drain();
    void drain_soon(Nanos at);
    void arrive(std::uint32_t place);
    [[nodiscard]] CoreRequest leg_request(Live& live, std::uint32_t block, std::uint32_t place);
    [[nodiscard]] std::uint32_t block_tokens(Leg leg) const;
    void nobody_takes(std::uint32_t place, ErrorCode why);
    void unbook(Live& live);
    void tell(const Notice& notice);
    void report(std::uint32_t worker);
    void end(std::uint32_t place, Outcome outcome, std::string reason);

    // Legs.
    [[nodiscard]] legs::RequestLife life_of(const RequestSpec& spec) const;
    [[nodiscard]] TimePoint lease_begins() const;
    [[nodiscard]] Leg next_leg(Live& live);
    [[nodiscard]] bool claim_kv(const Live& live);
    [[nodiscard]] bool claim_embeddings(const Live& live);
    [[nodiscard]] bool handoff_is_lost(std::uint32_t taker);
    void tell_tokens(Live& live);
    void leg_failed(std::uint32_t place, Error why);
    void leg_ended(std::uint32_t place);
    void go_on_with_decode(std::uint32_t place);
    void lose(std::uint32_t place, const Error& why);
    [[nodiscard]] bool give_up_handoff(std::uint32_t place);
    [[nodiscard]] bool go_on(std::uint32_t place, const std::optional<protocol::StepEvent>& over);
    void take_releases(Live& live);
    void release_prefill(Live& live);
    void note_recomputed(Live& live, const CoreOutput& out);
    void add_facts();

    // Workers.
    void step(std::uint32_t worker);
    void end_step(std::uint32_t worker);
    void output(const CoreOutput& out);
    void crash(std::uint32_t worker);
    void resize(const Resize& resize);
    void note_workers();
    void plan();
    void act(const planner::Action& action);
    void stop_if_ended(std::uint32_t worker);
    void note_presence(int change);

    const Scenario& scenario_;
    workload::Workload& workload_;
    const RunOptions& options_;
    report::Collector collector_;
    Fleet fleet_;
    Routing routing_;
    std::vector<Notice> notices_;  ///< on their way
    std::vector<std::uint32_t> free_notices_;
    EventQueue<Event> events_;
    Nanos now_{0};

    bool closed_ = false;
    bool keeps_outputs_ = false;
    Sessions sessions_;
    std::optional<RequestSpec> ahead_;  ///< the next one that waits for nobody
    bool exhausted_ = false;
    bool over_ = false;  ///< nothing starts any more
    std::vector<Live> live_;
    std::vector<std::uint32_t> free_places_;
    std::uint64_t next_id_ = 0;
    std::map<std::uint32_t, PromptBuilder> builders_;  ///< by block size

    std::vector<CoreOutput> step_outputs_;
    Progress progress_;
    Recomputed again_;
    std::mt19937_64 handoff_luck_;
    std::vector<protocol::TokenOutput> told_tokens_;
    BreakEven break_even_;
    router::AdmissionQueue queue_;
    std::optional<Planning> planning_;
    std::int64_t present_ = 0;   ///< workers that start, run or drain
    double worker_seconds_ = 0;  ///< of these, until `presence_at_`
    Nanos presence_at_{0};
    bool drain_ordered_ = false;
    std::optional<Nanos> replicas_at_;  ///< ordered: they have something to tell each other
};

}  // namespace stator::sim
