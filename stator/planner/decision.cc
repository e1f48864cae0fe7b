#include "stator/planner/decision.h"

#include <fmt/format.h>

#include <iterator>

#include "stator/codec/json_writer.h"

namespace stator::planner {

std::string_view to_string(Action::Kind kind) {
    switch (kind) {
        case Action::Kind::kStart:
            return "start";
        case Action::Kind::kDrain:
            return "drain";
        case Action::Kind::kMove:
            return "move";
    }
    return "unknown";
}

std::string_view to_string(Bound bound) {
    switch (bound) {
        case Bound::kNone:
            return "none";
        case Bound::kMin:
            return "min";
        case Bound::kMax:
            return "max";
        case Bound::kBudget:
            return "budget";
        case Bound::kCooldown:
            return "cooldown";
        case Bound::kHysteresis:
            return "hysteresis";
        case Bound::kBackoff:
            return "backoff";
        case Bound::kInputs:
            return "inputs";
        case Bound::kRate:
            return "rate";
        case Bound::kUnreachable:
            return "unreachable";
    }
    return "unknown";
}

namespace {

std::string describe(const Action& a) {
    const auto role = protocol::to_string(a.role);
    switch (a.kind) {
        case Action::Kind::kStart:
            return fmt::format("start {} {}", a.count, role);
        case Action::Kind::kDrain:
            return fmt::format("drain {} ({}): {}", a.worker, role, a.because);
        case Action::Kind::kMove:
            return fmt::format("move {} from {} to {}: {}", a.worker, role,
                               protocol::to_string(a.to), a.because);
    }
    return {};
}

void put(codec::JsonWriter& w, std::string_view key, const LatencyWindow& l) {
    w.key(key).begin_object();
    w.key("count").number(l.count).key("within").number(l.within);
    w.key("mean_s").number(l.mean_s).key("p50_s").number(l.p50_s).key("p99_s").number(l.p99_s);
    w.end_object();
}

void put(codec::JsonWriter& w, const DemandWindow& d) {
    w.begin_object();
    w.key("seconds").number(d.seconds).key("offered").number(d.offered);
    w.key("refused").number(d.refused).key("prompt_tokens").number(d.prompt_tokens);
    w.key("cached_tokens").number(d.cached_tokens).key("media_items").number(d.media_items);
    w.key("finished").number(d.finished).key("output_tokens").number(d.output_tokens);
    put(w, "ttft", d.ttft);
    put(w, "itl", d.itl);
    w.end_object();
}

void put(codec::JsonWriter& w, const RoleDecision& r) {
    w.begin_object().key("role").string(protocol::to_string(r.role));
    w.key("ready").number(r.counts.ready).key("starting").number(r.counts.starting);
    w.key("ordered").number(r.counts.ordered).key("stuck").number(r.counts.stuck);
    w.key("draining").number(r.counts.draining);
    w.key("need").number(r.need).key("target").number(r.target);
    w.key("bound").string(to_string(r.bound)).key("because").string(r.because);
    w.key("utilization").number(r.utilization).key("ttft_miss").number(r.ttft_miss);
    w.key("itl_s").number(r.itl_s).key("margin").number(r.margin).end_object();
}

void put(codec::JsonWriter& w, const Action& a, TimePoint now, double unix_now_s) {
    w.begin_object().key("id").number(a.id).key("kind").string(to_string(a.kind));
    w.key("role").string(protocol::to_string(a.role));
    if (a.kind == Action::Kind::kStart) {
        w.key("count").number(a.count);
    } else {
        w.key("worker").string(a.worker).key("because").string(a.because);
    }
    if (a.kind == Action::Kind::kMove) w.key("to").string(protocol::to_string(a.to));
    w.key("deadline").number(unix_now_s + to_seconds(a.deadline - now));
    w.key("expects").string(a.expects).end_object();
}

}  // namespace

void write_json(std::string& out, const Decision& d, TimePoint now, double unix_now_s) {
    codec::JsonWriter w(out);
    w.begin_object().key("id").number(d.id);
    w.key("at").number(unix_now_s + to_seconds(d.at - now));
    w.key("policy").string(to_string(d.policy)).key("advisory").boolean(d.advisory);
    w.key("demand");
    if (d.demand) {
        put(w, *d.demand);
    } else {
        w.null();
    }
    w.key("cached_ratio").number(d.cached_ratio).key("isl").number(d.isl).key("osl").number(d.osl);
    w.key("forecasts").begin_array();
    for (const ForecastView& f : d.forecasts) {
        w.begin_object().key("of").string(f.of).key("horizon_s").number(f.horizon_s);
        w.key("actual").number(f.actual).key("mean").number(f.mean).key("low").number(f.low);
        w.key("high").number(f.high).key("sized").number(f.sized).end_object();
    }
    w.end_array().key("roles").begin_array();
    for (const RoleDecision& r : d.roles) put(w, r);
    w.end_array().key("actions").begin_array();
    for (const Action& a : d.actions) put(w, a, now, unix_now_s);
    w.end_array().key("notes").begin_array();
    for (const std::string& note : d.notes) w.string(note);
    w.end_array().key("degraded").begin_array();
    for (const std::string& what : d.degraded) w.string(what);
    w.end_array().end_object();
}

std::string explain(const Decision& d, TimePoint now) {
    std::string out =
        fmt::format("decision {}, {:.0f} s ago, policy {}{}\n", d.id, to_seconds(now - d.at),
                    to_string(d.policy), d.advisory ? ", advisory: nothing is ordered" : "");
    auto to = std::back_inserter(out);
    if (d.demand) {
        const DemandWindow& w = *d.demand;
        fmt::format_to(to,
                       "  seen      {:.0f} requests in {:.0f} s ({:.0f} refused), {:.0f} prompt "
                       "tokens, {:.0f} % cached, {:.0f} output tokens each\n",
                       w.offered, w.seconds, w.refused, w.prompt_tokens, 100 * d.cached_ratio,
                       d.osl);
        const auto share = [](const LatencyWindow& l) {
            return l.count > 0 ? 100 * l.within / l.count : 100.0;
        };
        fmt::format_to(to, "            {:.1f} % of TTFT and {:.1f} % of ITL within their limits\n",
                       share(w.ttft), share(w.itl));
    } else {
        out += "  seen      no demand: the data are missing\n";
    }
    for (const ForecastView& f : d.forecasts) {
        fmt::format_to(to,
                       "  forecast  {}/s in {:.0f} s: {:.2f}, 90 % between {:.2f} and {:.2f}; "
                       "sized for {:.2f} (now {:.2f})\n",
                       f.of, f.horizon_s, f.mean, f.low, f.high, f.sized, f.actual);
    }
    for (const RoleDecision& r : d.roles) {
        fmt::format_to(to,
                       "  {:<11} needs {}, aims at {} (ready {}, starting {}, ordered {}, draining "
                       "{}{})\n",
                       protocol::to_string(r.role), r.need, r.target, r.counts.ready,
                       r.counts.starting, r.counts.ordered, r.counts.draining,
                       r.counts.stuck > 0 ? fmt::format(", stuck {}", r.counts.stuck) : "");
        fmt::format_to(to, "            {}\n", r.because);
        if (r.bound != Bound::kNone) {
            fmt::format_to(to, "            bound by {}\n", to_string(r.bound));
        }
        if (r.itl_s > 0 || r.ttft_miss > 0) {
            fmt::format_to(to,
                           "            by the model {:.2f} % miss the TTFT, {:.1f} ms between "
                           "tokens\n",
                           100 * r.ttft_miss, 1e3 * r.itl_s);
        }
    }
    for (const Action& a : d.actions) {
        fmt::format_to(to, "  order {:<4}{}\n", a.id, describe(a));
    }
    if (d.actions.empty()) out += "  order     none\n";
    for (const std::string& note : d.notes) fmt::format_to(to, "  note      {}\n", note);
    for (const std::string& what : d.degraded) fmt::format_to(to, "  degraded  {}\n", what);
    return out;
}

std::string headline(const Decision& d) {
    std::string out;
    for (const Action& a : d.actions) {
        if (out.size() > 400) {
            out += ", …";
            break;
        }
        out += (out.empty() ? "" : ", ") + describe(a);
    }
    if (out.empty()) out = "nothing to do";
    for (const RoleDecision& r : d.roles) {
        out += fmt::format(
            "; {}: needs {}, has {}{}", protocol::to_string(r.role), r.need, r.counts.committed(),
            r.bound == Bound::kNone ? "" : fmt::format(", bound by {}", to_string(r.bound)));
    }
    return out;
}

}  // namespace stator::planner
