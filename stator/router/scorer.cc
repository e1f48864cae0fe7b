#include "stator/router/scorer.h"

#include <algorithm>
#include <utility>

namespace stator::router {
namespace {

std::uint64_t mix(std::uint64_t x) {
    x ^= x >> 33U;
    x *= 0xff51afd7ed558ccdU;
    x ^= x >> 33U;
    x *= 0xc4ceb9fe1a85ec53U;
    return x ^ (x >> 33U);
}

bool contains(std::span<const Label> labels, const Label& label) {
    return std::ranges::find(labels, label) != labels.end();
}

/// Requests with which a rank keeps busy when some end.
std::uint32_t enough(std::uint32_t running_limit, double share) {
    const double more = std::clamp(share * running_limit, 1.0, 1e9);
    return running_limit + static_cast<std::uint32_t>(more);
}

/// How much of what a rank can run it has, up to 1; 0 where that is not known.
float occupied(std::uint32_t requests, std::uint32_t running_limit) {
    if (running_limit == 0) return 0;
    return std::min(1.0F, static_cast<float>(requests) / static_cast<float>(running_limit));
}

}  // namespace

void Scorer::prepare(const RankTable& table, ActivePrefixes& active, const RouteRequest& request) {
    const RankTable::Columns& c = table.columns();
    const std::size_t n = table.size();
    cost_.resize(n);
    excluded_.resize(n);
    prefill_tokens.resize(n);
    device_.assign(n, 0);
    cached_.assign(n, 0);
    host_.assign(n, 0);
    slow_.assign(n, 0);
    active_depth_.assign(n, 0);
    const std::uint8_t takers = Roles::takers(request.role);
    const bool leaves_handoff =
        request.role == protocol::Role::kPrefill || request.role == protocol::Role::kEncode;
    for (std::size_t r = 0; r < n; ++r) {
        std::uint32_t limit = c.limit[r];
        if (request.most_queue_s) {
            limit = std::min(limit, enough(c.running_limit[r], request.most_waiting_share));
        }
        const bool no_room =
            request.most_queue_s && c.kv_room[r] < static_cast<float>(request.prompt_tokens);
        const bool full = (limit != 0 && c.requests[r] >= limit) || no_room ||
                          (leaves_handoff && c.handoffs_full[r] != 0);
        excluded_[r] = static_cast<std::uint8_t>(
            (c.roles[r] & takers) == 0 ? Exclusion::kOtherRole
                                       : (full ? Exclusion::kFull : Exclusion::kNone));
    }
    constrain(table, request);

    const auto block = static_cast<float>(request.block_tokens);
    // At least one token is computed: there must be something to draw the next one from.
    const float most =
        request.prompt_tokens > 0 ? static_cast<float>(request.prompt_tokens - 1) : 0;
    for (const Overlap& o : request.overlaps) {
        if (o.rank >= n || c.distrusted[o.rank] != 0) continue;
        device_[o.rank] = std::min(block * static_cast<float>(o.device_blocks), most);
        cached_[o.rank] = std::min(block * static_cast<float>(o.any_blocks), most);
        host_[o.rank] = std::max(0.0F, cached_[o.rank] - device_[o.rank]);
        slow_[o.rank] = host_[o.rank];
    }
    active.find(request.blocks, [&](RankIndex rank, std::uint32_t depth) {
        active_depth_[rank] = depth;
        const float tokens = std::min(block * static_cast<float>(depth), most);
        if (tokens <= cached_[rank] - slow_[rank]) return;
        cached_[rank] = std::max(cached_[rank], tokens);
        slow_[rank] = cached_[rank] - tokens;
    });
}

void Scorer::constrain(const RankTable& table, const RouteRequest& request) {
    const auto exclude = [&](std::size_t r, Exclusion why) {
        if (excluded_[r] == 0) excluded_[r] = static_cast<std::uint8_t>(why);
    };
    for (const RankIndex r : request.excluded) {
        if (r < excluded_.size()) exclude(r, Exclusion::kTried);
    }
    if (request.pinned) {
        for (std::size_t r = 0; r < excluded_.size(); ++r) {
            if (r != *request.pinned) exclude(r, Exclusion::kNotPinned);
        }
    }
    if (!request.media_methods.empty()) {
        const std::uint32_t ways = table.methods_of(request.media_methods);
        for (std::size_t r = 0; r < excluded_.size(); ++r) {
            if (!table.takes_by(static_cast<RankIndex>(r), ways)) exclude(r, Exclusion::kNoWay);
        }
    }
    if (request.required.empty() && !table.any_taints()) return;
    for (std::size_t r = 0; r < excluded_.size(); ++r) {
        if (excluded_[r] != 0) continue;
        const RankDescription& d = table.description(static_cast<RankIndex>(r));
        for (const Label& label : request.required) {
            if (!contains(d.labels, label)) exclude(r, Exclusion::kLabel);
        }
        for (const Label& taint : d.taints) {
            if (!contains(request.tolerated, taint)) exclude(r, Exclusion::kTaint);
        }
    }
}

double Scorer::preference_s(const RankTable& table, const PolicyOptions& options,
                            const RouteRequest& request, RankIndex rank) const {
    const RankDescription& d = table.description(rank);
    const auto lacks = std::ranges::count_if(
        request.preferred, [&](const Label& label) { return !contains(d.labels, label); });
    const auto bears = std::ranges::count_if(
        d.avoid, [&](const Label& label) { return !contains(request.tolerated, label); });
    return options.preference_s * static_cast<double>(lacks + bears);
}

double Scorer::adapter_s(const RankTable& table, const RouteRequest& request,
                         RankIndex rank) const {
    if (request.adapter == 0) return 0;
    const RankDescription& d = table.description(rank);
    const bool loaded = std::ranges::find(d.adapters, request.adapter) != d.adapters.end();
    return loaded ? 0 : d.adapter_load_s;
}

void Scorer::expected_ttft(const RankTable::Columns& c, const PolicyOptions& options,
                           const RouteRequest& request, double now_s) {
    const std::size_t n = cost_.size();
    const auto prompt = static_cast<float>(request.prompt_tokens);
    const auto work_weight = static_cast<float>(options.work_weight);
    const auto itl_weight = static_cast<float>(options.itl_weight);
    const auto arrivals = static_cast<float>(options.queue_weight * arrivals_per_rank_s);
    const auto occupancy = static_cast<float>(options.occupancy_weight);
    const auto encode = static_cast<float>(request.encode_s);
    const std::size_t level = RankTable::level_of(request.priority);
    const float low = level == 0 ? 1 : 0;
    const float middle = level <= 1 ? 1 : 0;
    for (std::size_t r = 0; r < n; ++r) {
        const double scale = c.scale[r];
        const double done = std::min(now_s - c.anchor[r], scale * c.head[r]);
        const float there =
            low * c.level_work[0][r] + middle * c.level_work[1][r] + c.level_work[2][r];
        const double work = std::min(scale * c.total[r] - done, scale * there);
        const float queue =
            std::max(0.0F, static_cast<float>(work)) + c.scale[r] * c.foreign[r] + 0.5F * c.step[r];
        const float tokens = prompt - cached_[r];
        const float prefill =
            c.base[r] +
            tokens * (c.per_token[r] + c.per_token_context[r] * (cached_[r] + 0.5F * tokens));
        const float onboarding = slow_[r] * c.onboarding[r];
        // Requests that come while the queue is worked off wait for this one's work too.
        const float harm = prefill * (work_weight + arrivals * queue + itl_weight * c.decoding[r]) +
                           occupancy * occupied(c.requests[r], c.running_limit[r]);
        const float cost = queue + prefill + onboarding + encode + harm;
        cost_[r] = excluded_[r] == 0 ? static_cast<double>(cost) : kNever;
    }
}

/// cost = overlap_weight · potential prefill blocks + potential decode blocks, where both are what
/// the rank would have with this request: prompt tokens not cached of all requests without a first
/// token, in blocks, and distinct blocks of all active requests.
/// What is queued there, and the item itself unless its embeddings are kept there.
void Scorer::encode(const RankTable::Columns& c, const RouteRequest& request) {
    const double item = std::max(request.encode_s, 1e-3);
    for (std::size_t r = 0; r < cost_.size(); ++r) {
        cost_[r] = excluded_[r] == 0 ? item * (1 + c.requests[r]) : kNever;
    }
    for (const Overlap& o : request.overlaps) {
        if (o.rank < cost_.size() && excluded_[o.rank] == 0) cost_[o.rank] -= item;
    }
}

void Scorer::dynamo(const ActivePrefixes& active, const PolicyOptions& options,
                    const RouteRequest& request) {
    const auto block = static_cast<double>(request.block_tokens);
    for (std::size_t r = 0; r < cost_.size(); ++r) {
        if (excluded_[r] != 0) {
            cost_[r] = kNever;
            continue;
        }
        const double device = device_[r];
        const double fresh =
            std::max(0.0, request.prompt_tokens - device - options.host_weight * host_[r]);
        const double queued = options.track_prefill_tokens ? prefill_tokens[r] : 0.0;
        const double prefill_blocks = (queued + fresh) / block;
        const double decode_blocks = active.distinct_blocks(static_cast<RankIndex>(r)) +
                                     static_cast<double>(request.blocks.size()) - active_depth_[r];
        cost_[r] = options.overlap_weight * prefill_blocks + decode_blocks;
    }
}

void Scorer::score(const RankTable& table, const ActivePrefixes& active,
                   const PolicyOptions& options, const RouteRequest& request, double now_s,
                   std::uint64_t turn, std::minstd_rand& random) {
    const RankTable::Columns& c = table.columns();
    const std::size_t n = cost_.size();
    const auto each = [&](auto&& cost) {
        for (std::size_t r = 0; r < n; ++r) cost_[r] = excluded_[r] == 0 ? cost(r) : kNever;
    };
    switch (options.policy) {
        case Policy::kExpectedTtft:
            if (request.role == protocol::Role::kEncode) return encode(c, request);
            if (request.role == protocol::Role::kDecode) {
                // Nothing of the prompt is computed there.
                return each([&](std::size_t r) {
                    return static_cast<double>(c.step[r]) + 1e-3 * c.requests[r];
                });
            }
            expected_ttft(c, options, request, now_s);
            if (request.adapter != 0 || !request.preferred.empty() || table.any_avoided()) {
                for (std::size_t r = 0; r < n; ++r) {
                    if (excluded_[r] != 0) continue;
                    const auto rank = static_cast<RankIndex>(r);
                    cost_[r] += adapter_s(table, request, rank) +
                                preference_s(table, options, request, rank);
                }
            }
            return;
        case Policy::kDynamo:
            return dynamo(active, options, request);
        case Policy::kLeastLoaded:
        case Policy::kPowerOfTwo:
            // Between equals, the one with fewer streams of ours.
            return each([&](std::size_t r) {
                return static_cast<double>(c.requests[r]) / std::max(c.running_limit[r], 1U) +
                       1e-9 * c.own[r];
            });
        case Policy::kRoundRobin:
            return each([&](std::size_t r) { return static_cast<double>((r + n - turn % n) % n); });
        case Policy::kRandom:
            return each([&](std::size_t) { return static_cast<double>(random()); });
        case Policy::kConsistentHash: {
            std::uint64_t key = request.session;
            if (key == 0 && !request.blocks.empty()) {
                key = request.blocks[std::min<std::size_t>(options.prefix_blocks,
                                                           request.blocks.size()) -
                                     1];
            }
            // Each rank draws a number from the key and its name, the lowest wins: a rank that
            // comes or goes moves no key but its own.
            return each([&](std::size_t r) {
                return static_cast<double>(mix(key ^ c.name_hash[r]) >> 11U);
            });
        }
        case Policy::kDirect:
            return each([](std::size_t) { return 0.0; });
    }
}

double Scorer::split_harm_s(const RankTable& table, const PolicyOptions& options,
                            const RouteRequest& request, RankIndex rank) const {
    const RankTable::Columns& c = table.columns();
    const double cached = cached_[rank];
    const double all = table.speed(rank).prefill_s(request.prompt_tokens - cached, cached);
    // Those that decode make a step anyway: what its base takes is no harm to them.
    const double tokens = all - static_cast<double>(c.base[rank]);
    return c.decoding[rank] * (options.split_itl_weight * tokens - options.itl_weight * all);
}

void Scorer::add_split_harm(const RankTable& table, const PolicyOptions& options,
                            const RouteRequest& request) {
    for (RankIndex r = 0; r < cost_.size(); ++r) {
        if (excluded_[r] == 0) cost_[r] += split_harm_s(table, options, request, r);
    }
}

Candidate Scorer::candidate(const RankTable& table, const PolicyOptions& options,
                            const RouteRequest& request, RankIndex rank, double now_s) const {
    const RankTable::Columns& c = table.columns();
    Candidate out;
    out.rank = rank;
    out.cached_tokens = static_cast<std::uint32_t>(cached_[rank]);
    out.queue_s = table.queue_s(rank, RankTable::level_of(request.priority), now_s) +
                  0.5 * static_cast<double>(c.step[rank]);
    if (request.role == protocol::Role::kEncode) {
        out.queue_s = request.encode_s * c.requests[rank];
        const bool held =
            std::ranges::find(request.overlaps, rank, &Overlap::rank) != request.overlaps.end();
        out.encode_s = held ? 0 : request.encode_s;
        out.cached_tokens = 0;
        out.cost = cost_[rank];
        return out;
    }
    const double cached = cached_[rank];
    out.prefill_s = table.speed(rank).prefill_s(request.prompt_tokens - cached, cached);
    out.onboarding_s = static_cast<double>(slow_[rank]) * c.onboarding[rank];
    out.encode_s = request.encode_s;
    out.adapter_s = adapter_s(table, request, rank);
    if (options.policy == Policy::kExpectedTtft) {
        out.preference_s = preference_s(table, options, request, rank);
        out.harm_s = out.prefill_s * (options.work_weight +
                                      options.queue_weight * arrivals_per_rank_s * out.queue_s +
                                      options.itl_weight * static_cast<double>(c.decoding[rank])) +
                     options.occupancy_weight *
                         static_cast<double>(occupied(c.requests[rank], c.running_limit[rank]));
        if (request.split) out.harm_s += split_harm_s(table, options, request, rank);
    }
    out.cost = cost_[rank];
    return out;
}

double Scorer::std_s(const RankTable& table, const Candidate& candidate) const {
    return static_cast<double>(table.columns().relative_std[candidate.rank]) *
           (candidate.queue_s + candidate.prefill_s);
}

}  // namespace stator::router
