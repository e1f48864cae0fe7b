#include "stator/control/planner/planner_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "stator/base/log.h"
#include "stator/codec/json_writer.h"

namespace stator::control {
namespace {

using planner::Action;
using planner::Decision;
using planner::Observation;
using planner::Planner;
using planner::Role;
using planner::WorkerObservation;
using planner::WorkerState;

constexpr std::size_t kUsualLimit = 20;
constexpr std::chrono::nanoseconds kSilent = std::chrono::seconds(7);
constexpr std::chrono::nanoseconds kForget = std::chrono::seconds(60);

/// Sums over ranks; none where no rank has told.
void add(std::optional<protocol::ForwardPassMetrics>& sum,
         const std::optional<protocol::ForwardPassMetrics>& more) {
    if (!more) return;
    if (!sum) sum.emplace();
    sum->steps += more->steps;
    sum->prefill_tokens += more->prefill_tokens;
    sum->decode_tokens += more->decode_tokens;
    sum->cached_tokens += more->cached_tokens;
    sum->preemptions += more->preemptions;
    sum->model_seconds += more->model_seconds;
    sum->exported_tokens += more->exported_tokens;
    sum->imported_tokens += more->imported_tokens;
}

void add(protocol::LoadReport& sum, const protocol::LoadReport& more) {
    sum.running += more.running;
    sum.waiting += more.waiting;
    sum.running_limit += more.running_limit;
    sum.waiting_limit += more.waiting_limit;
    sum.waiting_tokens += more.waiting_tokens;
    sum.kv_used_tokens += more.kv_used_tokens;
    sum.kv_cached_tokens += more.kv_cached_tokens;
    sum.kv_total_tokens += more.kv_total_tokens;
}

WorkerState state_of(const WorkerSample& sample) {
    if (sample.info->draining || sample.state == fleet::MemberState::kDraining) {
        return WorkerState::kDraining;
    }
    return sample.state == fleet::MemberState::kReady ? WorkerState::kReady
                                                      : WorkerState::kStarting;
}

WorkerObservation observed(const WorkerSample& sample) {
    WorkerObservation worker;
    worker.name = sample.info->name;
    worker.role = sample.info->roles.front();
    worker.state = state_of(sample);
    protocol::LoadReport load;
    for (const RankSample& rank : sample.ranks) {
        add(load, rank.load);
        add(worker.passes, rank.forward);
    }
    if (worker.state != WorkerState::kStarting) worker.load = load;
    return worker;
}

/// A worker and its successor may be there together: the one that serves counts.
int rank_of(WorkerState state) {
    return state == WorkerState::kReady ? 2 : state == WorkerState::kStarting ? 1 : 0;
}

struct Query {
    std::size_t limit = kUsualLimit;
    bool text = false;
};

Result<Query> read_query(std::string_view query) {
    Query out;
    while (!query.empty()) {
        const auto end = query.find('&');
        const std::string_view pair = query.substr(0, end);
        query = end == std::string_view::npos ? "" : query.substr(end + 1);
        if (pair == "format=text") {
            out.text = true;
        } else if (pair == "format=json" || pair.empty()) {
            continue;
        } else if (pair.starts_with("limit=")) {
            const std::string_view number = pair.substr(6);
            const auto read =
                std::from_chars(number.data(), number.data() + number.size(), out.limit);
            if (read.ec != std::errc{} || read.ptr != number.data() + number.size() ||
                out.limit == 0) {
                return error(ErrorCode::kInvalidArgument,
                             "limit must be a whole number from 1, not \"{}\"",
                             number.substr(0, 20));
            }
        } else {
            return error(ErrorCode::kInvalidArgument,
                         "the query takes limit=N and format=json or format=text");
        }
    }
    return out;
}

}  // namespace

Result<std::unique_ptr<PlannerService>> PlannerService::start(PlannerServiceOptions options,
                                                              FleetWatch& watch, DemandFeed& feed,
                                                              std::shared_ptr<Actuator> actuator,
                                                              metrics::Registry& registry,
                                                              const Clock& clock) {
    options.planner.advisory = options.planner.advisory || actuator == nullptr;
    auto made = Planner::make(options.planner);
    if (!made) return tl::unexpected(made.error());
    std::unique_ptr<PlannerService> service(new PlannerService(
        std::move(options), std::move(*made), watch, feed, std::move(actuator), registry, clock));
    service->thread_ = std::thread([s = service.get()] { s->run(); });
    return service;
}

PlannerService::PlannerService(PlannerServiceOptions options, std::unique_ptr<Planner> planner,
                               FleetWatch& watch, DemandFeed& feed,
                               std::shared_ptr<Actuator> actuator, metrics::Registry& registry,
                               const Clock& clock)
    : options_(std::move(options)),
      planner_(std::move(planner)),
      watch_(watch),
      feed_(feed),
      actuator_(std::move(actuator)),
      registry_(registry),
      clock_(clock),
      lease_(options_.lease_file),
      waits_for_("the first workers"),
      last_tick_(clock.now()) {}

PlannerService::~PlannerService() { stop(); }

void PlannerService::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    stopping_changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

void PlannerService::run() {
    const auto interval = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::duration<double>(options_.planner.interval_s));
    TimePoint next = clock_.now() + interval;
    for (;;) {
        {
            std::unique_lock lock(mutex_);
            const auto left = std::max(next - clock_.now(), std::chrono::nanoseconds(0));
            if (stopping_changed_.wait_for(lock, left, [this] { return stopping_; })) return;
            if (clock_.now() < next) continue;
        }
        tick();
        // Windows that were slept through are not made up for.
        while (next <= clock_.now()) next = next + interval;
    }
}

