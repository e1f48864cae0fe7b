#include <algorithm>
#include <tuple>
#include <utility>

#include "stator/router/router.h"

namespace stator::router {

std::string Router::why_excluded(const RouteRequest& request, RankIndex rank) const {
    const RankDescription& d = table_.description(rank);
    switch (scorer_.exclusion(rank)) {
        case Exclusion::kNone:
            return {};
        case Exclusion::kOtherRole:
            return "takes no requests";
        case Exclusion::kFull:
            return "full";
        case Exclusion::kTried:
            return "tried before";
        case Exclusion::kNotPinned:
            return "not the one that the request names";
        case Exclusion::kLabel:
            for (const Label& label : request.required) {
                if (std::ranges::find(d.labels, label) == d.labels.end()) return "lacks " + label;
            }
            return "lacks a label";
        case Exclusion::kTaint:
            for (const Label& taint : d.taints) {
                if (std::ranges::find(request.tolerated, taint) == request.tolerated.end()) {
                    return "taint " + taint;
                }
            }
            return "a taint";
        case Exclusion::kNoWay:
            return "no way to take its media";
    }
    return {};
}

Explanation Router::explain(const RouteRequest& asked, Nanos now) {
    RouteRequest request = asked;
    request.split = splits(asked);
    Explanation out;
    out.policy = options_.policy;
    out.prompt_tokens = request.prompt_tokens;
    out.disaggregation = options_.disaggregation;
    const std::minstd_rand before = random_;
    auto decision = decide(request, now);
    random_ = before;  // what book() would do
    if (decision) {
        out.chosen = entry(decision->chosen);
        out.ttft_std_s = decision->ttft_std_s;
        out.by_session = decision->by_session;
        for (const RankIndex r : decision->fallbacks) {
            out.fallbacks.push_back(table_.description(r).name);
        }
    } else {
        out.refused = std::move(decision.error());
    }
    if (options_.policy == Policy::kDirect && !request.pinned) return out;
    if (splits(request)) {
        const RouteRequest pair = pair_of(request);
        const auto split = decide_one(pair, now);
        if (split) out.split = entry(split->chosen);
        list_ranks(pair, split.has_value(), now, out);
        const auto whole = decide_one(request, now);
        random_ = before;
        if (whole) out.whole = entry(whole->chosen);
    }
    list_ranks(request, out.chosen.has_value(), now, out);
    std::ranges::sort(out.ranks, {}, [](const Explanation::Entry& e) {
        return std::tuple(!e.excluded.empty(), e.candidate.cost, e.candidate.rank);
    });
    return out;
}

Explanation::Entry Router::entry(const Candidate& c) const {
    const auto name = [&](RankIndex r) {
        return r == kNoRank ? std::string() : table_.description(r).name;
    };
    return {name(c.rank), name(c.decode_rank), c, {}};
}

/// What was scored last.
void Router::list_ranks(const RouteRequest& request, bool decided, Nanos now, Explanation& out) {
    for (RankIndex r = 0; r < table_.size(); ++r) {
        const std::uint8_t does = table_.description(r).roles.bits();
        if (!table_.present(r) || (does & Roles::takers(request.role)) == 0) continue;
        Candidate c = scorer_.candidate(table_, options_, request, r,
                                        static_cast<double>(now.count()) * 1e-9);
        const std::string excluded = why_excluded(request, r);
        if (request.pair && decided && excluded.empty()) {
            const Decoder decoder = decoder_for(r);
            c.decode_rank = decoder.rank;
            c.handoff_s = decoder.handoff_s;
        }
        out.ranks.push_back(entry(c));
        out.ranks.back().excluded = excluded;
    }
}

}  // namespace stator::router
