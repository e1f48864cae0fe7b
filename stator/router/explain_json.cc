#include "stator/router/explain_json.h"

#include <cmath>
#include <map>

#include "stator/codec/json_writer.h"

namespace stator::router {
namespace {

std::string_view words(Exclusion why) {
    switch (why) {
        case Exclusion::kNone:
            break;
        case Exclusion::kOtherRole:
            return "other role or closed";
        case Exclusion::kFull:
            return "full";
        case Exclusion::kTried:
            return "tried already";
        case Exclusion::kNotPinned:
            return "not the one asked for";
        case Exclusion::kLabel:
            return "lacks a required label";
        case Exclusion::kTaint:
            return "bears a taint";
    }
    return "";
}

/// Microseconds are enough for people.
double ms(double seconds) { return std::round(seconds * 1e6) / 1e3; }

void write_parts(codec::JsonWriter& w, const Candidate& c) {
    w.key("predicted_ttft_ms").number(ms(c.ttft_s()));
    w.key("cached_tokens").number(c.cached_tokens);
    const std::pair<const char*, double> parts[] = {
        {"queue_ms", c.queue_s},           {"prefill_ms", c.prefill_s},
        {"onboarding_ms", c.onboarding_s}, {"encode_ms", c.encode_s},
        {"adapter_ms", c.adapter_s},       {"handoff_ms", c.handoff_s},
        {"harm_to_others_ms", c.harm_s}};
    for (const auto& [name, seconds] : parts) {
        if (seconds > 0) w.key(name).number(ms(seconds));
    }
}

}  // namespace

std::string to_json(const Explanation& e, const RankTable& ranks, std::size_t most) {
    const auto name = [&](RankIndex r) -> std::string {
        return ranks.present(r) ? ranks.description(r).name : "";
    };
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("policy").string(to_string(e.policy));
    w.key("prompt_tokens").number(e.prompt_tokens);
    if (e.refused) {
        w.key("refused").string(e.refused->message);
    } else {
        w.key("chosen").string(name(e.decision.chosen.rank));
        w.key("predicted_ttft_ms").number(ms(e.decision.chosen.ttft_s()));
        w.key("uncertainty_ms").number(ms(e.decision.ttft_std_s));
        if (e.decision.by_session) w.key("reason").string("its session is there");
    }
    std::map<std::string_view, std::uint64_t> excluded;
    for (const Explanation::Entry& entry : e.ranks) {
        if (entry.excluded != Exclusion::kNone) ++excluded[words(entry.excluded)];
    }
    w.key("ranks").number(static_cast<std::uint64_t>(e.ranks.size()));
    w.key("excluded").begin_object();
    for (const auto& [why, count] : excluded) w.key(why).number(count);
    w.end_object().key("candidates").begin_array();
    std::size_t written = 0;
    for (const Explanation::Entry& entry : e.ranks) {
        if (entry.excluded != Exclusion::kNone || written == most) continue;
        ++written;
        w.begin_object().key("rank").string(name(entry.candidate.rank));
        if (entry.candidate.decode_rank != kNoRank) {
            w.key("decode_rank").string(name(entry.candidate.decode_rank));
        }
        w.key("cost").number(std::round(entry.candidate.cost * 1e6) / 1e6);
        write_parts(w, entry.candidate);
        w.end_object();
    }
    w.end_array().end_object();
    return out;
}

}  // namespace stator::router
