#include "stator/sim/scenario.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "stator/config/value.h"
#include "stator/engine/mock/step_time_file.h"
#include "stator/planner/planner.h"

namespace stator::sim {
namespace {

std::string as_sentence(std::string text) {
    if (!text.ends_with('?') && !text.ends_with('.')) text += '.';
    return text;
}

using config::YamlFields;
using config::YamlTree;
using protocol::Role;

constexpr double kLongest_s = 1e7;
constexpr std::uint64_t kMostWorkers = 1'000'000;

Nanos nanos(double seconds) { return Nanos(std::llround(seconds * 1e9)); }

class ScenarioReader {
  public:
    explicit ScenarioReader(std::string_view file) : file_(file) {}

    tl::expected<Scenario, config::Problems> read(const YamlTree& tree) {
        YamlFields f(tree, file_, "the scenario", problems_);
        f.text("name", s_.name);
        fleet(f, tree);
        routing(f);
        slo(f);
        planner(f);
        workload(f, tree);
        faults(f);
        f.seconds("end_after", s_.end_after_s, 0, kLongest_s);
        f.finish();
        if (problems_.empty()) check(tree);
        if (!problems_.empty()) return tl::unexpected(std::move(problems_));
        return std::move(s_);
    }

  private:
    void fleet(YamlFields& f, const YamlTree& tree) {
        const YamlTree* list = f.find("fleet");
        if (list == nullptr) {
            return f.problem(tree, "fleet is missing: a list of groups of workers.");
        }
        const bool one = list->kind == YamlTree::Kind::kMap;
        if (!one && (list->kind != YamlTree::Kind::kList || list->items.empty())) {
            return f.problem(*list, "fleet must be a list of groups of workers.");
        }
        if (one) return group(*list);
        for (const YamlTree& item : list->items) group(item);
    }

    void group(const YamlTree& node) {
        Group g;
        if (!s_.groups.empty()) g.name = fmt::format("workers-{}", s_.groups.size());
        YamlFields f(node, file_, "a group of the fleet", problems_);
        f.text("name", g.name);
        for (const Group& other : s_.groups) {
            if (other.name == g.name) {
                f.problem(node, fmt::format("There are two groups called {}.", g.name));
            }
        }
        role(f, g);
        f.count("workers", g.workers, 0, kMostWorkers);
        f.number("speed", g.speed, 0.001, 1000);
        f.number("speed_noise", g.speed_noise, 0, 1);
        engine(f, node, g);
        f.finish();
        s_.groups.push_back(std::move(g));
    }

    void role(YamlFields& f, Group& g) {
        std::string word;
        f.text("role", word);
        if (word.empty()) return;
        g.roles = {};
        for (std::string_view rest = word; !rest.empty();) {
            const std::size_t plus = std::min(rest.find('+'), rest.size());
            const std::string_view name = rest.substr(0, plus);
            rest.remove_prefix(std::min(plus + 1, rest.size()));
            const auto role = role_named(name);
            if (!role) {
                f.problem(*f.find("role"),
                          fmt::format("role is {}; it must be aggregated, prefill, decode or "
                                      "encode, or several of these with + between them.",
                                      config::in_quotes(word)));
                return;
            }
            if (g.roles.bits() == 0) g.role = *role;
            g.roles.add(*role);
        }
    }

    static std::optional<Role> role_named(std::string_view name) {
        for (const Role role : {Role::kAggregated, Role::kPrefill, Role::kDecode, Role::kEncode}) {
            if (name == to_string(role)) return role;
        }
        return std::nullopt;
    }

