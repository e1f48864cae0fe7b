#include "stator/report/knee.h"

#include <algorithm>
#include <cmath>

#include "stator/base/check.h"

namespace stator::report {
namespace {

/// Rates this close are the same: what comes back through a text or a schedule is no new rate.
constexpr double kSame = 1e-6;

}  // namespace

std::string_view to_string(KneeEnd end) {
    switch (end) {
        case KneeEnd::kSearching:
            return "searching";
        case KneeEnd::kConverged:
            return "converged";
        case KneeEnd::kAllMet:
            return "all_met";
        case KneeEnd::kNoneMet:
            return "none_met";
        case KneeEnd::kOutOfRuns:
            return "out_of_runs";
    }
    return "unknown";
}

KneeSearch::KneeSearch(KneeOptions options) : options_(options) {
    options_.min_rate = std::max(options_.min_rate, 1e-9);
    options_.max_rate = std::max(options_.max_rate, options_.min_rate);
    options_.start_rate = std::clamp(options_.start_rate, options_.min_rate, options_.max_rate);
    options_.growth = std::max(options_.growth, 1.1);
    options_.tolerance = std::clamp(options_.tolerance, 0.001, 0.9);
}

const KneeSearch::Tried* KneeSearch::lowest_missed() const {
    const auto found = std::ranges::find_if(tried_, [](const Tried& t) { return !t.holds(); });
    return found == tried_.end() ? nullptr : &*found;
}

const KneeSearch::Tried* KneeSearch::highest_met_below(const Tried* limit) const {
    const Tried* best = nullptr;
    for (const Tried& tried : tried_) {
        if (&tried == limit) break;
        best = &tried;
    }
    return best;
}

KneeSearch::Plan KneeSearch::plan() const {
    const Tried* unmet = lowest_missed();
    const Tried* met = highest_met_below(unmet);
    const bool spent = runs_.size() >= options_.max_runs;
    const auto go = [&](double rate) {
        return spent ? Plan{std::nullopt, KneeEnd::kOutOfRuns} : Plan{rate, KneeEnd::kSearching};
    };
    if (met == nullptr && unmet == nullptr) return go(options_.start_rate);
    if (unmet == nullptr) {
        if (met->rate >= options_.max_rate) return {std::nullopt, KneeEnd::kAllMet};
        return go(std::min(met->rate * options_.growth, options_.max_rate));
    }
    if (met == nullptr) {
        if (unmet->rate > options_.min_rate) {
            return go(std::max(unmet->rate / options_.growth, options_.min_rate));
        }
        if (!unmet->settled()) return go(unmet->rate);
        return {std::nullopt, KneeEnd::kNoneMet};
    }
    if (unmet->rate - met->rate > options_.tolerance * unmet->rate) {
        return go(std::sqrt(met->rate * unmet->rate));
    }
    if (!unmet->settled()) return go(unmet->rate);
    if (!met->settled()) return go(met->rate);
    return {std::nullopt, KneeEnd::kConverged};
}

std::optional<double> KneeSearch::next() const { return plan().rate; }

void KneeSearch::tell(double rate, bool met) {
    STATOR_ASSERT(rate > 0);
    runs_.push_back({rate, met});
    auto place = std::ranges::find_if(
        tried_, [rate](const Tried& t) { return t.rate >= rate * (1 - kSame); });
    if (place == tried_.end() || place->rate > rate * (1 + kSame)) {
        place = tried_.insert(place, Tried{rate, 0, 0});
    }
    ++(met ? place->met : place->missed);
}

KneeResult KneeSearch::result() const {
    KneeResult result;
    result.end = plan().end;
    const Tried* unmet = lowest_missed();
    const Tried* met = highest_met_below(unmet);
    if (met != nullptr) result.met = met->rate;
    if (unmet != nullptr) result.unmet = unmet->rate;
    result.runs = runs_;
    return result;
}

}  // namespace stator::report
