#include "stator/router/rank_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "stator/base/check.h"

namespace stator::router {
namespace {

/// So many prompts are measured together, where a rank is never without work: first tokens come
/// with whole steps, and what a step computed of the next prompt counts for that one.
constexpr std::uint32_t kPromptsPerObservation = 8;

/// FNV-1a, then mixed: names that differ in one letter get unlike hashes.
std::uint64_t hash_of(const std::string& name) {
    std::uint64_t h = 0xcbf29ce484222325U;
    for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    h ^= h >> 32U;
    h *= 0xd6e8feb86659fd93U;
    return h ^ (h >> 32U);
}

constexpr float kPlenty = std::numeric_limits<float>::max();

float narrow(double x) { return static_cast<float>(x); }

template <typename... Columns>
void grow_all(Columns&... columns) {
    (columns.emplace_back(), ...);
}

}  // namespace

RankIndex RankTable::add(RankDescription description) {
    STATOR_CHECK(is_valid(description.prefill) && is_valid(description.step), "priors are times");
    if (free_.empty()) {
        free_.push_back(static_cast<RankIndex>(ranks_.size()));
        ranks_.emplace_back();
        Columns& c = columns_;
        grow_all(c.total, c.anchor, c.head, c.level_work[0], c.level_work[1], c.level_work[2],
                 c.foreign, c.scale, c.base, c.per_token, c.per_token_context, c.step,
                 c.relative_std, c.onboarding, c.requests, c.own, c.running_limit, c.limit,
                 c.decoding, c.kv_tokens, c.kv_total, c.kv_room, c.roles, c.handoffs_full,
                 c.distrusted, c.zone, c.site, c.host, c.name_hash);
    }
    const RankIndex rank = free_.back();
    free_.pop_back();
    ranks_[rank].present = true;
    columns_.kv_room[rank] = kPlenty;
    ranks_[rank].speed =
        estimate::RankSpeed(description.prefill, description.step, description.prior_std);
    ranks_[rank].speed.start_prefill_at(pool_scale_.scale());
    describe(rank, std::move(description));
    return rank;
}

void RankTable::describe(RankIndex rank, RankDescription description) {
    Rank& r = ranks_[rank];
    if (!r.description.taints.empty()) --tainted_;
    if (!r.description.avoid.empty()) --avoided_;
    r.description = std::move(description);
    if (!r.description.taints.empty()) ++tainted_;
    if (!r.description.avoid.empty()) ++avoided_;
    const RankDescription& d = r.description;
    Columns& c = columns_;
    set_roles(rank, r.present && d.open ? d.roles.bits() : 0);
    c.distrusted[rank] = d.distrusted ? 1 : 0;
    c.onboarding[rank] = narrow(d.onboarding_s_per_token);
    c.zone[rank] = zone_number(d.zone);
    c.site[rank] = site_number(d);
    c.host[rank] = d.host.empty() ? 0 : hash_of(d.host) | 1U;
    c.name_hash[rank] = hash_of(d.name);
    refresh_speed(rank);
    refresh_step(rank);
}

void RankTable::remove(RankIndex rank) {
    STATOR_CHECK(present(rank), "only ranks that are there are removed");
    Rank& r = ranks_[rank];
    r.present = false;
    if (!r.description.taints.empty()) --tainted_;
    if (!r.description.avoid.empty()) --avoided_;
    r = Rank{};
    Columns& c = columns_;
    set_roles(rank, 0);
    c.handoffs_full[rank] = 0;
    c.total[rank] = c.anchor[rank] = c.head[rank] = 0;
    for (auto& level : c.level_work) level[rank] = 0;
    c.foreign[rank] = c.step[rank] = c.decoding[rank] = c.kv_tokens[rank] = c.kv_total[rank] = 0;
    c.requests[rank] = c.own[rank] = c.running_limit[rank] = c.limit[rank] = 0;
    free_.push_back(rank);
}

void RankTable::set_roles(RankIndex rank, std::uint8_t roles) {
    using protocol::Role;
    constexpr std::uint8_t kPrefill = Roles::bit(Role::kPrefill);
    constexpr std::uint8_t kDecode = Roles::bit(Role::kDecode);
    constexpr std::uint8_t kComputes = Roles::bit(Role::kAggregated) | kPrefill;
    std::uint8_t& now = columns_.roles[rank];
    const auto count = [&](std::size_t& ranks, std::uint8_t those) {
        if ((now & those) != 0) --ranks;
        if ((roles & those) != 0) ++ranks;
    };
    count(prefill_ranks_, kComputes);
    count(split_prefill_ranks_, kPrefill);
    count(decode_ranks_, kDecode);
    now = roles;
}

std::uint32_t RankTable::site_number(const RankDescription& d) {
    constexpr std::size_t kMostMethods = 32;
    Site site{.zone = zone_number(d.zone), .methods = 0, .host_known = !d.host.empty()};
    for (const std::string& method : d.transfer_methods) {
        auto at = std::ranges::find(methods_, method);
        if (at == methods_.end()) {
            if (methods_.size() == kMostMethods) continue;
            at = methods_.insert(at, method);
            speeds_.push_back(speed_of(method));
        }
        site.methods |= 1U << static_cast<unsigned>(at - methods_.begin());
    }
    const auto known = std::ranges::find(sites_, site);
    const auto number = static_cast<std::uint32_t>(known - sites_.begin());
    if (known == sites_.end()) sites_.push_back(site);
    return number;
}

std::uint32_t RankTable::methods_of(std::span<const std::string> names) const {
    std::uint32_t bits = 0;
    for (std::size_t m = 0; m < methods_.size(); ++m) {
        if (std::ranges::find(names, methods_[m]) != names.end()) bits |= 1U << m;
    }
    return bits;
}

bool RankTable::connected(const Site& from, const Site& to, bool same_host) {
    if (from.methods == 0 || to.methods == 0) return true;
    const bool apart = from.host_known && to.host_known && !same_host;
    const std::uint32_t shm = apart ? 1U : 0U;
    return (from.methods & to.methods & ~shm) != 0;
}

RankTable::Method RankTable::method(const Site& from, const Site& to, bool same_host) const {
    const std::uint32_t common = from.methods & to.methods;
    Method best{.number = 0, .speed = speed_of({})};
    for (std::uint32_t m = 0; m < speeds_.size(); ++m) {
        if ((common >> m & 1U) == 0 || (m == 0 && !same_host && common != 1)) continue;
        if (best.number == 0 || speeds_[m].gb_per_s > best.speed.gb_per_s) {
            best = {m + 1, speeds_[m]};
        }
    }
    return best;
}

std::uint32_t RankTable::zone_number(const std::string& zone) {
    if (zone.empty()) return 0;
    const auto found = std::ranges::find(zones_, zone);
    if (found != zones_.end()) return static_cast<std::uint32_t>(found - zones_.begin()) + 1;
    zones_.push_back(zone);
    return static_cast<std::uint32_t>(zones_.size());
}

void RankTable::enqueue(RankIndex rank, std::uint64_t booking, double prior_s, std::size_t level,
                        double now_s) {
    Rank& r = ranks_[rank];
    Columns& c = columns_;
    if (r.pending.empty()) {
        prior_s += r.description.prefill.base_s;
        c.anchor[rank] = now_s;
        c.head[rank] = prior_s;
        r.busy_since_s = now_s;
        r.work_done_s = r.description.prefill.base_s;
        r.prompts_done = 0;
    }
    r.pending.push_back({booking, prior_s, level});
    c.total[rank] += prior_s;
    c.level_work[level][rank] += narrow(prior_s);
}

std::optional<std::size_t> RankTable::find_pending(RankIndex rank, std::uint64_t booking) const {
    const auto& pending = ranks_[rank].pending;
    const auto found = std::ranges::find(pending, booking, &Pending::booking);
    if (found == pending.end()) return std::nullopt;
    return static_cast<std::size_t>(found - pending.begin());
}

void RankTable::first_token(RankIndex rank, std::uint64_t booking, double real_prior_s,
                            double now_s) {
    const auto at = find_pending(rank, booking);
    if (!at) return;
    ranks_[rank].work_done_s += real_prior_s;
    prompt_done(rank, *at, now_s);
}

void RankTable::first_token_untold(RankIndex rank, std::uint64_t booking, double now_s) {
    const auto at = find_pending(rank, booking);
    if (!at) return;
    ranks_[rank].untold.push_back(booking);
    prompt_done(rank, *at, now_s);
}

void RankTable::prompt_done(RankIndex rank, std::size_t at, double now_s) {
    Rank& r = ranks_[rank];
    ++r.prompts_done;
    take_out(rank, at, now_s);
    if (!r.pending.empty() && r.prompts_done < kPromptsPerObservation) return;
    const double took_s = now_s - std::exchange(r.busy_since_s, now_s);
    const double work_s = std::exchange(r.work_done_s, 0);
    r.prompts_done = 0;
    if (r.untold.empty()) return learn(rank, took_s, work_s);
    if (r.late.size() == kMostLate) r.late.pop_front();
    r.late.push_back({took_s, work_s, std::exchange(r.untold, {})});
}

void RankTable::told(RankIndex rank, std::uint64_t booking, double real_prior_s) {
    Rank& r = ranks_[rank];
    if (std::erase(r.untold, booking) > 0) {
        r.work_done_s += real_prior_s;
        return;
    }
    for (auto stretch = r.late.begin(); stretch != r.late.end(); ++stretch) {
        if (std::erase(stretch->untold, booking) == 0) continue;
        stretch->work_s += real_prior_s;
        if (!stretch->untold.empty()) return;
        learn(rank, stretch->took_s, stretch->work_s);
        r.late.erase(stretch);
        return;
    }
}

void RankTable::learn(RankIndex rank, double took_s, double work_s) {
    Rank& r = ranks_[rank];
    // What is mostly waiting for a step says little about how fast prompts are computed.
    const double weight = work_s / (work_s + 4 * r.description.prefill.base_s);
    r.speed.observe_prefill(took_s, work_s, weight * weight);
    learn_of_pool(took_s, work_s, weight * weight);
    refresh_speed(rank);
}

void RankTable::withdraw(RankIndex rank, std::uint64_t booking, double now_s) {
    Rank& r = ranks_[rank];
    const auto found = std::ranges::find(r.pending, booking, &Pending::booking);
    if (found == r.pending.end()) return;
    take_out(rank, static_cast<std::size_t>(found - r.pending.begin()), now_s);
    // How much of it was computed is not known.
    r.busy_since_s = now_s;
    r.untold.clear();
    r.work_done_s = 0;
    r.prompts_done = 0;
}

void RankTable::take_out(RankIndex rank, std::size_t at, double now_s) {
    Rank& r = ranks_[rank];
    Columns& c = columns_;
    const Pending out = r.pending[at];
    r.pending.erase(r.pending.begin() + static_cast<std::ptrdiff_t>(at));
    if (r.pending.empty()) {
        c.total[rank] = c.head[rank] = 0;
        for (auto& level : c.level_work) level[rank] = 0;
        return;
    }
    c.total[rank] -= out.prior_s;
    float& level = c.level_work[out.level][rank];
    level = std::max(0.0F, level - narrow(out.prior_s));
    if (at != 0) return;
    c.anchor[rank] = now_s;
    c.head[rank] = r.pending.front().prior_s;
}

void RankTable::observe_step(RankIndex rank, double seconds, double sequences, double kv_tokens) {
    ranks_[rank].speed.observe_step(seconds, sequences, kv_tokens);
    refresh_step(rank);
}

void RankTable::report(RankIndex rank, const protocol::LoadReport& load) {
    ranks_[rank].load = load;
    Columns& c = columns_;
    c.running_limit[rank] = load.running_limit;
    c.limit[rank] = load.running_limit == 0 ? 0 : load.running_limit + load.waiting_limit;
    c.kv_total[rank] = static_cast<float>(load.kv_total_tokens);
    // A few wait for the next step, whatever room there is.
    const bool short_of_it =
        load.kv_total_tokens > 0 && load.waiting > std::max(1U, load.running_limit / 8);
    // Some of it is on its way to whoever was chosen already.
    constexpr std::uint64_t kPercent = 85;
    c.handoffs_full[rank] =
        load.unclaimed_limit > 0 && load.unclaimed_bytes / kPercent >= load.unclaimed_limit / 100;
    const float used = static_cast<float>(load.kv_used_tokens);
    c.kv_room[rank] = short_of_it ? std::max(0.0F, c.kv_total[rank] - used) : kPlenty;
}

void RankTable::note_own_waiting(RankIndex rank, std::uint64_t tokens) {
    const std::uint64_t waiting = ranks_[rank].load.waiting_tokens;
    const std::uint64_t others = waiting > tokens ? waiting - tokens : 0;
    columns_.foreign[rank] =
        narrow(static_cast<double>(others) * ranks_[rank].description.prefill.per_token_s);
}

double RankTable::queue_s(RankIndex rank, std::size_t level, double now_s) const {
    const Columns& c = columns_;
    const double scale = c.scale[rank];
    double queue = scale * c.total[rank] - std::min(now_s - c.anchor[rank], scale * c.head[rank]);
    double there = 0;
    for (std::size_t l = level; l < kLevels; ++l) there += c.level_work[l][rank];
    queue = std::min(queue, scale * there);
    return std::max(queue, 0.0) + scale * c.foreign[rank];
}

/// A rank that nobody has seen at work is taken to be as fast as the others.
void RankTable::learn_of_pool(double observed_s, double prior_s, double weight) {
    constexpr double kWorthTelling = 0.02;
    pool_scale_.observe(observed_s, prior_s, weight);
    if (std::abs(pool_scale_.scale() / told_scale_ - 1) < kWorthTelling) return;
    told_scale_ = pool_scale_.scale();
    for (RankIndex rank = 0; rank < ranks_.size(); ++rank) {
        Rank& r = ranks_[rank];
        if (!r.present || r.speed.prefill_scale().observations() > 0) continue;
        r.speed.start_prefill_at(pool_scale_.scale());
        refresh_speed(rank);
    }
}

void RankTable::refresh_speed(RankIndex rank) {
    const Rank& r = ranks_[rank];
    const double scale = r.speed.prefill_scale().scale();
    const estimate::PrefillTime& prior = r.description.prefill;
    Columns& c = columns_;
    c.scale[rank] = narrow(scale);
    c.base[rank] = narrow(scale * prior.base_s);
    c.per_token[rank] = narrow(scale * prior.per_token_s);
    c.per_token_context[rank] = narrow(scale * prior.per_token_context_s);
    c.relative_std[rank] = narrow(r.speed.prefill_scale().relative_std());
}

void RankTable::refresh_step(RankIndex rank) {
    Columns& c = columns_;
    const double sequences = c.decoding[rank];
    c.step[rank] =
        sequences > 0 ? narrow(ranks_[rank].speed.step_s(sequences, c.kv_tokens[rank])) : 0;
}

}  // namespace stator::router
