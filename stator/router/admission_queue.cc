#include "stator/router/admission_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "stator/base/check.h"

namespace stator::router {
namespace {

double seconds(Nanos t) { return static_cast<double>(t.count()) * 1e-9; }

/// Work that the deficits are counted in: never so little that a tenant's requests are free.
double charged(const Waiting& w) { return std::clamp(w.work_s, 1e-3, 3600.0); }

}  // namespace

void AdmissionQueue::set_weight(std::uint64_t tenant, double weight) {
    if (std::isfinite(weight) && weight > 0) weights_[tenant] = weight;
}

void AdmissionQueue::clear_weights() {
    weights_.clear();
    for (Class& c : classes_) {
        for (auto& [id, tenant] : c.tenants) tenant.deficit_s = std::min(tenant.deficit_s, 0.0);
    }
}

double AdmissionQueue::weight(std::uint64_t tenant) const {
    const auto found = weights_.find(tenant);
    return found == weights_.end() ? 1.0 : found->second;
}

/// Where a request stands among those of its tenant. A deadline counts as the latest moment at
/// which its work can begin.
double AdmissionQueue::key(const Waiting& r) const {
    double key = seconds(r.arrival) + options_.stretch * charged(r);
    if (r.deadline) key = std::min(key, seconds(*r.deadline) - charged(r));
    return key;
}

Result<std::optional<Waiting>> AdmissionQueue::push(const Waiting& request, Nanos now) {
    STATOR_CHECK(!places_.contains(request.id), "a request waits once");
    if (request.deadline && *request.deadline <= now) {
        return error(ErrorCode::kDeadlineExceeded, "the request's deadline has passed");
    }
    const auto theirs = per_tenant_.find(request.tenant);
    if (theirs != per_tenant_.end() && theirs->second >= options_.most_per_tenant) {
        return tl::unexpected(
            overloaded(fmt::format("{} requests of this tenant wait already", theirs->second)));
    }
    std::optional<Waiting> displaced;
    const auto level = static_cast<std::size_t>(std::to_underlying(request.urgency));
    if (places_.size() >= options_.most_requests) {
        // The last one of the least urgent class goes, if that class is less urgent than this.
        const Place* last = nullptr;
        for (std::size_t l = kClasses - 1; l > level && last == nullptr; --l) {
            if (classes_[l].size == 0) continue;
            for (const auto& [id, place] : places_) {
                if (place.level != l) continue;
                if (last == nullptr || place.at->first > last->at->first) last = &place;
            }
        }
        if (last == nullptr) {
            return tl::unexpected(overloaded(fmt::format("{} requests wait already", size())));
        }
        displaced = take(Place(*last));
    }
    insert(request, level);
    return displaced;
}

void AdmissionQueue::insert(const Waiting& request, std::size_t level) {
    Class& c = classes_[level];
    Tenant& tenant = c.tenants[request.tenant];
    if (tenant.waiting.empty()) c.round.push_back(request.tenant);
    const auto at = tenant.waiting.emplace(std::pair(key(request), request.id), request).first;
    places_[request.id] = {level, request.tenant, at};
    if (request.deadline) deadlines_.emplace(*request.deadline, request.id);
    ++per_tenant_[request.tenant];
    ++c.size;
    work_s_ += request.work_s;
}

Waiting AdmissionQueue::take(const Place& place) {
    Class& c = classes_[place.level];
    const auto tenant = c.tenants.find(place.tenant);
    Waiting out = place.at->second;
    tenant->second.waiting.erase(place.at);
    if (tenant->second.waiting.empty()) {
        // A share is not saved up by who does not wait.
        c.round.remove(place.tenant);
        c.tenants.erase(tenant);
    }
    if (out.deadline) {
        const auto [begin, end] = deadlines_.equal_range(*out.deadline);
        deadlines_.erase(
            std::find_if(begin, end, [&](const auto& d) { return d.second == out.id; }));
    }
    if (--per_tenant_[place.tenant] == 0) per_tenant_.erase(place.tenant);
    --c.size;
    places_.erase(out.id);
    work_s_ = places_.empty() ? 0 : std::max(0.0, work_s_ - out.work_s);
    return out;
}

void AdmissionQueue::promote(Nanos now) {
    if (options_.promote_after_s <= 0) return;
    for (std::size_t level = 1; level < kClasses; ++level) {
        if (classes_[level].size == 0) continue;
        std::vector<Place> due;
        for (const auto& [id, place] : places_) {
            // Each class further costs as long again.
            const auto from =
                static_cast<std::size_t>(std::to_underlying(place.at->second.urgency));
            const double wait = options_.promote_after_s * static_cast<double>(from - level + 1);
            if (place.level == level && seconds(now - place.at->second.arrival) >= wait) {
                due.push_back(place);
            }
        }
        std::ranges::sort(due, {}, [](const Place& p) { return p.at->first; });
        for (const Place& place : due) insert(take(place), level - 1);
    }
}

/// Whose turn it is: rounds are gone until somebody's deficit covers their first request. Tenants'
/// places in the round do not change by that.
std::uint64_t AdmissionQueue::next_tenant(Class& c) const {
    const auto missing = [&](std::uint64_t tenant) {
        const Tenant& t = c.tenants.at(tenant);
        return charged(t.waiting.begin()->second) - t.deficit_s;
    };
    double rounds = std::numeric_limits<double>::max();
    for (const std::uint64_t tenant : c.round) {
        if (missing(tenant) <= 0) return tenant;
        rounds =
            std::min(rounds, std::ceil(missing(tenant) / (options_.quantum_s * weight(tenant))));
    }
    for (const std::uint64_t tenant : c.round) {
        c.tenants.at(tenant).deficit_s += rounds * options_.quantum_s * weight(tenant);
    }
    for (const std::uint64_t tenant : c.round) {
        if (missing(tenant) <= 1e-9) return tenant;
    }
    return c.round.front();
}

AdmissionQueue::Class* AdmissionQueue::first_class() {
    for (Class& c : classes_) {
        if (c.size > 0) return &c;
    }
    return nullptr;
}

/// The tenant's first request comes out: it is charged. Their turn lasts until their share is used.
void AdmissionQueue::pass_turn(Class& c, std::uint64_t tenant) {
    Tenant& t = c.tenants.at(tenant);
    t.deficit_s -= charged(t.waiting.begin()->second);
    const bool more =
        t.waiting.size() > 1 && charged(std::next(t.waiting.begin())->second) <= t.deficit_s;
    c.round.remove(tenant);
    c.round.insert(more ? c.round.begin() : c.round.end(), tenant);
}

void AdmissionQueue::count_departure(Nanos now) {
    pop_interval_s_ += 0.1 * (std::min(10.0, seconds(now - last_pop_)) - pop_interval_s_);
    last_pop_ = now;
}

std::optional<Waiting> AdmissionQueue::pop(Nanos now) {
    promote(now);
    Class* const c = first_class();
    if (c == nullptr) return std::nullopt;
    const std::uint64_t tenant = next_tenant(*c);
    const std::uint64_t id = c->tenants.at(tenant).waiting.begin()->second.id;
    pass_turn(*c, tenant);
    count_departure(now);
    return take(Place(places_.at(id)));
}

AdmissionQueue::Shares AdmissionQueue::shares() const {
    Shares out;
    for (std::size_t level = 0; level < kClasses; ++level) {
        for (const std::uint64_t tenant : classes_[level].round) {
            out[level].emplace_back(tenant, classes_[level].tenants.at(tenant).deficit_s);
        }
    }
    return out;
}

/// Of tenants who have gone since, nothing.
void AdmissionQueue::restore(const Shares& shares) {
    for (std::size_t level = 0; level < kClasses; ++level) {
        Class& c = classes_[level];
        c.round.clear();
        for (const auto& [tenant, deficit_s] : shares[level]) {
            const auto there = c.tenants.find(tenant);
            if (there == c.tenants.end()) continue;
            there->second.deficit_s = deficit_s;
            c.round.push_back(tenant);
        }
    }
}

std::size_t AdmissionQueue::offer(Nanos now, std::size_t most,
                                  const std::function<Offered(const Waiting&)>& ask) {
    constexpr std::size_t kFurthest = 512;
    struct Aside {
        Waiting request;
        std::size_t level;
    };
    struct Debt {
        std::size_t level;
        std::uint64_t tenant;
        double work_s;
    };
    promote(now);
    std::vector<Aside> aside;
    std::vector<Debt> debts;
    std::optional<Shares> before;  // the first one that was not taken
    std::size_t taken = 0;
    std::size_t asked = 0;
    const std::size_t front = most - most / 2;
    Class* c = nullptr;
    while (asked < most && (c = first_class()) != nullptr) {
        const auto level = static_cast<std::size_t>(c - classes_.data());
        const std::uint64_t tenant = next_tenant(*c);
        const Waiting first = c->tenants.at(tenant).waiting.begin()->second;
        const std::size_t seen = aside.size();
        Offered what = Offered::kNotNow;
        if (seen < front || seen >= further_) {
            what = ask(first);
            ++asked;
        }
        if (what == Offered::kTaken) {
            ++taken;
            count_departure(now);
            if (before) debts.push_back({level, tenant, charged(first)});
        } else if (!before) {
            before = shares();
        }
        pass_turn(*c, tenant);
        (void)take(Place(places_.at(first.id)));
        if (what != Offered::kTaken) aside.push_back({first, level});
        if (what == Offered::kNobody) break;
    }
    const bool to_the_end = first_class() == nullptr;
    further_ = to_the_end || aside.size() >= kFurthest ? 0 : aside.size();
    for (const Aside& a : aside) insert(a.request, a.level);
    if (before) restore(*before);
    for (const Debt& d : debts) {
        const auto there = classes_[d.level].tenants.find(d.tenant);
        if (there != classes_[d.level].tenants.end()) there->second.deficit_s -= d.work_s;
    }
    return taken;
}

void AdmissionQueue::put_back(const Waiting& request) {
    const auto level = static_cast<std::size_t>(std::to_underlying(request.urgency));
    insert(request, level);
    Class& c = classes_[level];
    c.round.remove(request.tenant);
    c.round.push_front(request.tenant);
    c.tenants.at(request.tenant).deficit_s += charged(request);
}

bool AdmissionQueue::remove(std::uint64_t id) {
    const auto found = places_.find(id);
    if (found == places_.end()) return false;
    (void)take(Place(found->second));
    return true;
}

std::vector<Waiting> AdmissionQueue::expire(Nanos now) {
    std::vector<Waiting> out;
    while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
        out.push_back(take(Place(places_.at(deadlines_.begin()->second))));
    }
    return out;
}

Error AdmissionQueue::overloaded(std::string message) const {
    Error e;
    e.code = ErrorCode::kOverloaded;
    e.message = std::move(message);
    e.retryable = true;
    // When a tenth of the queue will have gone.
    const double wait = pop_interval_s_ * (1.0 + 0.1 * static_cast<double>(size()));
    e.retry_after_ms = static_cast<std::uint32_t>(std::clamp(wait * 1000, 50.0, 30'000.0));
    return e;
}

}  // namespace stator::router
