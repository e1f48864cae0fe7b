#include "stator/router/explanation.h"

#include <algorithm>

#include "stator/codec/json_writer.h"

namespace stator::router {
namespace {

using codec::JsonWriter;

/// To the microsecond: more digits say nothing.
double ms(double seconds) {
    return static_cast<double>(static_cast<std::int64_t>(seconds * 1e6 + 0.5)) / 1e3;
}

void write_cost(JsonWriter& w, Policy policy, double cost) {
    switch (policy) {
        case Policy::kExpectedTtft:
            w.key("cost_ms").number(ms(cost));
            return;
        case Policy::kDynamo:
            w.key("cost_blocks").number(cost);
            return;
        case Policy::kLeastLoaded:
        case Policy::kPowerOfTwo:
            w.key("requests_per_slot").number(cost);
            return;
        case Policy::kRoundRobin:
        case Policy::kRandom:
        case Policy::kConsistentHash:
        case Policy::kDirect:
            return;  // nothing that means anything by itself
    }
}

void write_entry(JsonWriter& w, const Explanation::Entry& e, Policy policy) {
    const Candidate& c = e.candidate;
    w.begin_object().key("worker").string(e.worker);
    if (!e.excluded.empty()) {
        w.key("excluded").string(e.excluded).end_object();
        return;
    }
    if (!e.decode_worker.empty()) w.key("decode_worker").string(e.decode_worker);
    w.key("predicted_ttft_ms").number(ms(c.ttft_s()));
    w.key("queue_ms").number(ms(c.queue_s));
    w.key("prefill_ms").number(ms(c.prefill_s));
    w.key("onboarding_ms").number(ms(c.onboarding_s));
    w.key("encode_ms").number(ms(c.encode_s));
    w.key("adapter_load_ms").number(ms(c.adapter_s));
    w.key("handoff_ms").number(ms(c.handoff_s));
    w.key("harm_to_others_ms").number(ms(c.harm_s));
    if (c.preference_s > 0) w.key("preference_ms").number(ms(c.preference_s));
    w.key("cached_tokens").number(c.cached_tokens);
    write_cost(w, policy, c.cost);
    w.end_object();
}

}  // namespace

std::string to_json(const Explanation& e, std::size_t most_ranks) {
    std::string out;
    JsonWriter w(out);
    w.begin_object();
    w.key("policy").string(to_string(e.policy));
    w.key("prompt_tokens").number(e.prompt_tokens);
    w.key("chosen");
    if (e.chosen) {
        write_entry(w, *e.chosen, e.policy);
        w.key("uncertainty_ms").number(ms(e.ttft_std_s));
        w.key("kept_for_session").boolean(e.by_session);
        if (e.upper_bound) {
            w.key("note").string(
                "cached_tokens are at most so many: engines here keep part of the context besides, "
                "which may reach less far");
        }
    } else {
        w.null();
    }
    if (e.refused) {
        w.key("refused").string(e.refused->message);
        w.key("refusal").string(to_string(e.refused->code));
    }
    if (e.whole || e.split) {
        w.key("disaggregation").string(to_string(e.disaggregation));
        w.key("alternatives").begin_object();
        const auto alternative = [&](std::string_view name, const auto& entry) {
            w.key(name);
            if (entry) {
                write_entry(w, *entry, e.policy);
            } else {
                w.null();
            }
        };
        alternative("whole", e.whole);
        alternative("prefill_and_decode", e.split);
        w.end_object();
    }
    w.key("fallbacks").begin_array();
    for (const std::string& name : e.fallbacks) w.string(name);
    w.end_array();
    w.key("ranks").begin_array();
    const std::size_t shown = std::min(most_ranks, e.ranks.size());
    for (std::size_t i = 0; i < shown; ++i) write_entry(w, e.ranks[i], e.policy);
    w.end_array();
    if (shown < e.ranks.size())
        w.key("ranks_left_out").number(std::uint64_t{e.ranks.size() - shown});
    w.end_object();
    return out;
}

}  // namespace stator::router