/// The model that is sized: the one named, else the only one.
std::optional<std::string> PlannerService::model_of(
    const std::vector<WorkerSample>& workers) const {
    if (!options_.model.empty()) return options_.model;
    std::set<std::string> names;
    for (const WorkerSample& worker : workers) {
        if (!worker.info->card.name.empty()) names.insert(worker.info->card.name);
    }
    if (names.size() == 1) return *names.begin();
    return std::nullopt;
}

Observation PlannerService::observe(const std::string& model,
                                    const std::vector<WorkerSample>& workers, TimePoint now) {
    Observation out;
    const double seconds = to_seconds(now - last_tick_);
    last_tick_ = now;
    auto demand = feed_.take(now + -kForget);
    // Frontends that have nothing to tell say so every five seconds.
    const TimePoint heard = feed_.heard_at();
    if (heard != TimePoint{} && heard > now + -kSilent && seconds > 0) {
        // What was refused before it was read is for the model that most is asked of: this one.
        protocol::DemandTotals totals = demand[model];
        control::add(totals, demand[""]);
        out.demand = planner::window_of({}, totals, seconds, options_.planner.slo);
    }
    if (options_.queued) out.queued = options_.queued();

    std::map<std::string, WorkerObservation> found;
    const auto take = [&found](WorkerObservation worker) {
        const auto [at, fresh] = found.try_emplace(worker.name, worker);
        if (!fresh && rank_of(worker.state) > rank_of(at->second.state)) {
            at->second = std::move(worker);
        }
    };
    for (const WorkerSample& sample : workers) {
        const bool ours = sample.info->card.name == model || sample.info->card.name.empty();
        if (!ours || sample.state == fleet::MemberState::kGone || sample.info->roles.empty()) {
            continue;
        }
        take(observed(sample));
    }
    if (actuator_) {
        for (WorkerObservation& worker : actuator_->known()) {
            // A process that is told to end drains, whatever the fleet has heard of it.
            const auto at = found.find(worker.name);
            if (at != found.end() && worker.state == WorkerState::kDraining) {
                at->second.state = WorkerState::kDraining;
            } else {
                take(std::move(worker));
            }
        }
    }
    for (auto& [name, worker] : found) out.workers.push_back(std::move(worker));
    return out;
}