    void engine(YamlFields& f, const YamlTree& node, Group& g) {
        engine::mock::CoreOptions& o = g.core;
        std::string preset = "constant-10ms";
        f.text("preset", preset);
        if (const auto found = engine::mock::find_preset(preset)) {
            o.step_time = (*found)->step_time;
            o.kv_bytes_per_token = (*found)->kv_bytes_per_token;
            o.blocks = (*found)->blocks;
            g.engine = preset;
        } else {
            const YamlTree* at = f.find("preset");
            f.problem(at != nullptr ? *at : node, as_sentence(found.error().message));
        }
        if (const YamlTree* time = f.find("step_time")) {
            o.step_time = engine::mock::read_step_time(*time, file_, problems_);
            g.engine = "own step time";
        }
        constexpr std::uint64_t kMany = 100'000'000;
        f.count("blocks", o.blocks, 1, kMany);
        f.count("block_tokens", o.block_tokens, 1, 65'536);
        f.count("context_tokens", o.context_tokens, 2, kMany);
        f.count("max_running", o.max_running, 1, 1'000'000);
        f.count("max_waiting", o.max_waiting, 0, kMany);
        f.count("step_tokens", o.step_tokens, 1, kMany);
        f.flag("chunked_prefill", o.chunked_prefill);
        f.flag("prefix_cache", o.prefix_cache);
        f.count("kv_bytes_per_token", o.kv_bytes_per_token, 1, 1ULL << 32);
        tier(f, "host", o.host);
        tier(f, "disk", o.disk);
        f.number("handoff_gb_per_s", o.handoff_gb_per_s, 0, 1e6);
        double latency = to_seconds(o.handoff_latency);
        f.seconds("handoff_latency", latency, 0, 60);
        o.handoff_latency = nanos(latency);
        f.count("max_adapters", o.max_adapters, 1, 10'000);
        double load = to_seconds(o.adapter_load);
        f.seconds("adapter_load", load, 0, 600);
        o.adapter_load = nanos(load);
        f.count("encoder_cache_tokens", o.encoder_cache_tokens, 0, kMany);
        f.number("noise", o.noise, 0, 1);
    }

    void tier(YamlFields& f, std::string_view name, engine::mock::TierOptions& tier) {
        const YamlTree* node = f.find(name);
        if (node == nullptr) return;
        YamlFields t(*node, file_, name, problems_);
        t.count("blocks", tier.blocks, 1, 1'000'000'000);
        t.number("read_gb_per_s", tier.read_gb_per_s, 0, 1e6);
        t.number("write_gb_per_s", tier.write_gb_per_s, 0, 1e6);
        t.finish();
    }

    void routing(YamlFields& f) {
        const YamlTree* node = f.find("router");
        if (node == nullptr) return;
        YamlFields r(*node, file_, "router", problems_);
        router::PolicyOptions& o = s_.router;
        std::string policy;
        r.text("policy", policy);
        if (const auto known = router::find_policy(policy)) {
            o.policy = *known;
        } else if (!policy.empty()) {
            std::string names;
            for (const router::Policy p : router::all_policies()) {
                names += fmt::format("{}{}", names.empty() ? "" : ", ", router::to_string(p));
            }
            r.problem(*r.find("policy"), fmt::format("policy is {}; it must be one of {}.",
                                                     config::in_quotes(policy), names));
        }
        if (o.policy == router::Policy::kDirect) {
            r.problem(*r.find("policy"),
                      "policy direct needs requests that name their worker; "
                      "those of a scenario do not.");
        }
        constexpr double kMost = 1e6;
        r.count("fallbacks", o.fallbacks, 0, 64);
        r.number("work_weight", o.work_weight, 0, kMost);
        r.number("queue_weight", o.queue_weight, 0, kMost);
        r.number("itl_weight", o.itl_weight, 0, kMost);
        r.number("split_itl_weight", o.split_itl_weight, 0, kMost);
        r.number("occupancy_weight", o.occupancy_weight, 0, kMost);
        r.number("error_band", o.error_band, 0, 100);
        r.number("overlap_weight", o.overlap_weight, 0, kMost);
        r.number("temperature", o.temperature, 0, kMost);
        r.flag("track_prefill_tokens", o.track_prefill_tokens);
        r.number("host_weight", o.host_weight, 0, 1);
        r.count("prefix_blocks", o.prefix_blocks, 1, 1'000'000);
        r.seconds("session_slack", o.session_slack_s, 0, kMost);
        r.seconds("session_ttl", o.session_ttl_s, 0, 31'536'000);
        r.count("max_sessions", o.max_sessions, 0, 100'000'000);
        r.flag("refuse_without_kv_room", o.refuse_without_kv_room);
        std::string disaggregation(router::to_string(o.disaggregation));
        r.text("disaggregation", disaggregation);
        if (const auto known = router::find_disaggregation(disaggregation)) {
            o.disaggregation = *known;
        } else {
            r.problem(*r.find("disaggregation"),
                      fmt::format("disaggregation is {}; it must be conditional, always or never.",
                                  config::in_quotes(disaggregation)));
        }
        std::string sessions = "none";
        r.text("sessions", sessions);
        if (sessions == "soft") {
            s_.sessions = Scenario::Sessions::kSoft;
        } else if (sessions == "hard") {
            s_.sessions = Scenario::Sessions::kHard;
        } else if (sessions != "none") {
            r.problem(*r.find("sessions"), fmt::format("sessions is {}; it must be none, soft or "
                                                       "hard.",
                                                       config::in_quotes(sessions)));
        }
        double report = 0;
        r.seconds("report_every", report, 0, 60);
        s_.report_every = nanos(report);
        queue(r);
        double request = 0;
        double response = 0;
        r.seconds("request_delay", request, 0, 60);
        r.seconds("response_delay", response, 0, 60);
        s_.request_delay = nanos(request);
        s_.response_delay = nanos(response);
        double events = 0;
        r.seconds("events_delay", events, 0, 60);
        s_.events_delay = nanos(events);
        r.count("max_moves", s_.max_moves, 0, 100);
        double wait = to_seconds(s_.wait_for_worker);
        double lease = to_seconds(s_.handoff_lease);
        r.seconds("wait_for_worker", wait, 0, kLongest_s);
        r.seconds("handoff_lease", lease, 1.5, kLongest_s);
        s_.wait_for_worker = nanos(wait);
        s_.handoff_lease = nanos(lease);
        r.count("replicas", s_.replicas.replicas, 1, kMostReplicas);
        r.flag("share_bookings", s_.replicas.share);
        r.number("message_loss", s_.replicas.message_loss, 0, 1);
        double delay = to_seconds(s_.replicas.message_delay);
        r.seconds("message_delay", delay, 0, 60);
        s_.replicas.message_delay = nanos(delay);
        r.finish();
    }

    void queue(YamlFields& r) {
        const YamlTree* node = r.find("queue");
        if (node == nullptr) return;
        YamlFields q(*node, file_, "queue", problems_);
        double hold = 0.3;
        q.seconds("hold", hold, 0, 3600);
        s_.hold_s = hold;
        q.count("requests", s_.queue.most_requests, 1, 1'000'000);
        s_.queue.most_per_tenant = s_.queue.most_requests;
        q.count("per_tenant", s_.queue.most_per_tenant, 1, 1'000'000);
        q.number("stretch", s_.queue.stretch, 0, 1000);
        q.seconds("promote_after", s_.queue.promote_after_s, 0, 86'400);
        q.seconds("quantum", s_.queue.quantum_s, 0.001, 3600);
        q.finish();
    }

    /// Decisions made beforehand, or a planner that makes them.
    void planner(YamlFields& f) {
        const YamlTree* node = f.find("planner");
        if (node == nullptr) return;
        YamlFields p(*node, file_, "planner", problems_);
        double start_up = 0;
        p.seconds("start_up", start_up, 0, kLongest_s);
        s_.start_up = nanos(start_up);
        if (const YamlTree* list = p.find("schedule")) {
            for (const YamlTree& item : list->items) resize(item);
        }
        std::string policy = "schedule";
        p.text("policy", policy);
        if (policy != "schedule") live_planner(p, *node, policy);
        p.finish();
    }

    void live_planner(YamlFields& p, const YamlTree& node, std::string_view policy) {
        PlannerScenario plan;
        planner::PlannerOptions& o = plan.options;
        if (const auto known = planner::find_policy(policy)) {
            o.policy = *known;
        } else {
            p.problem(*p.find("policy"),
                      fmt::format("policy is {}; it must be planned, reactive, static or schedule.",
                                  config::in_quotes(policy)));
        }
        if (!s_.resizes.empty()) {
            p.problem(node, "A planner decides itself; a schedule goes with the policy schedule.");
        }
        o.start_up_s = to_seconds(s_.start_up);
        constexpr double kDay = 86'400;
        if (o.policy == planner::PolicyKind::kReactive) o.interval_s = 5;
        p.seconds("interval", o.interval_s, 0.1, kDay);
        p.text("predictor", o.predictor);
        p.number("quantile", o.quantile, 0.01, 0.995);
        p.seconds("season", o.season_s, 1, 1e7);
        if (s_.slo.ttft_ms) o.slo.ttft_s = *s_.slo.ttft_ms / 1e3;
        if (s_.slo.itl_ms) o.slo.itl_s = *s_.slo.itl_ms / 1e3;
        p.number("share", o.slo.share, 0.5, 0.99999);
        p.count("budget", o.device_budget, 0, kMostWorkers);
        p.seconds("up_cooldown", o.up_cooldown_s, 0, kDay);
        p.seconds("down_cooldown", o.down_cooldown_s, 0, kDay);
        p.seconds("down_after", o.down_after_s, 0, kDay);
        p.number("deadband", o.deadband, 0, 1);
        p.number("hysteresis", o.hysteresis, 0, 10);
        p.count("most_at_once", o.most_at_once, 0, kMostWorkers);
        p.number("margin_gain", o.margin_gain, 0, 10);
        p.number("least_margin", o.least_margin, 0.1, 10);
        p.number("most_margin", o.most_margin, 0.1, 100);
        p.flag("allow_zero", o.allow_zero);
        p.seconds("zero_after", o.zero_after_s, 0, kDay);
        p.flag("profile", plan.profile);
        p.number("start_up_noise", plan.start_up_noise, 0, 2);
        if (const YamlTree* r = p.find("reactive")) {
            YamlFields f(*r, file_, "reactive", problems_);
            f.seconds("ttft", o.reactive.ttft_s, 1e-6, kDay);
            f.seconds("itl", o.reactive.itl_s, 1e-6, kDay);
            f.number("sensitivity", o.reactive.sensitivity, 0, 1);
            f.count("observations", o.reactive.observations, 0, 10'000);
            f.flag("waits", o.reactive.waits);
            f.finish();
        }
        std::uint32_t min = o.allow_zero ? 0 : 1;
        std::uint32_t max = 64;
        p.count("min", min, 0, kMostWorkers);
        p.count("max", max, 1, 100'000);
        o.roles.clear();
        for (std::size_t g = 0; g < s_.groups.size(); ++g) {
            planner::RoleOptions role;
            role.role = s_.groups[g].role;
            role.initial = s_.groups[g].workers;
            role.min = min;
            role.max = max;
            o.roles.push_back(role);
            plan.groups.push_back(g);
        }
        for_groups(p, plan);
        if (auto ok = planner::check(o); !ok && problems_.empty()) {
            p.problem(node, as_sentence(ok.error().message));
        }
        if (auto made = planner::Planner::make(o); !made && problems_.empty()) {
            p.problem(node, as_sentence(made.error().message));
        }
        s_.planner = std::move(plan);
    }

    /// `groups`: bounds of one's own.
    void for_groups(YamlFields& p, PlannerScenario& plan) {
        const YamlTree* list = p.find("groups");
        if (list == nullptr) return;
        for (const YamlTree& item : list->items) {
            YamlFields f(item, file_, "a group of the planner", problems_);
            std::string name;
            f.text("group", name);
            const auto found = std::ranges::find(s_.groups, name, &Group::name);
            if (found == s_.groups.end()) {
                f.problem(item,
                          fmt::format("There is no group called {}.", config::in_quotes(name)));
                continue;
            }
            const auto at = static_cast<std::size_t>(found - s_.groups.begin());
            f.count("min", plan.options.roles[at].min, 0, kMostWorkers);
            f.count("max", plan.options.roles[at].max, 1, 100'000);
            f.count("devices", plan.options.roles[at].devices, 1, 1024);
            f.finish();
        }
    }

    void resize(const YamlTree& node) {
        YamlFields f(node, file_, "a step of the schedule", problems_);
        Resize r;
        double at = 0;
        f.seconds("at", at, 0, kLongest_s);
        r.at = nanos(at);
        f.count("workers", r.workers, 0, kMostWorkers);
        std::string name = s_.groups.empty() ? "" : s_.groups.front().name;
        f.text("group", name);
        const auto found = std::ranges::find(s_.groups, name, &Group::name);
        if (found == s_.groups.end()) {
            f.problem(node, fmt::format("There is no group called {}.", config::in_quotes(name)));
        }
        r.group = static_cast<std::size_t>(found - s_.groups.begin());
        f.finish();
        s_.resizes.push_back(r);
    }

    void workload(YamlFields& f, const YamlTree& tree) {
        const YamlTree* node = f.find("workload");
        if (node == nullptr || node->kind != YamlTree::Kind::kMap) {
            return f.problem(node == nullptr ? tree : *node,
                             "workload is missing: kind, rate, isl, osl and so on.");
        }
        for (std::size_t i = 0; i < node->names.size(); ++i) {
            const YamlTree& value = node->items[i];
            std::string name = node->names[i];
            std::ranges::replace(name, '_', '-');
            if (value.kind != YamlTree::Kind::kScalar) {
                f.problem(value, fmt::format("{} in workload must be one value.", name));
            } else if (name == "trace") {
                s_.trace_file = value.scalar;
            } else if (const auto ok = set_option(s_.workload, name, value.scalar); !ok) {
                f.problem(value, as_sentence(ok.error().message));
            }
        }
    }

    void slo(YamlFields& f) {
        const YamlTree* node = f.find("slo");
        if (node == nullptr) return;
        YamlFields l(*node, file_, "slo", problems_);
        const auto limit = [&](std::string_view name, std::optional<double>& ms) {
            double s = -1;
            l.seconds(name, s, 0, kLongest_s);
            if (s >= 0) ms = s * 1e3;
        };
        limit("ttft", s_.slo.ttft_ms);
        limit("itl", s_.slo.itl_ms);
        limit("e2e", s_.slo.e2e_ms);
        l.finish();
    }

    void faults(YamlFields& f) {
        std::string text;
        f.text("faults", text);
        auto numbered = with_numbers(text);
        auto read = numbered ? engine::mock::parse_faults(*numbered)
                             : tl::unexpected(std::move(numbered.error()));
        if (read) {
            s_.faults = std::move(*read);
        } else {
            f.problem(*f.find("faults"), as_sentence(read.error().message));
        }
    }

    /// The schedule with "decode=1:" written as "worker=" and the number of the second worker that
    /// has the role; names of groups likewise.
    [[nodiscard]] Result<std::string> with_numbers(std::string_view text) const {
        std::string out;
        for (std::size_t begin = 0; begin <= text.size();) {
            const std::size_t comma = std::min(text.find(',', begin), text.size());
            std::string_view fault = text.substr(begin, comma - begin);
            if (begin > 0) out += ',';
            begin = comma + 1;
            fault.remove_prefix(std::min(fault.find_first_not_of(" \t\n"), fault.size()));
            const std::size_t equals = fault.find('=');
            const std::size_t colon = fault.find(':');
            const std::string_view name = fault.substr(0, equals);
            if (equals >= colon || equals > fault.find('@') || name == "worker") {
                out += fault;
                continue;
            }
            const auto number = worker_number(name, fault.substr(equals + 1, colon - equals - 1));
            if (!number) {
                auto e = number.error();
                e.message = fmt::format("the fault {} {}", config::in_quotes(fault), e.message);
                return tl::unexpected(std::move(e));
            }
            out += fmt::format("worker={}{}", *number, fault.substr(colon));
        }
        return out;
    }

    /// Of the worker `index` (from 0) of those that have the role, or are of the group, `name`.
    [[nodiscard]] Result<std::uint32_t> worker_number(std::string_view name,
                                                      std::string_view index) const {
        const auto role = role_named(name);
        const bool is_group = std::ranges::find(s_.groups, name, &Group::name) != s_.groups.end();
        if (!role && !is_group) {
            return error(ErrorCode::kInvalidArgument, "names neither a role nor a group");
        }
        std::uint32_t wanted = 0;
        const auto [end, failed] =
            std::from_chars(index.data(), index.data() + index.size(), wanted);
        if (failed != std::errc{} || end != index.data() + index.size()) {
            return error(ErrorCode::kInvalidArgument, "needs a number after {}=, counted from 0",
                         name);
        }
        std::uint32_t first = 0;
        std::uint32_t there = 0;
        for (const Group& g : s_.groups) {
            const bool meant = is_group ? g.name == name : g.roles.has(*role);
            if (meant && wanted < there + g.workers) return first + wanted - there;
            if (meant) there += g.workers;
            first += g.workers;
        }
        return error(ErrorCode::kInvalidArgument, "is for number {} of {} {} workers", wanted,
                     there, name);
    }

    void check(const YamlTree& tree) {
        const auto has = [&](Role role) { return s_.has(role); };
        const auto problem = [&](std::string message) {
            problems_.push_back({fmt::format("{}:{}", file_, tree.line), std::move(message)});
        };
        if (s_.workers() == 0 && s_.resizes.empty()) problem("The fleet has no workers.");
        if (has(Role::kPrefill) != has(Role::kDecode)) {
            problem("Prefill and decode workers need each other; only one kind is there.");
        }
        if (!has(Role::kAggregated) && !has(Role::kDecode)) {
            problem("Nobody can answer: there is neither an aggregated nor a decode group.");
        }
        if (s_.workload.needs_file() && s_.trace_file.empty()) {
            problem("This workload needs a trace.");
        }
        for (const Group& g : s_.groups) check_fits(g, problem);
        // Those that a plan adds have numbers, too: how many there are then is known only to the
        // run.
        for (const engine::mock::Fault& f : s_.faults) {
            if (!f.worker || *f.worker < s_.workers() || !s_.resizes.empty() || s_.planner)
                continue;
            problem(fmt::format("A fault is for worker {}; there are {}, counted from 0.",
                                *f.worker, s_.workers()));
        }
    }

    /// A prompt that no cache can hold would be refused every time.
    template <typename Report>
    void check_fits(const Group& g, const Report& problem) {
        const workload::WorkloadOptions& w = s_.workload;
        if (w.needs_file() || g.roles == Role::kEncode) return;
        const bool decodes = g.roles != Role::kPrefill;
        const std::uint64_t needed = w.isl + (decodes ? std::uint64_t{w.osl.value_or(100)} - 1 : 0);
        const std::uint64_t cache = std::uint64_t{g.core.blocks} * g.core.block_tokens;
        if (needed > cache) {
            problem(
                fmt::format("A prompt of {} tokens and its output do not fit the {} blocks of "
                            "{} tokens of group {}.",
                            w.isl, g.core.blocks, g.core.block_tokens, g.name));
        } else if (std::uint64_t{w.isl} + w.osl.value_or(100) > g.core.context_tokens) {
            problem(
                fmt::format("A prompt of {} tokens and its output do not fit the context of {} "
                            "tokens of group {}.",
                            w.isl, g.core.context_tokens, g.name));
        }
    }

    std::string file_;
    Scenario s_;
    config::Problems problems_;
};

/// The part of a list's item or a map's field; null: none.
YamlTree* step_into(YamlTree& tree, const std::string& word) {
    if (tree.kind == YamlTree::Kind::kList) {
        std::size_t index = 0;
        const auto [end, failed] = std::from_chars(word.data(), word.data() + word.size(), index);
        if (failed == std::errc{} && end == word.data() + word.size()) {
            return index < tree.items.size() ? &tree.items[index] : nullptr;
        }
        for (YamlTree& item : tree.items) {
            const auto name = std::ranges::find(item.names, "name");
            if (name == item.names.end()) continue;
            const auto at = static_cast<std::size_t>(name - item.names.begin());
            if (item.items[at].scalar == word) return &item;
        }
        return nullptr;
    }
    if (tree.kind == YamlTree::Kind::kScalar) return nullptr;
    tree.kind = YamlTree::Kind::kMap;
    const auto found = std::ranges::find(tree.names, word);
    if (found != tree.names.end()) {
        return &tree.items[static_cast<std::size_t>(found - tree.names.begin())];
    }
    tree.names.push_back(word);
    tree.items.emplace_back();
    tree.items.back().line = tree.line;
    return &tree.items.back();
}

}  // namespace

std::uint32_t Scenario::workers() const {
    std::uint32_t n = 0;
    for (const Group& g : groups) n += g.workers;
    return n;
}

bool Scenario::has(Role role) const {
    return std::ranges::any_of(groups, [&](const Group& g) { return g.roles.has(role); });
}

Result<void> set_value(YamlTree& tree, std::string_view path, std::string_view text) {
    YamlTree* at = &tree;
    for (std::string_view rest = path; !rest.empty();) {
        const std::size_t dot = std::min(rest.find('.'), rest.size());
        const std::string word(rest.substr(0, dot));
        rest.remove_prefix(std::min(dot + 1, rest.size()));
        at = word.empty() ? nullptr : step_into(*at, word);
        if (at == nullptr) {
            return error(ErrorCode::kNotFound, "there is no {} in the scenario, at {}",
                         config::in_quotes(path), config::in_quotes(word));
        }
    }
    at->kind = YamlTree::Kind::kScalar;
    at->scalar = text;
    at->items.clear();
    at->names.clear();
    return {};
}

tl::expected<Scenario, config::Problems> read_scenario(const YamlTree& tree,
                                                       std::string_view file) {
    return ScenarioReader(file).read(tree);
}

}  // namespace stator::sim
