#include "stator/sim/routing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
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
/// Of a report's facts: workers, and what was thought of each.
constexpr std::size_t kMostFacts = 20;
constexpr std::size_t kMostTurns = 64;

protocol::Digest digest_of(std::uint64_t content) {
    protocol::Digest digest{};
    content *= 0x9E3779B97F4A7C15ULL;  // as well mixed as a digest is
    std::memcpy(digest.data(), &content, sizeof content);
    return digest;
}

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
    if (reads_caches()) index_.emplace(scenario, fleet, seed);
    add_workers();
}

void Routing::set_open(std::uint32_t worker, bool open) {
    routers_.for_each([&](router::Router& r) { r.set_open(worker, open); });
    // Whoever goes does not come back.
    const SimWorker& w = fleet_.worker(worker);
    if (index_ && w.was_up && !open) index_->remove_worker(worker);
}

void Routing::cache_changed(std::uint32_t worker, Nanos now) {
    if (index_) return index_->take_changes(worker, now);
    ignored_.clear();
    fleet_.worker(worker).core->take_changes(ignored_);
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
        d.roles = group.roles;
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
    if (index_) index_->add_workers();
    audited_.resize(fleet_.size());
}

Result<router::Decision> Routing::book(const workload::RequestSpec& spec,
                                       const CoreRequest& request, bool may_split,
                                       std::span<const router::RankIndex> tried,
                                       std::optional<double> most_queue_s, Nanos now) {
    const Role role = role_of(request.leg);
    const std::uint32_t block_tokens = block_tokens_of(role);
    router::RouteRequest r;
    r.role = role;
    r.block_tokens = block_tokens;
    r.prompt_tokens =
        static_cast<std::uint32_t>(request.blocks.size() * block_tokens + request.tail.size());
    r.expected_output_tokens = request.max_tokens;
    r.priority = request.priority;
    r.adapter = request.adapter;
    r.pair = role == Role::kPrefill && pairs();
    r.split = role == Role::kAggregated && may_split && scenario_.splits();
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
    overlaps_.clear();
    if (computes && index_) {
        index_->look_up(role, request.blocks, now, overlaps_);
        take_over_snapshots(now);
        r.overlaps = overlaps_;
    }
    if (role == Role::kEncode) find_embeddings(request, r);
    block_tokens_ = block_tokens;
    prompt_tokens_ = r.prompt_tokens;
    return routers_.book(spec.index, r, now);
}

/// What encoding takes, and who would not have to: those who hold all of its images.
void Routing::find_embeddings(const CoreRequest& request, router::RouteRequest& r) {
    const auto& workers = fleet_.of_role(Role::kEncode);
    if (workers.empty() || request.images.empty()) return;
    engine::mock::StepShape shape;
    shape.images = static_cast<std::uint32_t>(request.images.size());
    for (const auto& image : request.images) shape.image_tokens += image.tokens;
    r.encode_s = to_seconds(fleet_.group_of(workers.front()).core.step_time.of(shape));
    r.prompt_tokens = 0;
    r.expected_output_tokens = 0;
    for (std::size_t i = 0; i < request.images.size(); ++i) {
        holders_.clear();
        embeddings_.find(digest_of(request.images[i].content), holders_);
        if (i == 0) overlaps_ = holders_;
        std::erase_if(overlaps_, [&](const router::Overlap& o) {
            return std::ranges::find(holders_, o.rank, &router::Overlap::rank) == holders_.end();
        });
    }
    r.overlaps = overlaps_;
}

void Routing::encoded(std::uint32_t worker, std::span<const engine::mock::CoreImage> images) {
    for (const auto& image : images) embeddings_.add(digest_of(image.content), worker);
}

std::uint32_t Routing::block_tokens_of(Role role) const {
    for (const Role taker : {role, role == Role::kAggregated ? Role::kDecode : role}) {
        const auto& workers = fleet_.of_role(taker);
        if (!workers.empty()) return fleet_.group_of(workers.front()).core.block_tokens;
    }
    return 1;
}

std::optional<router::AuditSample> Routing::sample_of(const router::Decision& decision) const {
    const std::uint32_t worker = decision.chosen.rank;
    if (!index_ || !index_->follows(worker)) return std::nullopt;
    router::AuditSample s;
    s.block_tokens = static_cast<std::uint32_t>(block_tokens_);
    const auto held = std::ranges::find(overlaps_, worker, &router::Overlap::rank);
    if (held != overlaps_.end()) s.predicted_tokens = held->any_blocks * s.block_tokens;
    s.expected_tokens = decision.chosen.cached_tokens;
    s.prompt_tokens = prompt_tokens_;
    s.resyncs_done = audit_.verdict(worker).resyncs_done;
    return s;
}

void Routing::audit(std::uint32_t worker, const router::AuditSample& sample, Nanos now) {
    take_over_snapshots(now);
    Audited& a = audited_[worker];
    const auto lie = fleet_.worker(worker).faults.first_lie();
    if (!lie || now >= *lie) ++a.heard;
    bool changed = audit_.observe_orphans(worker, index_->take_orphans(worker));
    changed |= audit_.observe(worker, sample);
    const router::AuditVerdict verdict = audit_.verdict(worker);
    routers_.for_each([&](router::Router& r) { r.set_distrusted(worker, !verdict.believed); });
    if (changed) {
        if (verdict.trust != router::Trust::kTrusted) ++alarms_;
        note_turn(worker, now);
    }
    if (verdict.wants_snapshot && !a.asked) {
        a.asked = true;
        index_->resync(worker, now);
        take_over_snapshots(now);
    }
}

void Routing::take_over_snapshots(Nanos now) {
    for (const std::uint32_t worker : index_->take_resynced()) {
        const auto before = audit_.verdict(worker).trust;
        audit_.on_resynced(worker);
        audited_[worker].asked = false;
        if (audit_.verdict(worker).trust != before) note_turn(worker, now);
    }
}

void Routing::note_turn(std::uint32_t worker, Nanos now) {
    Audited& a = audited_[worker];
    if (a.turns.size() >= kMostTurns) return;
    a.turns.push_back({now, a.heard, audit_.verdict(worker)});
}

std::vector<std::pair<std::string, std::string>> Routing::audit_facts() const {
    std::vector<std::pair<std::string, std::string>> facts;
    if (!index_) return facts;
    facts.emplace_back("audit", fmt::format("{} alarms", alarms_));
    for (std::uint32_t w = 0; w < audited_.size() && facts.size() <= kMostFacts; ++w) {
        if (audited_[w].turns.empty()) continue;
        std::string text;
        for (const Turn& turn : audited_[w].turns) {
            text +=
                fmt::format("{}{} at {:.1f} s after {} requests", text.empty() ? "" : "; ",
                            router::to_string(turn.verdict.trust), to_seconds(turn.at), turn.heard);
            if (turn.verdict.trust == router::Trust::kTrusted) continue;
            text += fmt::format(" ({})", router::to_string(turn.verdict.finding));
        }
        facts.emplace_back("audit of " + routers_.front().ranks().description(w).name, text);
    }
    return facts;
}

void Routing::hear(const Notice& n, Nanos now) {
    switch (n.kind) {
        case Notice::Kind::kReport:
            return routers_.on_report(n.worker, n.load, n.seen);
        case Notice::Kind::kPromptDone:
            routers_.on_first_token(n.booking, n.cached_tokens, now);
            if (n.sample) audit(n.worker, *n.sample, now);
            return;
        case Notice::Kind::kHandedOver:
            return routers_.on_handed_over(n.booking, now);
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