void PlannerService::tick() {
    const TimePoint now = clock_.now();
    for (const auto& ask : options_.ask_demand) ask(feed_, now);
    const auto view = options_.view();
    watch_.follow(*view);
    const auto workers = watch_.read(*view);
    const auto model = model_of(workers);
    std::vector<Action> actions;
    std::string line;
    {
        const std::lock_guard lock(mutex_);
        if (!lease_.held()) {
            waits_for_ = lease_.reason();
            return;
        }
        if (!model) {
            waits_for_ = workers.empty() ? "the first workers"
                                         : "a model's name: the fleet has workers of several "
                                           "models (--planner-model)";
            return;
        }
        waits_for_.clear();
        const Decision& decision = planner_->tick(observe(*model, workers, now), now);
        actions = decision.actions;
        line = headline(decision);
        show_in_metrics(decision);
    }
    if (!actions.empty()) {
        log_info("The planner has decided.", {{"decision", line}});
        carry_out(actions);
    }
}

void PlannerService::carry_out(const std::vector<Action>& actions) {
    if (!actuator_) return;
    for (const Action& action : actions) {
        if (options_.planner.advisory) return;
        const auto done = actuator_->carry_out(action);
        if (done) continue;
        log_warn("An order of the planner's was refused.",
                 {{"order", std::string(to_string(action.kind))},
                  {"role", std::string(to_string(action.role))},
                  {"by", std::string(actuator_->name())},
                  {"reason", done.error().message}});
        const std::lock_guard lock(mutex_);
        planner_->refused(action.id, done.error().message, clock_.now());
    }
}

void PlannerService::set_gauge(std::string_view name, std::string_view help, metrics::Labels labels,
                               double v) {
    registry_.gauge(name, help, std::move(labels)).set(v);
}

void PlannerService::show_in_metrics(const Decision& decision) {
    for (const planner::RoleDecision& role : decision.roles) {
        const std::string name(to_string(role.role));
        const auto workers = [&](const char* state, std::uint32_t n) {
            set_gauge("stator_planner_workers", "Workers as the planner counts them.",
                      {{"role", name}, {"state", state}}, n);
        };
        workers("ready", role.counts.ready);
        workers("starting", role.counts.starting);
        workers("ordered", role.counts.ordered);
        workers("stuck", role.counts.stuck);
        workers("draining", role.counts.draining);
        set_gauge("stator_planner_need_workers", "Workers that the forecast asks for.",
                  {{"role", name}}, role.need);
        set_gauge("stator_planner_target_workers", "Workers wanted, after all constraints.",
                  {{"role", name}}, role.target);
        set_gauge("stator_planner_margin",
                  "What the demand is multiplied with, as missed limits "
                  "taught.",
                  {{"role", name}}, role.margin);
    }
    for (const planner::ForecastView& f : decision.forecasts) {
        const std::string horizon = fmt::format("{:.0f}s", f.horizon_s);
        set_gauge("stator_planner_forecast", "Per second: the mean that is foretold.",
                  {{"of", f.of}, {"horizon", horizon}}, f.mean);
        set_gauge("stator_planner_forecast_sized", "Per second: what the fleet is sized for.",
                  {{"of", f.of}, {"horizon", horizon}}, f.sized);
        set_gauge("stator_planner_actual", "Per second, in the last window.", {{"of", f.of}},
                  f.actual);
    }
    set_gauge("stator_planner_degraded",
              "Things that are wrong with what the planner sees or does.", {},
              static_cast<double>(decision.degraded.size()));
    const Planner::Totals& totals = planner_->totals();
    const auto count = [this](const char* name, const char* help,
                              std::uint64_t Planner::Totals::* m, metrics::Labels labels,
                              const Planner::Totals& all) {
        registry_.counter(name, help, std::move(labels)).add(all.*m - shown_.*m);
    };
    const char* orders = "Workers that were ordered to start, drain or move.";
    count("stator_planner_orders_total", orders, &Planner::Totals::started, {{"kind", "start"}},
          totals);
    count("stator_planner_orders_total", orders, &Planner::Totals::drained, {{"kind", "drain"}},
          totals);
    count("stator_planner_orders_total", orders, &Planner::Totals::moved, {{"kind", "move"}},
          totals);
    count("stator_planner_orders_without_effect_total",
          "Orders whose effect was not seen in their time.", &Planner::Totals::without_effect, {},
          totals);
    count("stator_planner_orders_refused_total", "Orders that an actuator would not carry out.",
          &Planner::Totals::refused, {}, totals);
    count("stator_planner_ticks_total", "Decisions.", &Planner::Totals::ticks, {}, totals);
    shown_ = totals;
}

