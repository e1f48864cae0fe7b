#include "stator/sim/fleet_sim.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "stator/base/check.h"
#include "stator/report/collector.h"
#include "stator/sim/event_queue.h"
#include "stator/sim/fleet.h"
#include "stator/sim/prompt_builder.h"
#include "stator/sim/routing.h"
#include "stator/sim/sessions.h"

namespace stator::sim {
namespace {

using engine::mock::CoreOutput;
using engine::mock::CoreRequest;
using engine::mock::Fault;
using engine::mock::Leg;
using protocol::RequestId;
using protocol::Role;
using report::Outcome;
using tokens::TokenId;
using workload::RequestSpec;

constexpr std::uint32_t kNobody = Fleet::kNobody;
/// How long a later leg waits before it asks again, where every worker of its role is full. The
/// first leg of a request is refused instead.
constexpr Nanos kAskAgain = std::chrono::milliseconds(10);
constexpr std::uint64_t kProgressEvery = 1U << 14;
/// A leg's id at the workers: a serial number above, the request's place below.
constexpr unsigned kSlotBits = 24;

/// A request from its start to its end.
struct Live {
    RequestSpec spec;
    report::RequestRecord record;
    std::vector<float> gaps;
    std::vector<TokenId> output;  ///< kept only where it may be needed again
    std::uint64_t id = 0;         ///< of its leg, at the workers; 0 = none
    Leg leg = Leg::kWhole;
    std::uint32_t worker = kNobody;
    std::uint32_t decoder = kNobody;   ///< chosen together with the prefiller
    CoreRequest request;               ///< on its way to the worker
    router::BookingId booking;         ///< of its leg; 0 = none
    std::vector<std::uint32_t> tried;  ///< workers that refused it
    double booked = 0;
    double predicted = -1;              ///< seconds to its first token; negative: not said
    std::uint32_t prefiller = kNobody;  ///< holds the KV of its prompt, under prefill_id
    std::uint64_t prefill_id = 0;
    std::uint32_t moves = 0;
    double last_token = 0;
    bool encoded = false;
    bool counted = false;  ///< its input is in the record
    bool started = false;
};

struct Event {
    enum class Kind : std::uint8_t {
        kArrival,
        kStart,
        kRoute,
        kArrive,
        kNotice,
        kReport,
        kStepEnd,
        kWake,
        kCrash,
        kResize,
        kUp
    };
    Kind kind = Kind::kArrival;
    std::uint32_t what = 0;    ///< a worker, a request's place or the number of a resize
    std::uint64_t detail = 0;  ///< kWake: the wake-up's number; kNotice: its place
};

double seconds(Nanos t) { return to_seconds(t); }

class FleetSim {
  public:
    FleetSim(const Scenario& scenario, workload::Workload& workload, const RunOptions& options);
    report::Report run();

  private:
    void handle(const Event& event);
    void prepare();

    // Requests.
    void pull();
    std::uint32_t take_place(RequestSpec spec);
    void start(std::uint32_t place);
    void route(std::uint32_t place);
    void arrive(std::uint32_t place);
    [[nodiscard]] Leg first_leg(const Live& live) const;
    [[nodiscard]] CoreRequest leg_request(Live& live, std::uint32_t block, std::uint32_t place);
    [[nodiscard]] std::uint32_t block_tokens(Leg leg) const;
    void nobody_takes(std::uint32_t place);
    void unbook(Live& live);
    void tell(const Notice& notice);
    void report(std::uint32_t worker);
    void end(std::uint32_t place, Outcome outcome, std::string reason);
    void release_prefill(Live& live);
    void lose(std::uint32_t place);

