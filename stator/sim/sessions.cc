#include "stator/sim/sessions.h"

#include <algorithm>

#include "stator/base/check.h"

namespace stator::sim {

using workload::RequestSpec;

std::optional<RequestSpec> Sessions::add(RequestSpec spec) {
    Session& session = sessions_[spec.session];
    std::vector<std::uint64_t> awaits;
    if (spec.after) {
        const auto await = [&](std::uint64_t index) {
            const bool open = std::ranges::find(session.open, index) != session.open.end();
            if (open && std::ranges::find(awaits, index) == awaits.end()) awaits.push_back(index);
        };
        await(*spec.after);
        for (const workload::Segment& s : spec.prompt) {
            if (s.output_of) await(*s.output_of);
        }
    }
    session.open.push_back(spec.index);
    if (awaits.empty()) return spec;
    session.waiting.push_back({std::move(spec), std::move(awaits)});
    return std::nullopt;
}

std::vector<RequestSpec> Sessions::ended(const RequestSpec& spec,
                                         std::vector<tokens::TokenId> output) {
    const auto found = sessions_.find(spec.session);
    STATOR_CHECK(found != sessions_.end(), "a request that was added ends");
    Session& session = found->second;
    std::erase(session.open, spec.index);
    std::vector<RequestSpec> free;
    if (session.open.empty()) {
        sessions_.erase(found);
        return free;
    }
    if (keep_outputs_) session.outputs.emplace_back(spec.index, std::move(output));
    for (Waiting& w : session.waiting) {
        std::erase(w.awaits, spec.index);
        if (w.awaits.empty()) free.push_back(std::move(w.spec));
    }
    std::erase_if(session.waiting, [](const Waiting& w) { return w.awaits.empty(); });
    return free;
}

std::span<const tokens::TokenId> Sessions::output(std::uint64_t session,
                                                  std::uint64_t index) const {
    const auto found = sessions_.find(session);
    if (found == sessions_.end()) return {};
    for (const auto& [which, tokens] : found->second.outputs) {
        if (which == index) return tokens;
    }
    return {};
}

}  // namespace stator::sim
