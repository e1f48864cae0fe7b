#include "stator/router/router.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "stator/base/check.h"
#include "stator/router/refusal.h"

namespace stator::router {
namespace {

using protocol::Role;

constexpr unsigned kSlotBits = 24;
constexpr std::uint64_t kSlotMask = (1U << kSlotBits) - 1;
/// Over which the rate of arrivals is measured.
constexpr double kArrivalWindow_s = 60;

}  // namespace

Router::Router(PolicyOptions options, std::uint64_t seed)
    : options_(options),
      random_(static_cast<std::minstd_rand::result_type>(seed * 2'654'435'761U + 7)),
      active_(options.policy == Policy::kDynamo),
      sessions_(options.max_sessions) {
    STATOR_CHECK(validate(options).has_value(), "the router's options are valid");
}

Result<void> Router::set_options(PolicyOptions options) {
    if (auto ok = validate(options); !ok) return ok;
    if ((options.policy == Policy::kDynamo) != (options_.policy == Policy::kDynamo)) {
        // Blocks are counted one by one, or not.
        active_ = ActivePrefixes(options.policy == Policy::kDynamo);
        for (const Booking& b : bookings_) {
            if (b.id != 0) add_prefix(b);
        }
    }
    options_ = options;
    return {};
}

RankIndex Router::add_rank(RankDescription description) {
    const std::string name = description.name;
    const RankIndex rank = table_.add(std::move(description));
    by_name_.insert_or_assign(name, rank);
    if (rank >= accounts_.size()) accounts_.resize(rank + 1);
    accounts_[rank] = Account{};
    if (rank >= scorer_.prefill_tokens.size()) scorer_.prefill_tokens.resize(rank + 1);
    scorer_.prefill_tokens[rank] = 0;
    return rank;
}

void Router::remove_rank(RankIndex rank, Nanos now) {
    for (Booking& b : bookings_) {
        if (b.id == 0 || (b.rank != rank && b.decode_rank != rank)) continue;
        if (b.prefilled && b.decode_rank != kNoRank && b.decode_rank != rank) {
            // Its prompt is computed, and was handed over: it goes on without this rank.
            remove_prefix(b);
            b.blocks.clear();
            b.rank = std::exchange(b.decode_rank, kNoRank);
            continue;
        }
        on_end(BookingId(b.id), now);
    }
    const auto named = by_name_.find(table_.description(rank).name);
    if (named != by_name_.end() && named->second == rank) by_name_.erase(named);
    table_.remove(rank);
    accounts_[rank] = Account{};
    scorer_.prefill_tokens[rank] = 0;
}

void Router::describe(RankIndex rank, RankDescription description) {
    if (description.name != table_.description(rank).name) {
        const auto named = by_name_.find(table_.description(rank).name);
        if (named != by_name_.end() && named->second == rank) by_name_.erase(named);
        by_name_.insert_or_assign(description.name, rank);
    }
    table_.describe(rank, std::move(description));
}

void Router::set_adapters(RankIndex rank, std::vector<std::uint32_t> adapters) {
    table_.edit(rank).adapters = std::move(adapters);
}

void Router::set_open(RankIndex rank, bool open) {
    RankDescription d = table_.description(rank);
    d.open = open;
    table_.describe(rank, std::move(d));
}

void Router::set_distrusted(RankIndex rank, bool distrusted) {
    RankDescription d = table_.description(rank);
    d.distrusted = distrusted;
    table_.describe(rank, std::move(d));
}

Result<Decision> Router::book(const RouteRequest& request, Nanos now) {
    auto decision = decide(request, now);
    if (!decision) return decision;
    if (request.most_queue_s && decision->chosen.queue_s > *request.most_queue_s) return decision;
    decision->booking = enter(request, *decision, now);
    if (options_.policy == Policy::kRoundRobin) turn_ = decision->chosen.rank + std::uint64_t{1};
    if (request.session != 0) {
        const RankIndex rank = decision->chosen.rank;
        sessions_.put(request.session, rank, table_.columns().name_hash[rank], now);
    }
    return decision;
}

Result<Decision> Router::decide(const RouteRequest& request, Nanos now) {
    if (options_.policy == Policy::kDirect && !request.pinned) {
        return param_error("worker",
                           "the policy direct goes where the request says: name a worker in the "
                           "header x-stator-worker");
    }
    if (!splits(request)) {
        if (!request.split) return decide_one(request, now);
        RouteRequest whole = request;
        whole.split = false;
        return decide_one(whole, now);
    }
    const RouteRequest pair = pair_of(request);
    auto split = decide_one(pair, now);
    if (options_.disaggregation == Disaggregation::kAlways) {
        // Without a rank for it, or when those that there are have refused, it still is served.
        const bool last = split || (split.error().code != ErrorCode::kUnavailable &&
                                    request.excluded.empty() && !request.pinned);
        if (last) return split;
    }
    auto whole = decide_one(request, now);
    if (!split) {
        if (!whole && !request.pinned) return split;
        return whole;
    }
    if (!whole) return split;
    return is_better(*split, *whole, request) ? std::move(split) : std::move(whole);
}

RouteRequest Router::pair_of(const RouteRequest& request) {
    RouteRequest pair = request;
    pair.role = Role::kPrefill;
    pair.pair = true;
    pair.split = false;
    return pair;
}

bool Router::splits(const RouteRequest& request) const {
    return request.split && request.role == Role::kAggregated &&
           options_.disaggregation != Disaggregation::kNever && table_.can_split();
}

/// By what the policy charges for the two, where that is seconds; else by their first tokens.
bool Router::is_better(const Decision& split, const Decision& whole,
                       const RouteRequest& request) const {
    if (request.session_hard && split.by_session != whole.by_session) return split.by_session;
    if (options_.policy != Policy::kExpectedTtft) {
        return split.chosen.ttft_s() < whole.chosen.ttft_s();
    }
    const double kept = (split.by_session ? options_.session_slack_s : 0) -
                        (whole.by_session ? options_.session_slack_s : 0);
    return split.chosen.cost - kept < whole.chosen.cost;
}

/// One way: as the request's role says.
Result<Decision> Router::decide_one(const RouteRequest& request, Nanos now) {
    scorer_.prepare(table_, active_, request);
    if (request.role == Role::kDecode) {
        freed_.clear();
        for (RankIndex d = 0; d < table_.size(); ++d) {
            if (scorer_.exclusion(d) == Exclusion::kNone && !has_room(d, request, seconds(now))) {
                scorer_.exclude(d, Exclusion::kFull);
            }
        }
    }
    scorer_.score(table_, active_, options_, request, seconds(now), turn_, random_);
    if (request.pair) {
        if (auto ok = add_decode_costs(request, now); !ok) {
            return tl::unexpected(std::move(ok.error()));
        }
    } else if (splits(request)) {
        add_own_decode_costs(request, now);
    }
    Decision decision;
    const RankIndex rank = pick(request, seconds(now), now, decision);
    if (rank == kNoRank) return tl::unexpected(no_candidate(request));
    decision.chosen = scorer_.candidate(table_, options_, request, rank, seconds(now));
    list_fallbacks(decision);
    decision.ttft_std_s = scorer_.std_s(table_, decision.chosen);
    if (request.pair) {
        const Decoder decoder = decoder_for(rank);
        decision.chosen.decode_rank = decoder.rank;
        decision.chosen.handoff_s = decoder.handoff_s;
    }
    const double ttft = decision.chosen.ttft_s();
    if (request.deadline) {
        const double left = seconds(*request.deadline - now);
        if (ttft - 2 * decision.ttft_std_s > left) {
            return tl::unexpected(refusal(
                ErrorCode::kDeadlineExceeded,
                fmt::format("the first token is predicted in {:.3f} s at best, after the deadline "
                            "in {:.3f} s",
                            ttft, left)));
        }
    }
    return decision;
}

Error Router::no_candidate(const RouteRequest& request) const {
    bool there = false;
    bool full = false;
    bool constrained = false;
    bool no_way = false;
    for (RankIndex r = 0; r < table_.size(); ++r) {
        switch (scorer_.exclusion(r)) {
            case Exclusion::kOtherRole:
                break;
            case Exclusion::kFull:
                full = there = true;
                break;
            case Exclusion::kLabel:
            case Exclusion::kTaint:
                constrained = there = true;
                break;
            case Exclusion::kNoWay:
                no_way = there = true;
                break;
            case Exclusion::kNone:
            case Exclusion::kTried:
            case Exclusion::kNotPinned:
                there = true;
        }
    }
    if (request.pinned && (!table_.present(*request.pinned) ||
                           scorer_.exclusion(*request.pinned) == Exclusion::kOtherRole)) {
        return refusal(ErrorCode::kNotFound, "the worker that the request names is not there");
    }
    if (!there) return refusal(ErrorCode::kUnavailable, "no worker is ready");
    if (constrained && !full) {
        return refusal(ErrorCode::kUnavailable,
                       "no worker has the labels that the request asks for, without taints that it "
                       "does not tolerate");
    }
    if (no_way && !full) {
        return refusal(ErrorCode::kUnavailable,
                       "no worker can take the request's media over from where they were encoded: "
                       "the workers have no transfer method in common");
    }
    return refusal(ErrorCode::kOverloaded, "every worker is full");
}

RankIndex Router::pick(const RouteRequest& request, double now_s, Nanos now, Decision& decision) {
    const std::vector<double>& costs = scorer_.costs();
    double least = Scorer::kNever;
    RankIndex best = kNoRank;
    for (std::size_t r = 0; r < costs.size(); ++r) {
        if (costs[r] < least) {
            least = costs[r];
            best = static_cast<RankIndex>(r);
        }
    }
    if (best == kNoRank) return kNoRank;
    if (request.session != 0) {
        const RankIndex kept = of_session(request, best, now);
        if (kept != kNoRank) {
            decision.by_session = true;
            return kept;
        }
    }
    if (options_.policy == Policy::kPowerOfTwo) return power_of_two();
    if (options_.policy == Policy::kDynamo && options_.temperature > 0) return softmax(least);
    double band = 0;
    if (options_.policy == Policy::kExpectedTtft) {
        const Candidate c = scorer_.candidate(table_, options_, request, best, now_s);
        band = options_.error_band * scorer_.std_s(table_, c);
    }
    // The k-th of equals takes the place with probability 1/k: each of them is as likely.
    std::uint32_t equals = 0;
    for (std::size_t r = 0; r < costs.size(); ++r) {
        if (costs[r] > least + band) continue;
        if (random_() % ++equals == 0) best = static_cast<RankIndex>(r);
    }
    return best;
}

RankIndex Router::of_session(const RouteRequest& request, RankIndex best, Nanos now) {
    const Nanos ttl(std::llround(options_.session_ttl_s * 1e9));
    const auto place = sessions_.find(request.session, now, ttl);
    if (!place || !table_.present(place->rank) ||
        table_.columns().name_hash[place->rank] != place->name_hash ||
        scorer_.exclusion(place->rank) != Exclusion::kNone) {
        return kNoRank;
    }
    if (request.session_hard) return place->rank;
    if (options_.policy != Policy::kExpectedTtft) return kNoRank;
    const std::vector<double>& costs = scorer_.costs();
    return costs[place->rank] <= costs[best] + options_.session_slack_s ? place->rank : kNoRank;
}

RankIndex Router::power_of_two() {
    const std::vector<double>& costs = scorer_.costs();
    RankIndex drawn[2] = {kNoRank, kNoRank};
    std::uint32_t seen = 0;
    for (std::size_t r = 0; r < costs.size(); ++r) {
        if (costs[r] >= Scorer::kNever) continue;
        // A sample of two, each pair as likely.
        if (seen < 2) {
            drawn[seen] = static_cast<RankIndex>(r);
        } else if (const auto at = random_() % (seen + 1); at < 2) {
            drawn[at] = static_cast<RankIndex>(r);
        }
        ++seen;
    }
    if (drawn[1] == kNoRank) return drawn[0];
    if (costs[drawn[0]] == costs[drawn[1]]) return drawn[random_() % 2];
    return costs[drawn[0]] < costs[drawn[1]] ? drawn[0] : drawn[1];
}

/// With a temperature, the reference draws by softmax over costs normalised to their range.
RankIndex Router::softmax(double least) {
    const std::vector<double>& costs = scorer_.costs();
    double most = least;
    for (const double c : costs) {
        if (c < Scorer::kNever) most = std::max(most, c);
    }
    const double range = most > least ? most - least : 1;
    double sum = 0;
    RankIndex chosen = kNoRank;
    for (std::size_t r = 0; r < costs.size(); ++r) {
        if (costs[r] >= Scorer::kNever) continue;
        const double weight = std::exp(-(costs[r] - least) / range / options_.temperature);
        sum += weight;
        const double u = static_cast<double>(random_()) / std::minstd_rand::max();
        if (u * sum <= weight) chosen = static_cast<RankIndex>(r);
    }
    return chosen;
}

void Router::list_fallbacks(Decision& decision) const {
    const std::vector<double>& costs = scorer_.costs();
    struct Entry {
        double cost;
        RankIndex rank;
    };
    std::vector<Entry> few;  // ascending
    const std::size_t most = options_.fallbacks;
    if (most == 0) return;
    few.reserve(most + 1);
    for (std::size_t r = 0; r < costs.size(); ++r) {
        const double bound = few.size() < most ? Scorer::kNever : few.back().cost;
        if (costs[r] >= bound || r == decision.chosen.rank) continue;
        const auto at = std::ranges::upper_bound(few, costs[r], {}, &Entry::cost);
        few.insert(at, {costs[r], static_cast<RankIndex>(r)});
        if (few.size() > most) few.pop_back();
    }
    for (const Entry& e : few) decision.fallbacks.push_back(e.rank);
}

Router::Booking& Router::take_slot() {
    if (free_.empty()) {
        STATOR_CHECK(bookings_.size() < kSlotMask, "bookings have a number");
        free_.push_back(static_cast<std::uint32_t>(bookings_.size()));
        bookings_.emplace_back();
    }
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    Booking& b = bookings_[slot];
    b = {.id = (++serial_ << kSlotBits) | slot, .blocks = std::move(b.blocks)};
    return b;
}

void Router::add_prefix(const Booking& b) {
    if (b.peers) {
        active_.add_places(b.rank, b.blocks);
    } else {
        active_.add(b.rank, b.blocks);
    }
}

void Router::remove_prefix(const Booking& b) {
    if (b.peers) {
        active_.remove_places(b.rank, b.blocks);
    } else {
        active_.remove(b.rank, b.blocks);
    }
}

void Router::queue_work(const Booking& b, double prior_s, double now_s) {
    table_.enqueue(b.rank, b.id, prior_s, b.level, now_s);
    accounts_[b.rank].waiting_tokens += b.prompt_tokens;
    scorer_.prefill_tokens[b.rank] += static_cast<float>(b.uncached_tokens);
}

BookingId Router::enter(const RouteRequest& request, const Decision& decision, Nanos now) {
    const Candidate& c = decision.chosen;
    Booking& b = take_slot();
    b.rank = c.rank;
    b.decode_rank = c.decode_rank;
    b.level = RankTable::level_of(request.priority);
    b.prompt_tokens = request.prompt_tokens;
    b.uncached_tokens = request.prompt_tokens - std::min(c.cached_tokens, request.prompt_tokens);
    b.kv_tokens = request.prompt_tokens + request.expected_output_tokens;
    const RankIndex decoder = c.decode_rank != kNoRank ? c.decode_rank : c.rank;
    b.handoff_tokens = request.prompt_tokens - scorer_.cached_tokens(decoder);
    const double step = table_.speed(decoder).step_s(table_.columns().decoding[decoder] + 1,
                                                     table_.columns().kv_tokens[decoder]);
    b.end_s = seconds(now) + c.ttft_s() + step * request.expected_output_tokens;
    b.blocks.assign(request.blocks.begin(), request.blocks.end());
    if (request.adapter != 0) use_adapter(b.rank, request.adapter);
    add_prefix(b);
    ++live_;
    const bool prefills = request.role != Role::kDecode && request.role != Role::kEncode;
    if (prefills) {
        count_arrival(now);
        // What is copied, encoded or loaded holds up those behind it too.
        const double scale = table_.columns().scale[c.rank];
        const double extra = c.encode_s + c.adapter_s;
        const estimate::PrefillTime& time = table_.speed(c.rank).prefill_prior();
        const double prior = time.token_seconds(b.uncached_tokens, c.cached_tokens) + extra / scale;
        queue_work(b, prior, seconds(now));
    } else {
        b.prefilled = true;
        b.encodes = request.role == Role::kEncode;
        if (!b.encodes) ++accounts_[b.rank].own_decoding;
    }
    open(b.rank, b.id, b.decode_rank == kNoRank ? b.kv_tokens : b.prompt_tokens);
    if (b.decode_rank != kNoRank) open(b.decode_rank, b.id, b.kv_tokens);
    if (sink_ != nullptr) share(b, request, c, prefills ? c.encode_s + c.adapter_s : 0, now);
    return BookingId(b.id);
}

void Router::share(const Booking& b, const RouteRequest& request, const Candidate& c,
                   double extra_s, Nanos now) {
    auto shared = std::make_shared<SharedBooking>();
    shared->number = b.id;
    shared->rank = table_.description(b.rank).name;
    if (b.decode_rank != kNoRank) shared->decode_rank = table_.description(b.decode_rank).name;
    shared->prompt_tokens = b.prompt_tokens;
    shared->cached_tokens = std::min(c.cached_tokens, b.prompt_tokens);
    shared->kv_tokens = b.kv_tokens;
    shared->level = static_cast<std::uint8_t>(b.level);
    shared->prefills = !b.prefilled;
    shared->extra_s = static_cast<float>(extra_s);
    shared->lasts_s = static_cast<float>(b.end_s - seconds(now));
    shared->session = request.session;
    shared->places = active_.places(b.blocks, SharedBooking::kMostPlaces);
    sink_->booked(std::move(shared), now);
}

RankIndex Router::rank_named(std::string_view name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? kNoRank : found->second;
}

BookingId Router::add_peers(const SharedBooking& booking, bool prefilled, Nanos at) {
    RankIndex rank = rank_named(booking.rank);
    RankIndex decode_rank = booking.decode_rank.empty() ? kNoRank : rank_named(booking.decode_rank);
    if (!booking.decode_rank.empty() && decode_rank == rank) return {};
    if (!booking.decode_rank.empty() && (rank == kNoRank || decode_rank == kNoRank)) {
        // Of a pair of which one half is not there, the other counts while it has work.
        if (prefilled == (decode_rank == kNoRank)) return {};
        if (prefilled) rank = decode_rank;
        decode_rank = kNoRank;
    }
    if (rank == kNoRank) return {};
    Booking& b = take_slot();
    b.peers = true;
    b.rank = rank;
    b.decode_rank = decode_rank;
    b.level = std::min<std::size_t>(booking.level, RankTable::kLevels - 1);
    b.prompt_tokens = booking.prompt_tokens;
    const std::uint32_t cached = std::min(booking.cached_tokens, b.prompt_tokens);
    b.uncached_tokens = b.prompt_tokens - cached;
    b.kv_tokens = booking.kv_tokens;
    b.end_s = seconds(at) + static_cast<double>(booking.lasts_s);
    b.prefilled = prefilled || !booking.prefills;
    b.blocks.assign(booking.places.begin(), booking.places.end());
    add_prefix(b);
    ++peers_;
    if (booking.prefills) count_arrival(at);
    if (booking.session != 0) {
        sessions_.put(booking.session, rank, table_.columns().name_hash[rank], at);
    }
    const RankIndex decoder = decode_rank != kNoRank ? decode_rank : rank;
    if (b.prefilled) {
        ++accounts_[decoder].own_decoding;
    } else {
        const double scale = table_.columns().scale[rank];
        const double prior =
            table_.speed(rank).prefill_prior().token_seconds(b.uncached_tokens, cached) +
            static_cast<double>(booking.extra_s) / scale;
        queue_work(b, prior, std::max(seconds(at), table_.latest_s(rank)));
        if (decode_rank != kNoRank) open_peers(rank, b.prompt_tokens);
    }
    open_peers(decoder, b.kv_tokens);
    return BookingId(b.id);
}

/// Where a report has counted more than was known of, this one explains it.
void Router::open_peers(RankIndex rank, std::uint32_t kv_tokens) {
    Account& a = accounts_[rank];
    a.own_kv += static_cast<float>(kv_tokens);
    ++table_.counts().own[rank];
    if (a.foreign_requests > 0) {
        --a.foreign_requests;
        a.foreign_decoding = std::min(a.foreign_decoding, a.foreign_requests);
        a.foreign_kv = a.foreign_requests == 0
                           ? 0
                           : std::max(0.0F, a.foreign_kv - static_cast<float>(kv_tokens));
    }
    refresh(rank);
}

void Router::on_peers_first_token(BookingId id, std::uint32_t cached_tokens, bool learn, Nanos at) {
    Booking* const b = find(id);
    if (b == nullptr || b->prefilled || !b->peers) return;
    finish_prefill(*b, cached_tokens, learn, std::max(seconds(at), table_.latest_s(b->rank)));
}

void Router::count_arrival(Nanos now) {
    now = std::max(now, recent_at_);
    recent_ = recent_ * std::exp(-seconds(now - recent_at_) / kArrivalWindow_s) + 1;
    recent_at_ = now;
    scorer_.arrivals_per_rank_s =
        recent_ / kArrivalWindow_s /
        static_cast<double>(std::max<std::size_t>(1, table_.prefill_ranks()));
}

/// It will be loaded there; where there is no room, the least recently used one goes.
void Router::use_adapter(RankIndex rank, std::uint32_t adapter) {
    RankDescription& d = table_.edit(rank);
    std::erase(d.adapters, adapter);
    d.adapters.push_back(adapter);
    if (d.adapters.size() > std::max(1U, d.max_adapters)) d.adapters.erase(d.adapters.begin());
}

void Router::open(RankIndex rank, std::uint64_t id, std::uint32_t kv_tokens) {
    Account& a = accounts_[rank];
    a.unseen.push_back(id);
    a.own_kv += static_cast<float>(kv_tokens);
    ++table_.counts().own[rank];
    refresh(rank);
}

void Router::close(RankIndex rank, std::uint64_t id, std::uint32_t kv_tokens) {
    Account& a = accounts_[rank];
    if (id > a.last_seen) std::erase(a.unseen, id);
    a.own_kv = std::max(0.0F, a.own_kv - static_cast<float>(kv_tokens));
    std::uint32_t& own = table_.counts().own[rank];
    if (own > 0) --own;
    if (own == 0) a.own_kv = 0;
    refresh(rank);
}

void Router::refresh(RankIndex rank) {
    const Account& a = accounts_[rank];
    RankTable::Columns& c = table_.counts();
    c.requests[rank] = c.own[rank] + a.foreign_requests;
    c.decoding[rank] = static_cast<float>(a.own_decoding + a.foreign_decoding);
    c.kv_tokens[rank] = a.own_kv + a.foreign_kv;
    table_.note_own_waiting(rank, a.waiting_tokens);
    table_.refresh_step(rank);
}

Router::Booking* Router::find(BookingId id) {
    const std::uint64_t slot = id.value & kSlotMask;
    if (slot >= bookings_.size() || bookings_[slot].id != id.value || id.value == 0) return nullptr;
    return &bookings_[slot];
}

void Router::on_report(RankIndex rank, const protocol::LoadReport& load, BookingId seen) {
    if (!table_.present(rank)) return;
    Account& a = accounts_[rank];
    a.last_seen = std::max(a.last_seen, seen.value);
    const auto first_unseen = std::ranges::upper_bound(a.unseen, a.last_seen);
    a.unseen.erase(a.unseen.begin(), first_unseen);
    table_.report(rank, load);
    const std::uint32_t own = table_.columns().own[rank];
    const std::uint32_t counted = own - static_cast<std::uint32_t>(a.unseen.size());
    const std::uint32_t there = load.running + load.waiting;
    a.foreign_requests = there > counted ? there - counted : 0;
    a.foreign_decoding = std::min(a.foreign_requests, load.running);
    const float used = static_cast<float>(load.kv_used_tokens);
    a.foreign_kv = a.foreign_requests == 0 ? 0 : std::max(0.0F, used - a.own_kv);
    refresh(rank);
}

void Router::on_step(RankIndex rank, double seconds, double sequences, double kv_tokens) {
    if (table_.present(rank)) table_.observe_step(rank, seconds, sequences, kv_tokens);
}

void Router::on_cached_told(BookingId id, std::uint32_t cached_tokens) {
    const Booking* const b = find(id);
    if (b == nullptr || !b->prefilled || b->peers) return;
    table_.told(b->rank, b->id, prefill_prior_s(*b, cached_tokens));
}

double Router::prefill_prior_s(const Booking& b, std::uint32_t cached_tokens) const {
    const std::uint32_t cached = std::min(cached_tokens, b.prompt_tokens);
    return table_.speed(b.rank).prefill_prior().token_seconds(b.prompt_tokens - cached, cached);
}

void Router::on_first_token(BookingId id, std::optional<std::uint32_t> cached_tokens, Nanos now) {
    Booking* const b = find(id);
    if (b == nullptr || b->prefilled || b->peers) return;
    finish_prefill(*b, cached_tokens, true, seconds(now));
    // Behind others' prompts it waits for more than its KV.
    const bool alone = b->decode_rank != kNoRank && table_.columns().total[b->decode_rank] <= 0;
    if (alone) b->prefill_end_s = seconds(now);
    const std::uint32_t predicted =
        b->prompt_tokens - std::min(b->uncached_tokens, b->prompt_tokens);
    if (sink_ != nullptr) sink_->first_token(id.value, cached_tokens.value_or(predicted), now);
}

void Router::finish_prefill(Booking& b, std::optional<std::uint32_t> cached_tokens, bool learn,
                            double now_s) {
    b.prefilled = true;
    if (learn && cached_tokens) {
        table_.first_token(b.rank, b.id, prefill_prior_s(b, *cached_tokens), now_s);
    } else if (learn) {
        table_.first_token_untold(b.rank, b.id, now_s);
    } else {
        table_.withdraw(b.rank, b.id, now_s);
    }
    accounts_[b.rank].waiting_tokens -= b.prompt_tokens;
    scorer_.prefill_tokens[b.rank] -= static_cast<float>(b.uncached_tokens);
    if (b.decode_rank != kNoRank) {
        ++accounts_[b.decode_rank].own_decoding;
        close(b.rank, b.id, b.prompt_tokens);
        refresh(b.decode_rank);
    } else {
        ++accounts_[b.rank].own_decoding;
        refresh(b.rank);
    }
}

void Router::on_handed_over(BookingId id, Nanos now) {
    Booking* const b = find(id);
    if (b == nullptr || b->peers || b->decode_rank == kNoRank || b->prefill_end_s <= 0) return;
    const double took = seconds(now) - std::exchange(b->prefill_end_s, 0);
    const RankTable::Columns& c = table_.columns();
    if (c.total[b->decode_rank] > 0) return;
    // Half a step until it was taken up, and the one that made the token.
    const double steps = 1.5 * static_cast<double>(c.step[b->decode_rank]);
    const bool same_host = c.host[b->rank] != 0 && c.host[b->rank] == c.host[b->decode_rank];
    const Handoff h =
        handoff(table_.sites()[c.site[b->rank]], b->decode_rank, same_host, b->handoff_tokens);
    handoffs_.observe(h.way, h.prior, std::max(took - steps, h.prior.total_s() / 100),
                      table_.description(b->decode_rank).prior_std, seconds(now));
}

void Router::on_end(BookingId id, Nanos now) {
    Booking* const b = find(id);
    if (b == nullptr) return;
    remove_prefix(*b);
    const RankIndex decoder = b->decode_rank != kNoRank ? b->decode_rank : b->rank;
    if (b->encodes) {
        // Nobody waits for its tokens.
    } else if (b->prefilled) {
        --accounts_[decoder].own_decoding;
    } else {
        table_.withdraw(b->rank, b->id, std::max(seconds(now), table_.latest_s(b->rank)));
        accounts_[b->rank].waiting_tokens -= b->prompt_tokens;
        scorer_.prefill_tokens[b->rank] -= static_cast<float>(b->uncached_tokens);
        if (b->decode_rank != kNoRank) close(b->rank, b->id, b->prompt_tokens);
    }
    close(decoder, b->id, b->kv_tokens);
    free_.push_back(static_cast<std::uint32_t>(b->id & kSlotMask));
    if (sink_ != nullptr && !b->peers) sink_->ended(b->id, now);
    --(b->peers ? peers_ : live_);
    b->id = 0;
    b->blocks.clear();
}

}  // namespace stator::router
