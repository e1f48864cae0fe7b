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
    }
    return {};
}

Explanation Router::explain(const RouteRequest& request, Nanos now) {
    Explanation out;
    out.policy = options_.policy;
    out.prompt_tokens = request.prompt_tokens;
    const std::minstd_rand before = random_;
    auto decision = decide(request, now);
    random_ = before;  // what book() would do
    const auto name = [&](RankIndex r) {
        return r == kNoRank ? std::string() : table_.description(r).name;
    };
    if (decision) {
        const Candidate& c = decision->chosen;
        out.chosen = Explanation::Entry{name(c.rank), name(c.decode_rank), c, {}};
        out.ttft_std_s = decision->ttft_std_s;
        out.by_session = decision->by_session;
        for (const RankIndex r : decision->fallbacks) out.fallbacks.push_back(name(r));
    } else {
        out.refused = std::move(decision.error());
    }
    if (options_.policy == Policy::kDirect && !request.pinned) return out;
    for (RankIndex r = 0; r < table_.size(); ++r) {
        if (!table_.present(r) || table_.description(r).role != request.role) continue;
        Explanation::Entry e;
        e.worker = name(r);
        e.excluded = why_excluded(request, r);
        e.candidate = scorer_.candidate(table_, options_, request, r,
                                        static_cast<double>(now.count()) * 1e-9);
        if (request.pair && out.chosen && e.excluded.empty()) {
            const Decoder& decoder = decoders_[table_.columns().zone[r]];
            e.decode_worker = name(decoder.rank);
            e.candidate.decode_rank = decoder.rank;
            e.candidate.handoff_s = decoder.handoff_s;
        }
        out.ranks.push_back(std::move(e));
    }
    std::ranges::sort(out.ranks, {}, [](const Explanation::Entry& e) {
        return std::tuple(!e.excluded.empty(), e.candidate.cost, e.candidate.rank);
    });
    return out;
}

}  // namespace stator::router
