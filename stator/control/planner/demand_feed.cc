#include "stator/control/planner/demand_feed.h"

#include <algorithm>
#include <array>
#include <utility>

namespace stator::control {
namespace {

using protocol::DemandTotals;
using protocol::DurationTotals;

constexpr std::array kNumbers{
    &DemandTotals::offered,
    &DemandTotals::refused,
    &DemandTotals::prompt_tokens,
    &DemandTotals::media_items,
    &DemandTotals::started_prompt_tokens,
    &DemandTotals::cached_tokens,
    &DemandTotals::finished,
    &DemandTotals::output_tokens,
};
constexpr std::array kDurations{&DemandTotals::ttft, &DemandTotals::itl};

/// A source that begins anew tells less of what only grows.
bool began_anew(const DemandTotals& before, const DemandTotals& after) {
    return std::ranges::any_of(kNumbers,
                               [&](auto member) { return after.*member < before.*member; });
}

DurationTotals difference(const DurationTotals& before, const DurationTotals& after) {
    if (before.bounds != after.bounds || before.counts.size() != after.counts.size()) return after;
    DurationTotals d = after;
    for (std::size_t i = 0; i < d.counts.size(); ++i) {
        d.counts[i] -= std::min(d.counts[i], before.counts[i]);
    }
    d.sum_s = std::max(0.0, after.sum_s - before.sum_s);
    return d;
}

void add(DurationTotals& to, const DurationTotals& more) {
    if (to.counts.empty()) to = {more.bounds, std::vector<std::uint64_t>(more.counts.size()), 0.0};
    if (to.bounds != more.bounds || to.counts.size() != more.counts.size()) return;
    for (std::size_t i = 0; i < to.counts.size(); ++i) to.counts[i] += more.counts[i];
    to.sum_s += more.sum_s;
}

}  // namespace

DemandTotals difference(const DemandTotals& before, const DemandTotals& after) {
    if (began_anew(before, after)) return after;
    DemandTotals d = after;
    for (const auto member : kNumbers) d.*member -= before.*member;
    for (const auto member : kDurations) d.*member = difference(before.*member, after.*member);
    return d;
}

void add(DemandTotals& to, const DemandTotals& more) {
    for (const auto member : kNumbers) to.*member += more.*member;
    for (const auto member : kDurations) add(to.*member, more.*member);
}

void DemandFeed::tell(std::uint64_t source, std::vector<DemandTotals> totals, TimePoint now,
                      bool known_from_start) {
    const std::lock_guard lock(mutex_);
    const auto at = sources_.find(source);
    if (at == sources_.end() && sources_.size() >= kMaxSources) return;
    Source& s = at == sources_.end() ? sources_[source] : at->second;
    const bool counts = s.begun || known_from_start;
    for (DemandTotals& t : totals) {
        DemandTotals& last = s.last[t.model];
        if (counts) {
            DemandTotals& window = window_[t.model];
            window.model = t.model;
            add(window, difference(last, t));
        }
        last = std::move(t);
    }
    s.begun = true;
    s.at = now;
    heard_at_ = std::max(heard_at_, now);
}

std::map<std::string, DemandTotals> DemandFeed::take(TimePoint forget) {
    const std::lock_guard lock(mutex_);
    std::erase_if(sources_, [&](const auto& s) { return s.second.at < forget; });
    return std::exchange(window_, {});
}

TimePoint DemandFeed::heard_at() const {
    const std::lock_guard lock(mutex_);
    return heard_at_;
}

}  // namespace stator::control
