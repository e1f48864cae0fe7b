#include <fmt/format.h>

#include <cmath>

#include "stator/frontend/pools/pool_models.h"
#include "stator/frontend/pools/pool_roles.h"

namespace stator::frontend {
namespace {

void write_rank(codec::JsonWriter& w, const routing::PoolRouter::RankState& r) {
    w.begin_object().key("rank").string(r.name);
    w.key("roles").begin_array();
    for (const auto role : kRoles) {
        if (r.roles.has(role)) w.string(to_string(role));
    }
    w.end_array();
    w.key("running").number(r.load.running).key("waiting").number(r.load.waiting);
    w.key("running_limit").number(r.load.running_limit);
    w.key("kv_used_tokens").number(r.load.kv_used_tokens);
    w.key("kv_total_tokens").number(r.load.kv_total_tokens);
    if (r.load.unclaimed_limit > 0) {
        w.key("unclaimed_handoffs").number(r.load.unclaimed_handoffs);
        w.key("unclaimed_bytes").number(r.load.unclaimed_bytes);
        w.key("unclaimed_limit").number(r.load.unclaimed_limit);
    }
    w.key("prefill_queue_ms").number(std::round(r.queue_s * 1e6) / 1e3);
    w.key("prefill_scale").number(std::round(r.prefill_scale * 1e3) / 1e3);
    w.key("kv_events").string(!r.follows_events ? "none" : r.live ? "live" : "catching up");
    w.key("trust").string(r.trust);
    if (!r.finding.empty()) w.key("finding").string(r.finding);
    w.key("believed").boolean(r.believed);
    w.key("mismatch_rate").number(std::round(r.mismatch_rate * 1e4) / 1e4);
    w.key("blocks").number(static_cast<std::uint64_t>(r.blocks)).end_object();
}

/// What was decided of prompts that could have a rank of their own, and what handoffs took.
void write_splits(codec::JsonWriter& w, const routing::PoolRouter::State& state) {
    w.key("splits").begin_object().key("possible").boolean(state.can_split);
    w.key("whole").number(state.whole).key("split").number(state.split);
    w.key("refused").number(state.refused);
    w.key("break_even_tokens").number(state.break_even_tokens);
    w.key("handoffs").begin_array();
    for (const auto& [from, to, way] : state.ways) {
        w.begin_object().key("from").string(from).key("to").string(to);
        w.key("count").number(way.handoffs);
        w.key("mean_ms").number(std::round(way.mean_s * 1e6) / 1e3);
        w.key("tokens_per_s").number(std::round(way.tokens_per_s)).end_object();
    }
    w.end_array().end_object();
}

void write_queue(codec::JsonWriter& w, const routing::PoolRouter::QueueState& q) {
    w.key("queue").begin_object();
    w.key("interactive").number(static_cast<std::uint64_t>(q.waiting[0]));
    w.key("standard").number(static_cast<std::uint64_t>(q.waiting[1]));
    w.key("batch").number(static_cast<std::uint64_t>(q.waiting[2]));
    w.key("most").number(static_cast<std::uint64_t>(q.most));
    w.key("tenants").number(static_cast<std::uint64_t>(q.tenants));
    w.key("work_s").number(std::round(q.work_s * 1e3) / 1e3);
    w.key("hold_ms").number(std::round(q.hold_s * 1e3)).end_object();
}

/// Other frontends whose bookings count here, and how well that goes.
void write_peers(codec::JsonWriter& w, const routing::PoolRouter::State& state) {
    w.key("peers").begin_array();
    for (const auto& p : state.peers) {
        w.begin_object().key("id").string(fmt::format("{:016x}", p.id.value));
        w.key("bookings").number(static_cast<std::uint64_t>(p.bookings));
        w.key("on_unknown_ranks").number(static_cast<std::uint64_t>(p.placeless));
        w.key("in_step").boolean(p.in_step);
        w.key("missing_deltas").number(static_cast<std::uint64_t>(p.missing));
        const auto silent = state.at - TimePoint{} - p.heard_at;
        w.key("heard_ms_ago").number(std::round(to_ms(silent))).end_object();
    }
    w.end_array().key("sharing").begin_object();
    const replicas::PeerCounters& c = state.peer_counters;
    w.key("deltas").number(c.deltas).key("missed").number(c.missed);
    w.key("repaired").number(c.repaired).key("digest_mismatches").number(c.mismatches);
    w.key("refused").number(c.refused).key("peers_gone").number(c.peers_gone);
    w.key("bookings_lost").number(c.bookings_lost).end_object();
}

}  // namespace

void append_ranks_json(codec::JsonWriter& w, const routing::PoolRouter::State& state) {
    w.begin_array();
    for (const auto& rank : state.ranks) write_rank(w, rank);
    w.end_array();
}

void append_routers_json(codec::JsonWriter& w,
                         const std::vector<PoolModels::ServedRouter>& routers) {
    w.begin_object().key("pools").begin_array();
    for (const PoolModels::ServedRouter& served : routers) {
        const auto state = served.router->state();
        w.begin_object().key("pool").string(served.pool).key("model").string(served.model);
        w.key("policy").string(router::to_string(state.policy.policy));
        w.key("disaggregation").string(router::to_string(state.policy.disaggregation));
        write_splits(w, state);
        w.key("bookings").number(static_cast<std::uint64_t>(state.bookings));
        if (state.queue) write_queue(w, *state.queue);
        w.key("peers_bookings").number(static_cast<std::uint64_t>(state.peers_bookings));
        if (state.shares) write_peers(w, state);
        w.key("index").begin_object();
        w.key("blocks").number(static_cast<std::uint64_t>(state.index.blocks));
        w.key("bytes").number(static_cast<std::uint64_t>(state.index.bytes));
        w.key("stored_blocks").number(state.index.counters.stored_blocks);
        w.key("removed_blocks").number(state.index.counters.removed_blocks);
        w.key("removed_unknown").number(state.index.counters.removed_unknown);
        w.key("unknown_parents").number(state.index.counters.unknown_parents);
        w.key("refused_blocks").number(state.index.counters.refused_blocks);
        w.key("evicted_blocks").number(state.index.counters.evicted_blocks);
        w.key("quota_blocks").number(state.index.counters.quota_blocks);
        w.key("sparse_blocks").number(state.index.counters.sparse_blocks);
        w.end_object().key("ranks");
        append_ranks_json(w, state);
        w.end_object();
    }
    w.end_array().end_object();
}

}  // namespace stator::frontend
