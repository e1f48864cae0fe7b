#include "stator/sim/routing.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "stator/sim/prior.h"

namespace stator::sim {
namespace {

using engine::mock::CoreOptions;
using engine::mock::CoreRequest;
using engine::mock::Leg;
using protocol::Role;

constexpr std::size_t kMostErrors = 2'000'000;

double per_token(double bytes, double gb_per_s) {
    return gb_per_s > 0 ? bytes / (gb_per_s * 1e9) : 0;
}

}  // namespace

Role role_of(Leg leg) {
    switch (leg) {
        case Leg::kWhole:
            return Role::kAggregated;
        case Leg::kPrefill:
            return Role::kPrefill;
        case Leg::kDecode:
            return Role::kDecode;
        case Leg::kEncode:
            return Role::kEncode;
    }
    return Role::kAggregated;
}

Routing::Routing(const Scenario& scenario, Fleet& fleet, std::uint64_t seed)
    : scenario_(scenario), fleet_(fleet), routers_(scenario.replicas, scenario.router, seed) {
    add_workers();
}

void Routing::add_workers() {
    for (auto w = static_cast<std::uint32_t>(routers_.front().ranks().size()); w < fleet_.size();
         ++w) {
        const Group& group = fleet_.group_of(w);
        // A pool has one prior, that of its first group; how other workers differ is to be learned.
        const auto first = std::ranges::find(scenario_.groups, group.role, &Group::role);
        const CoreOptions& o = group.core;
        router::RankDescription d;
        d.name = group.name + "/" + std::to_string(w);
        d.role = group.role;
        d.prefill = prefill_prior(first->core);
        d.step = step_prior(first->core);
        const auto bytes = static_cast<double>(o.kv_bytes_per_token);
        d.onboarding_s_per_token =
            per_token(bytes, o.host.blocks > 0 ? o.host.read_gb_per_s : o.disk.read_gb_per_s);
        d.handoff_s_per_token = per_token(bytes, o.handoff_gb_per_s);
        d.handoff_latency_s = to_seconds(o.handoff_latency);
        d.adapter_load_s = to_seconds(o.adapter_load);
        d.max_adapters = o.max_adapters;
        d.open = fleet_.worker(w).up;
        routers_.for_each([&](router::Router& router) {
            const router::RankIndex rank = router.add_rank(d);
            router.on_report(rank, fleet_.worker(w).core->load(), router::BookingId(0));
        });
    }
    routers_.ranks_changed();
}

void Routing::look_up(Role role, const CoreRequest& request, std::uint32_t block_tokens) {
    overlaps_.clear();
    for (const std::uint32_t w : fleet_.of_role(role)) {
        const SimWorker& worker = fleet_.worker(w);
        if (!worker.up || fleet_.group_of(w).core.block_tokens != block_tokens) continue;
        const auto found = worker.core->cached_prefix(request.blocks);
        if (found.device + found.slow == 0) continue;
        overlaps_.push_back({w, found.device, found.device + found.slow});
    }
}

Result<router::Decision> Routing::book(const workload::RequestSpec& spec,
                                       const CoreRequest& request,
                                       std::span<const router::RankIndex> tried,
                                       std::optional<double> most_queue_s, Nanos now) {
    const Role role = role_of(request.leg);
    const auto& workers = fleet_.of_role(role);
    const std::uint32_t block_tokens =
        workers.empty() ? 1 : fleet_.group_of(workers.front()).core.block_tokens;
    router::RouteRequest r;
    r.role = role;
    r.block_tokens = block_tokens;
    r.prompt_tokens =
        static_cast<std::uint32_t>(request.blocks.size() * block_tokens + request.tail.size());
    r.expected_output_tokens = request.max_tokens;
    r.priority = request.priority;
    r.adapter = request.adapter;
    r.pair = role == Role::kPrefill && pairs();
    r.excluded = tried;
    r.most_queue_s = most_queue_s;
    if (scenario_.sessions != Scenario::Sessions::kNone) {
        r.session = spec.session + 1;
        r.session_hard = scenario_.sessions == Scenario::Sessions::kHard;
    }
    const bool computes = role == Role::kAggregated || role == Role::kPrefill;
    if (computes &&
        (reads_caches() || scenario_.router.policy == router::Policy::kConsistentHash)) {
        blocks_.clear();
        for (const tokens::SequenceHash hash : request.blocks) blocks_.push_back(hash.value);
        r.blocks = blocks_;
    }
    if (computes && reads_caches()) {
        look_up(role, request, block_tokens);
        r.overlaps = overlaps_;
    }
    return routers_.book(spec.index, r, now);
}

void Routing::hear(const Notice& n, Nanos now) {
    switch (n.kind) {
        case Notice::Kind::kReport:
            return routers_.on_report(n.worker, n.load, n.seen);
        case Notice::Kind::kPromptDone:
            return routers_.on_first_token(n.booking, n.cached_tokens, now);
        case Notice::Kind::kEnded:
            return routers_.on_end(n.booking, now);
    }
}

void Routing::step_ended(std::uint32_t worker, Nanos length, const engine::mock::StepShape& shape) {
    if (shape.prefill_tokens > 0 || shape.decode_sequences == 0 || shape.images > 0) return;
    if (scenario_.router.policy != router::Policy::kExpectedTtft) return;
    routers_.for_each([&](router::Router& router) {
        router.on_step(worker, to_seconds(length), shape.decode_sequences,
                       static_cast<double>(shape.decode_context));
    });
}

void Routing::note_prediction(double predicted_s, double real_s) {
    if (real_s <= 0 || errors_.size() >= kMostErrors) return;
    errors_.push_back(static_cast<float>((predicted_s - real_s) / real_s));
}

std::optional<double> Routing::median_error_percent() {
    if (errors_.empty()) return std::nullopt;
    std::vector<float> sizes(errors_);
    for (float& e : sizes) e = std::abs(e);
    const auto middle = sizes.begin() + static_cast<std::ptrdiff_t>(sizes.size() / 2);
    std::ranges::nth_element(sizes, middle);
    return 100.0 * static_cast<double>(*middle);
}

std::optional<double> Routing::median_bias_percent() {
    if (errors_.empty()) return std::nullopt;
    const auto middle = errors_.begin() + static_cast<std::ptrdiff_t>(errors_.size() / 2);
    std::ranges::nth_element(errors_, middle);
    return 100.0 * static_cast<double>(*middle);
}

}  // namespace stator::sim