std::vector<std::string> PlannerService::concerns() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> out;
    if (planner_->decisions().empty()) return out;
    for (const std::string& what : planner_->decisions().back().degraded) {
        out.push_back("planner: " + what);
    }
    return out;
}

Result<std::string> PlannerService::show(std::string_view target) const {
    const auto question = target.find('?');
    const std::string_view path = target.substr(0, question);
    auto query = read_query(question == std::string_view::npos ? "" : target.substr(question + 1));
    if (!query) return tl::unexpected(query.error());
    const std::lock_guard lock(mutex_);
    const auto& all = planner_->decisions();
    const TimePoint now = clock_.now();
    const auto unix_now = static_cast<double>(clock_.unix_seconds());
    const auto decision_json = [&](const Decision& decision) {
        std::string json;
        write_json(json, decision, now, unix_now);
        return json;
    };
    std::string out;
    if (path == "/planner/decisions") {
        const std::size_t n = std::min(query->limit, all.size());
        if (query->text) {
            for (std::size_t i = all.size() - n; i < all.size(); ++i) out += explain(all[i], now);
            if (n == 0) out = "No decision yet: waiting for " + waits_for_ + ".\n";
            return out;
        }
        codec::JsonWriter w(out);
        w.begin_object().key("decisions").begin_array();
        for (std::size_t i = 0; i < n; ++i) w.raw(decision_json(all[all.size() - 1 - i]));
        w.end_array().end_object();
        return out;
    }
    if (path != "/planner") {
        return error(ErrorCode::kNotFound, "there is /planner and /planner/decisions");
    }
    codec::JsonWriter w(out);
    const planner::PlannerOptions& o = planner_->options();
    w.begin_object().key("policy").string(to_string(o.policy));
    w.key("acts").boolean(!o.advisory);
    w.key("actuator").string(actuator_ ? actuator_->name() : "nobody");
    w.key("interval_s").number(o.interval_s).key("predictor").string(o.predictor);
    w.key("quantile").number(o.quantile);
    w.key("slo").begin_object().key("ttft_s").number(o.slo.ttft_s);
    w.key("itl_s").number(o.slo.itl_s).key("share").number(o.slo.share).end_object();
    w.key("roles").begin_array();
    for (const planner::RoleOptions& role : o.roles) {
        w.begin_object().key("role").string(to_string(role.role));
        w.key("min").number(role.min).key("max").number(role.max).end_object();
    }
    w.end_array();
    w.key("waits_for");
    if (waits_for_.empty()) {
        w.null();
    } else {
        w.string(waits_for_);
    }
    const Planner::Totals& t = planner_->totals();
    w.key("totals").begin_object().key("ticks").number(t.ticks);
    w.key("started").number(t.started).key("drained").number(t.drained);
    w.key("moved").number(t.moved).key("without_effect").number(t.without_effect);
    w.key("refused").number(t.refused).end_object();
    w.key("last").raw(all.empty() ? std::string("null") : decision_json(all.back()));
    w.end_object();
    return out;
}

}  // namespace stator::control
