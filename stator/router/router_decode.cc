#include <algorithm>
#include <cmath>
#include <utility>

#include "stator/router/refusal.h"
#include "stator/router/router.h"

// What a request costs where it decodes: of a pair the best decode rank for each prefill rank.
namespace stator::router {

using protocol::Role;

/// Adds to each prefill rank's cost what the best decode rank for it costs: the handoff, its steps,
/// and what those already there lose. What is best depends on the prefill rank's site and host
/// alone.
Result<void> Router::add_decode_costs(const RouteRequest& request, Nanos now) {
    std::vector<double>& costs = scorer_.costs();
    decoders_.assign(table_.sites().size(), Decoders{});
    decoders_on_.clear();
    const auto least = std::ranges::min_element(costs);
    if (least == costs.end() || *least >= Scorer::kNever) return {};  // nobody computes the prompt
    const auto first = static_cast<RankIndex>(least - costs.begin());
    const Candidate best = scorer_.candidate(table_, options_, request, first, seconds(now));
    freed_.clear();
    const RankTable::Columns& c = table_.columns();
    bool there = false;
    bool room = false;
    for (RankIndex d = 0; d < table_.size(); ++d) {
        if ((c.roles[d] & Roles::takers(Role::kDecode)) == 0) continue;
        if (std::ranges::find(request.excluded, d) != request.excluded.end()) continue;
        there = true;
        if (!has_room(d, request, seconds(now) + best.ttft_s())) continue;
        room = true;
        consider_decoder(d, request, seconds(now));
    }
    if (!there)
        return tl::unexpected(refusal(ErrorCode::kUnavailable, "no decode worker is ready"));
    bool any = false;
    for (RankIndex r = 0; r < costs.size(); ++r) {
        if (costs[r] >= Scorer::kNever) continue;
        const Decoder decoder = decoder_for(r);
        costs[r] = decoder.rank == kNoRank ? Scorer::kNever : costs[r] + decoder.cost;
        any = any || decoder.rank != kNoRank;
    }
    if (any) return {};
    if (room) {
        return tl::unexpected(
            refusal(ErrorCode::kUnavailable, "no decode worker can be reached by a handoff"));
    }
    return tl::unexpected(
        refusal(ErrorCode::kOverloaded, "no decode worker will have room for the request"));
}

/// What a whole request costs once it decodes, so that it compares with a pair.
void Router::add_own_decode_costs(const RouteRequest& request, Nanos now) {
    std::vector<double>& costs = scorer_.costs();
    if (options_.policy != Policy::kExpectedTtft) return;
    const RankTable::Columns& c = table_.columns();
    freed_.clear();
    for (RankIndex r = 0; r < costs.size(); ++r) {
        if (costs[r] >= Scorer::kNever) continue;
        const bool decodes = (c.roles[r] & Roles::takers(Role::kDecode)) != 0;
        if (decodes && !has_room(r, request, seconds(now))) {
            scorer_.exclude(r, Exclusion::kFull);
            costs[r] = Scorer::kNever;
            continue;
        }
        costs[r] += decode_cost(r, request).rest;
    }
    scorer_.add_split_harm(table_, options_, request);
}

Router::DecodeCost Router::decode_cost(RankIndex rank, const RouteRequest& request) const {
    const RankTable::Columns& c = table_.columns();
    const double needed =
        request.prompt_tokens + static_cast<double>(request.expected_output_tokens);
    const double with = table_.speed(rank).step_s(c.decoding[rank] + 1, c.kv_tokens[rank] + needed);
    const double harm = options_.itl_weight * c.decoding[rank] * (with - c.step[rank]) *
                        request.expected_output_tokens;
    const double memory = c.kv_total[rank] > 0 ? 0.001 * c.kv_tokens[rank] / c.kv_total[rank] : 0;
    return {with, with + std::max(0.0, harm) + memory + 1e-6 * c.own[rank]};
}

/// What moving the KV of `tokens` takes, by the fastest way that both have.
Router::Handoff Router::handoff(const RankTable::Site& from, RankIndex to, bool same_host,
                                double tokens) const {
    constexpr double kBytesPerGB = 1e9;
    const RankDescription& d = table_.description(to);
    const RankTable::Site& here = table_.sites()[table_.columns().site[to]];
    Handoff out{.way = {.from_zone = from.zone, .to_zone = here.zone, .same_host = same_host},
                .prior = {}};
    double factor = 1;
    if (!same_host && from.zone != 0 && here.zone != 0 && from.zone != here.zone) factor = 2;
    if (d.handoff_bytes_per_token > 0) {
        const auto [number, speed] = table_.method(from, here, same_host);
        out.way.method = number;
        const double bytes = d.handoff_bytes_per_token * tokens;
        out.prior = {factor * speed.latency_s, factor * bytes / (kBytesPerGB * speed.gb_per_s)};
        return out;
    }
    if (same_host) factor = 0.5;
    out.prior = {factor * d.handoff_latency_s, factor * d.handoff_s_per_token * tokens};
    return out;
}

void Router::consider_decoder(RankIndex rank, const RouteRequest& request, double now_s) {
    const RankTable::Columns& c = table_.columns();
    const auto [step, rest] = decode_cost(rank, request);
    // What it has cached already is not sent.
    const double tokens = request.prompt_tokens - scorer_.cached_tokens(rank);
    const double waits = 0.5 * c.step[rank];  // for the end of the step under way
    const RankTable::Site& here = table_.sites()[c.site[rank]];
    const auto takes = [&](const RankTable::Site& from, bool same_host) {
        const Handoff h = handoff(from, rank, same_host, tokens);
        return waits + handoffs_.seconds(h.way, h.prior, now_s);
    };
    for (std::size_t s = 0; s < decoders_.size(); ++s) {
        const RankTable::Site& site = table_.sites()[s];
        if (!RankTable::connected(site, here, false)) continue;
        const double there = takes(site, false);
        decoders_[s].consider({rank, there + rest, there + step});
    }
    if (c.host[rank] == 0) return;
    for (std::uint32_t s = 0; s < decoders_.size(); ++s) {
        const RankTable::Site& site = table_.sites()[s];
        if (!site.host_known || site.zone != here.zone) continue;
        if (!RankTable::connected(site, here, true)) continue;
        const double there = takes(site, true);
        decoders_on_[beside(c.host[rank], s)].consider({rank, there + rest, there + step});
    }
}

/// Prefill ranks of one site on one host.
std::uint64_t Router::beside(std::uint64_t host, std::uint32_t site) {
    constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ULL;
    return host + kGolden * site;
}

/// After add_decode_costs().
Router::Decoder Router::decoder_for(RankIndex rank) const {
    const RankTable::Columns& c = table_.columns();
    if (c.site[rank] >= decoders_.size()) return {};
    Decoder best = decoders_[c.site[rank]].other_than(rank);
    if (c.host[rank] == 0) return best;
    const auto on_host = decoders_on_.find(beside(c.host[rank], c.site[rank]));
    if (on_host == decoders_on_.end()) return best;
    const Decoder& near = on_host->second.other_than(rank);
    return near.rank != kNoRank && near.cost < best.cost ? near : best;
}

/// A place, and KV memory at the time of the handoff.
bool Router::has_room(RankIndex rank, const RouteRequest& request, double when_s) {
    const RankTable::Columns& c = table_.columns();
    if (c.limit[rank] != 0 && c.requests[rank] >= c.limit[rank]) return false;
    if (!options_.refuse_without_kv_room || c.kv_total[rank] <= 0) return true;
    const float used = c.kv_tokens[rank] +
                       static_cast<float>(request.prompt_tokens + request.expected_output_tokens);
    if (used <= c.kv_total[rank]) return true;
    if (freed_.empty()) count_freed(when_s);
    return used - freed_[rank] <= c.kv_total[rank];
}

/// KV tokens that will have come free on each rank by a later time, when some requests have ended.
void Router::count_freed(double when_s) {
    freed_.assign(table_.size(), 0);
    for (const Booking& b : bookings_) {
        if (b.id == 0 || b.end_s > when_s) continue;
        const RankIndex at = b.decode_rank != kNoRank ? b.decode_rank : b.rank;
        freed_[at] += static_cast<float>(b.kv_tokens);
    }
}

}  // namespace stator::router