    // Workers.
    void step(std::uint32_t worker);
    void end_step(std::uint32_t worker);
    void output(const CoreOutput& out);
    void leg_ended(std::uint32_t place, const CoreOutput& out);
    void go_on_with_decode(std::uint32_t place);
    void crash(std::uint32_t worker);
    void resize(const Resize& resize);
    void note_workers();

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
    std::vector<engine::mock::KvChange> changes_;
    Progress progress_;
    std::uint64_t moved_ = 0;
};

report::CollectorOptions collector_options(const Scenario& s, std::uint64_t seed) {
    report::CollectorOptions o;
    o.name = s.name;
    o.slo = s.slo;
    o.per_worker = true;
    o.seed = seed;
    o.closed_loop = s.workload.effective_arrivals() == workload::Arrivals::kClosed;
    std::string fleet;
    for (const Group& g : s.groups) {
        fleet += fmt::format("{}{} {} ({}, {})", fleet.empty() ? "" : ", ", g.workers, g.name,
                             to_string(g.role), g.engine);
    }
    o.facts = {{"simulated", "yes: virtual time"},
               {"fleet", fleet},
               {"router", std::string(router::to_string(s.router.policy))},
               {"seed", fmt::format("{}", seed)}};
    if (!s.trace_file.empty()) o.facts.push_back({"trace", s.trace_file});
    return o;
}

FleetSim::FleetSim(const Scenario& scenario, workload::Workload& workload,
                   const RunOptions& options)
    : scenario_(scenario),
      workload_(workload),
      options_(options),
      collector_(collector_options(scenario, options.seed)),
      fleet_(scenario, options.seed),
      routing_(scenario, fleet_, options.seed),
      closed_(scenario.workload.effective_arrivals() == workload::Arrivals::kClosed),
      keeps_outputs_(scenario.workload.kind == workload::Kind::kChat ||
                     scenario.workload.kind == workload::Kind::kAgent || !scenario.faults.empty()),
      sessions_(keeps_outputs_) {}

void FleetSim::prepare() {
    for (std::uint32_t w = 0; w < fleet_.size(); ++w) {
        if (const auto at = fleet_.worker(w).faults.crash()) {
            events_.add(*at, {Event::Kind::kCrash, w, 0});
        }
    }
    for (std::uint32_t i = 0; i < scenario_.resizes.size(); ++i) {
        events_.add(scenario_.resizes[i].at, {Event::Kind::kResize, i, 0});
    }
    for (const Fault& fault : scenario_.faults) {
        if (fault.kind == Fault::Kind::kDropEvents || fault.kind == Fault::Kind::kWrongTokens) {
            collector_.warn(
                "Lost events and wrong tokens change nothing here: no part of this scenario reads "
                "them.");
            break;
        }
    }
    if (scenario_.report_every.count() > 0) {
        // Spread over the period, so that they do not all come at once.
        for (std::uint32_t w = 0; w < fleet_.size(); ++w) {
            events_.add(scenario_.report_every * (w + 1) / fleet_.size(),
                        {Event::Kind::kReport, w, 0});
        }
    }
    note_workers();
    pull();
}

report::Report FleetSim::run() {
    prepare();
    bool stopped = false;
    const Nanos last(scenario_.end_after_s > 0
                         ? static_cast<std::int64_t>(scenario_.end_after_s * 1e9)
                         : std::numeric_limits<std::int64_t>::max());
    while (!events_.empty() && !stopped) {
        if (events_.next_time() > last) {
            now_ = last;
            break;
        }
        now_ = events_.next_time();
        handle(events_.take());
        if (++progress_.events % kProgressEvery == 0 && options_.go_on) {
            progress_.seconds = seconds(now_);
            stopped = !options_.go_on(progress_);
        }
    }
    over_ = true;
    for (std::uint32_t place = 0; place < live_.size(); ++place) {
        if (live_[place].started) end(place, Outcome::kUnfinished, "still running");
    }
    if (moved_ > 0) {
        collector_.set_fact("moved to another worker", fmt::format("{} requests", moved_));
    }
    if (const auto error = routing_.median_error_percent()) {
        collector_.set_fact("predicted TTFT",
                            fmt::format("median error {:.1f} %, median bias {:+.1f} %", *error,
                                        routing_.median_bias_percent().value_or(0)));
    }
    return collector_.finish(seconds(now_), stopped);
}

void FleetSim::handle(const Event& event) {
    switch (event.kind) {
        case Event::Kind::kArrival: {
            RequestSpec spec = std::move(*ahead_);
            ahead_.reset();
            start(take_place(std::move(*sessions_.add(std::move(spec)))));
            return pull();
        }
        case Event::Kind::kStart:
            return start(event.what);
        case Event::Kind::kRoute:
            return route(event.what);
        case Event::Kind::kArrive:
            return arrive(event.what);
        case Event::Kind::kNotice:
            free_notices_.push_back(static_cast<std::uint32_t>(event.detail));
            return routing_.hear(notices_[event.detail], now_);
        case Event::Kind::kReport:
            if (progress_.started > progress_.ended || !exhausted_) {
                report(event.what);
                events_.add(now_ + scenario_.report_every, event);
            }
            return;
        case Event::Kind::kStepEnd:
            return end_step(event.what);
        case Event::Kind::kWake:
            if (fleet_.worker(event.what).wake_up == event.detail) step(event.what);
            return;
        case Event::Kind::kCrash:
            return crash(event.what);
        case Event::Kind::kResize:
            return resize(scenario_.resizes[event.what]);
        case Event::Kind::kUp:
            if (!fleet_.worker(event.what).gone) {
                fleet_.worker(event.what).up = true;
                routing_.set_open(event.what, true);
            }
            return note_workers();
    }
}

/// Reads the workload as far as it must be known now: until a request that starts later, or that a
/// closed loop has no place for yet.
void FleetSim::pull() {
    while (!exhausted_) {
        if (!ahead_) {
            auto spec = workload_.next();
            if (!spec) {
                exhausted_ = true;
                return;
            }
            if (spec->after) {
                if (auto ready = sessions_.add(std::move(*spec))) {
                    const Nanos at = now_ + ready->start;
                    events_.add(at, {Event::Kind::kStart, take_place(std::move(*ready)), 0});
                }
                continue;
            }
            ahead_ = std::move(*spec);
        }
        if (!closed_) {
            events_.add(std::max(now_, ahead_->start), {Event::Kind::kArrival, 0, 0});
            return;
        }
        if (sessions_.open() >= scenario_.workload.concurrency) return;
        RequestSpec spec = std::move(*ahead_);
        ahead_.reset();
        auto ready = sessions_.add(std::move(spec));
        events_.add(now_, {Event::Kind::kStart, take_place(std::move(*ready)), 0});
    }
}

std::uint32_t FleetSim::take_place(RequestSpec spec) {
    if (free_places_.empty()) {
        STATOR_CHECK(live_.size() < (1U << kSlotBits), "requests under way have a number");
        free_places_.push_back(static_cast<std::uint32_t>(live_.size()));
        live_.emplace_back();
    }
    const std::uint32_t place = free_places_.back();
    free_places_.pop_back();
    live_[place].spec = std::move(spec);
    return place;
}

void FleetSim::start(std::uint32_t place) {
    Live& live = live_[place];
    live.started = true;
    live.record.index = live.spec.index;
    live.record.intended = seconds(now_);
    live.record.sent = live.record.intended;
    ++progress_.started;
    route(place);
}

Leg FleetSim::first_leg(const Live& live) const {
    if (!live.spec.images.empty() && !live.encoded && fleet_.has(Role::kEncode))
        return Leg::kEncode;
    return fleet_.has(Role::kPrefill) ? Leg::kPrefill : Leg::kWhole;
}

/// The size of the blocks that workers for this leg cut prompts into: the first group's.
std::uint32_t FleetSim::block_tokens(Leg leg) const {
    const Role role = role_of(leg);
    for (const Group& g : scenario_.groups) {
        if (g.role == role) return g.core.block_tokens;
    }
    return 1;
}

/// Decides who gets its next leg, and sends it there.
void FleetSim::route(std::uint32_t place) {
    Live& live = live_[place];
    if (live.leg != Leg::kDecode) live.leg = first_leg(live);
    live.request = leg_request(live, block_tokens(live.leg), place);
    auto decision = routing_.book(live.spec, live.request, live.tried, now_);
    if (!decision) return nobody_takes(place);
    live.worker = decision->chosen.rank;
    live.decoder = decision->chosen.decode_rank;
    live.booking = decision->booking;
    const bool whole = live.leg == Leg::kWhole || live.decoder != kNobody;
    if (whole && live.moves == 0 && live.tried.empty()) {
        live.booked = seconds(now_);
        live.predicted = decision->chosen.ttft_s();
    }
    if (scenario_.request_delay.count() == 0 || live.leg == Leg::kDecode) return arrive(place);
    events_.add(now_ + scenario_.request_delay, {Event::Kind::kArrive, place, 0});
}

/// The leg reaches its worker.
void FleetSim::arrive(std::uint32_t place) {
    Live& live = live_[place];
    SimWorker& worker = fleet_.worker(live.worker);
    if (worker.gone) return lose(place);
    const std::uint32_t block = fleet_.group_of(live.worker).core.block_tokens;
    if (block != block_tokens(live.leg)) live.request = leg_request(live, block, place);
    auto taken = worker.core->submit(std::move(live.request));
    if (!taken && taken.error().code == ErrorCode::kOverloaded) {
        unbook(live);
        live.tried.push_back(live.worker);
        return route(place);
    }
    if (!taken)
        return end(place, Outcome::kHttpError, "http 400: does not fit the cache or context");
    live.tried.clear();
    live.record.worker = live.worker;
    worker.booking = std::max(worker.booking, live.booking.value);
    step(live.worker);
}

void FleetSim::unbook(Live& live) {
    if (live.booking.value == 0) return;
    Notice n;
    n.kind = Notice::Kind::kEnded;
    n.booking = std::exchange(live.booking, {});
    tell(n);
}

/// The router hears of it, as late as a client would.
void FleetSim::tell(const Notice& notice) {
    if (scenario_.response_delay.count() == 0) return routing_.hear(notice, now_);
    if (free_notices_.empty()) {
        free_notices_.push_back(static_cast<std::uint32_t>(notices_.size()));
        notices_.emplace_back();
    }
    const std::uint32_t at = free_notices_.back();
    free_notices_.pop_back();
    notices_[at] = notice;
    events_.add(now_ + scenario_.response_delay, {Event::Kind::kNotice, 0, at});
}

void FleetSim::report(std::uint32_t index) {
    const SimWorker& w = fleet_.worker(index);
    if (w.gone) return;
    Notice n;
    n.worker = index;
    n.booking = router::BookingId(w.booking);
    n.load = w.core->load();
    tell(n);
}

CoreRequest FleetSim::leg_request(Live& live, std::uint32_t block, std::uint32_t place) {
    CoreRequest r;
    live.id = (++next_id_ << kSlotBits) | place;
    r.id = RequestId(live.id);
    PromptBuilder& builder = builders_.try_emplace(block, block).first->second;
    builder.build(
        live.spec, live.output,
        [&](std::uint64_t index) { return sessions_.output(live.spec.session, index); }, r);
    if (live.leg == Leg::kDecode && !keeps_outputs_) STATOR_ASSERT(live.output.empty());
    if (live.encoded) r.images.clear();
    r.max_tokens = std::max(1U, live.spec.output_tokens - live.record.output_tokens);
    r.ignore_eos = true;
    r.adapter = live.spec.adapter.empty()
                    ? 0
                    : static_cast<std::uint32_t>(std::hash<std::string>{}(live.spec.adapter) | 1);
    r.priority = live.spec.priority;
    r.leg = live.leg;
    return r;
}

void FleetSim::nobody_takes(std::uint32_t place) {
    Live& live = live_[place];
    const bool anybody = fleet_.anybody_up(role_of(live.leg));
    if (live.leg == first_leg(live) && live.moves == 0 && !live.encoded) {
        return end(place, Outcome::kRefused,
                   anybody ? "every worker is full" : "no worker is ready");
    }
    if (!anybody) return end(place, Outcome::kServerError, "no worker is left");
    live.tried.clear();
    events_.add(now_ + kAskAgain, {Event::Kind::kRoute, place, 0});
}

void FleetSim::release_prefill(Live& live) {
    if (live.prefiller == kNobody) return;
    const std::uint32_t worker = std::exchange(live.prefiller, kNobody);
    if (fleet_.worker(worker).gone) return;
    fleet_.worker(worker).core->release(RequestId(live.prefill_id));
    step(worker);
}

void FleetSim::end(std::uint32_t place, Outcome outcome, std::string reason) {
    Live& live = live_[place];
    release_prefill(live);
    unbook(live);
    live.record.outcome = outcome;
    live.record.reason = std::move(reason);
    live.record.end = outcome == Outcome::kOk
                          ? live.last_token
                          : std::max(live.last_token, seconds(now_ + scenario_.response_delay));
    live.record.gaps = live.gaps;
    collector_.add(live.record);
    ++progress_.ended;
    const RequestSpec spec = std::move(live.spec);
    std::vector<TokenId> output = std::move(live.output);
    std::vector<float> gaps = std::move(live.gaps);
    gaps.clear();
    live_[place] = Live{};
    live_[place].gaps = std::move(gaps);  // keeps its memory
    free_places_.push_back(place);
    if (over_) return;
    for (RequestSpec& next : sessions_.ended(spec, std::move(output))) {
        const Nanos at = now_ + scenario_.response_delay + next.start;
        events_.add(at, {Event::Kind::kStart, take_place(std::move(next)), 0});
    }
    if (closed_) pull();
}

/// Its worker is gone: what it has so far is kept, the rest comes from another one.
void FleetSim::lose(std::uint32_t place) {
    Live& live = live_[place];
    live.worker = kNobody;
    live.id = 0;
    release_prefill(live);
    unbook(live);
    live.predicted = -1;
    if (live.moves == scenario_.max_moves) {
        return end(place, Outcome::kServerError, "its workers were lost");
    }
    ++live.moves;
    ++moved_;
    live.leg = Leg::kWhole;
    route(place);
}

void FleetSim::step(std::uint32_t index) {
    SimWorker& w = fleet_.worker(index);
    if (w.in_step || w.gone) return;
    const Nanos begin = w.faults.after_hang(now_);
    if (begin > now_) {
        events_.add(begin, {Event::Kind::kWake, index, ++w.wake_up});
        return;
    }
    const auto plan = w.core->begin_step(now_);
    if (plan) {
        w.in_step = true;
        const auto length = w.speed == 1.0
                                ? plan->duration
                                : Nanos(static_cast<std::int64_t>(
                                      static_cast<double>(plan->duration.count()) / w.speed));
        const Nanos end = w.faults.step_end(now_, length);
        w.step = plan->shape;
        w.step_length = end - now_;
        events_.add(end, {Event::Kind::kStepEnd, index, 0});
    } else if (const auto ready = w.core->next_ready()) {
        events_.add(std::max(now_, *ready), {Event::Kind::kWake, index, ++w.wake_up});
    }
    changes_.clear();
    w.core->take_changes(changes_);
}

void FleetSim::end_step(std::uint32_t index) {
    SimWorker& w = fleet_.worker(index);
    if (w.gone) return;
    w.in_step = false;
    std::vector<CoreOutput> outputs = std::move(step_outputs_);
    outputs.clear();
    w.core->end_step(outputs);
    routing_.step_ended(index, w.step_length, w.step);
    for (const CoreOutput& out : outputs) output(out);
    step_outputs_ = std::move(outputs);
    step(index);
    if (scenario_.report_every.count() == 0) report(index);
}

void FleetSim::output(const CoreOutput& out) {
    const auto place = static_cast<std::uint32_t>(out.id.value & ((1U << kSlotBits) - 1));
    Live& live = live_[place];
    if (live.id != out.id.value) return;  // ended meanwhile
    const bool counts = live.leg == Leg::kWhole || live.leg == Leg::kPrefill;
    if (counts && !live.counted && (out.first || out.finish)) {
        live.counted = true;
        live.record.input_tokens = out.prompt_tokens;
        live.record.cached_tokens = out.cached_tokens;
    }
    if (counts && (out.first || out.finish) && live.booking.value != 0) {
        Notice n;
        n.kind = Notice::Kind::kPromptDone;
        n.booking = live.booking;
        n.cached_tokens = out.cached_tokens;
        tell(n);
    }
    if (out.has_token) {
        const double at = seconds(now_ + scenario_.response_delay);
        if (live.record.output_tokens++ == 0) {
            live.record.first_token = at;
            if (live.predicted >= 0) routing_.note_prediction(live.predicted, at - live.booked);
        } else {
            live.gaps.push_back(static_cast<float>(at - live.last_token));
        }
        live.last_token = at;
        if (keeps_outputs_) live.output.push_back(out.token);
        if (live.prefiller != kNobody) release_prefill(live);
    }
    if (out.finish) leg_ended(place, out);
}

void FleetSim::leg_ended(std::uint32_t place, const CoreOutput&) {
    Live& live = live_[place];
    switch (live.leg) {
        case Leg::kWhole:
        case Leg::kDecode:
            return end(place, Outcome::kOk, "");
        case Leg::kPrefill:
            live.prefiller = live.worker;
            live.prefill_id = live.id;
            live.leg = Leg::kDecode;
            return go_on_with_decode(place);
        case Leg::kEncode:
            live.encoded = true;
            live.leg = Leg::kWhole;
            unbook(live);
            events_.add(now_ + fleet_.group_of(live.worker).core.handoff_latency,
                        {Event::Kind::kRoute, place, 0});
            return;
    }
}

/// Its prompt is computed: on to the decode worker, who was chosen before or is chosen now.
void FleetSim::go_on_with_decode(std::uint32_t place) {
    Live& live = live_[place];
    const std::uint32_t decoder = std::exchange(live.decoder, kNobody);
    if (decoder == kNobody || fleet_.worker(decoder).gone) {
        unbook(live);
        return route(place);
    }
    live.request = leg_request(live, fleet_.group_of(decoder).core.block_tokens, place);
    live.worker = decoder;
    arrive(place);
}

void FleetSim::crash(std::uint32_t index) {
    SimWorker& w = fleet_.worker(index);
    w.up = false;
    w.gone = true;
    routing_.set_open(index, false);
    note_workers();
    for (std::uint32_t place = 0; place < live_.size(); ++place) {
        if (live_[place].id != 0 && live_[place].worker == index) lose(place);
    }
}

void FleetSim::resize(const Resize& resize) {
    const std::vector<std::uint32_t> made = fleet_.resize(resize.group, resize.workers);
    routing_.add_workers();
    for (std::uint32_t w = 0; w < fleet_.size(); ++w) routing_.set_open(w, fleet_.worker(w).up);
    for (const std::uint32_t w : made) {
        events_.add(now_ + scenario_.start_up, {Event::Kind::kUp, w, 0});
        if (const auto at = fleet_.worker(w).faults.crash(); at && *at > now_) {
            events_.add(*at, {Event::Kind::kCrash, w, 0});
        }
    }
    note_workers();
}

void FleetSim::note_workers() {
    if (scenario_.resizes.empty() && scenario_.faults.empty()) return;
    for (std::size_t g = 0; g < scenario_.groups.size(); ++g) {
        collector_.note("workers: " + scenario_.groups[g].name, "workers", seconds(now_),
                        fleet_.up(g));
    }
}

}  // namespace

report::Report run_scenario(const Scenario& scenario, workload::Workload& workload,
                            const RunOptions& options) {
    return FleetSim(scenario, workload, options).run();
}

}  // namespace stator::sim
