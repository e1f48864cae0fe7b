#include "stator/routing/pool_router.h"

#include <algorithm>
#include <utility>

#include "stator/base/log.h"
#include "stator/router/explanation.h"
#include "stator/routing/tenant.h"
#include "stator/tokens/hash.h"

namespace stator::routing {
namespace {

using protocol::Leg;
using protocol::Role;

/// Loads older than this are read again before a decision.
constexpr std::chrono::milliseconds kLoadsKeep{2};
/// Of a small fleet they are always read: it costs less than a microsecond.
constexpr std::size_t kSmallFleet = 64;
/// Workers don't say how fast they are: the priors may be ten times off.
constexpr double kGuess = 1.5;
/// Of handoffs to workers that don't say how many bytes a token's KV has; others by their bytes and
/// the method (router::speed_of). How long they really take is learned.
constexpr double kHandoffLatency_s = 0.002;
constexpr double kHandoffPerToken_s = 1e-5;
/// Of a media item, before one was encoded.
constexpr double kUsualEncode_s = 0.2;

/// In a header, which clients bound.
constexpr std::size_t kExplainedRanks = 8;

/// Among equals the choice may have been another one than that explained.
void note_choice(router::Explanation& explanation, const router::Candidate& chosen) {
    const auto at = std::ranges::find_if(explanation.ranks, [&](const auto& entry) {
        return entry.candidate.rank == chosen.rank &&
               entry.candidate.decode_rank == chosen.decode_rank && entry.excluded.empty();
    });
    if (at != explanation.ranks.end()) explanation.chosen = *at;
}

/// As a label that a rank bears.
std::string label_of(std::string_view adapter) { return fmt::format("lora={}", adapter); }

/// Labels and adapters.
std::vector<router::Label> labels_of(const protocol::WorkerInfo& info) {
    std::vector<router::Label> out;
    for (const auto& [key, value] : info.labels) {
        if (key != "taint" && key != "avoid" && key != "lora") out.push_back(key + "=" + value);
    }
    for (const std::string& adapter : info.card.adapters) out.push_back(label_of(adapter));
    return out;
}

/// Sequence hashes of the whole blocks of a prompt.
void hash_prompt(std::span<const tokens::TokenId> prompt, std::size_t block_tokens,
                 std::uint64_t salt, std::string_view adapter,
                 std::vector<tokens::SequenceHash>& out) {
    static const tokens::BlockHasher unsalted;
    thread_local std::vector<tokens::BlockHash> blocks;
    const std::size_t n = prompt.size() / block_tokens;
    blocks.resize(n);
    out.resize(n);
    const auto whole = prompt.first(n * block_tokens);
    if (salt == 0 && adapter.empty()) {
        unsalted.chain(whole, block_tokens, nullptr, blocks.data(), out.data());
    } else {
        const tokens::BlockHasher salted(
            tokens::hash_seed(adapter, salt == 0 ? std::string() : std::to_string(salt)));
        salted.chain(whole, block_tokens, nullptr, blocks.data(), out.data());
    }
}

}  // namespace

PoolRouter::PoolRouter(PoolRouterOptions options, protocol::ModelCard card,
                       std::shared_ptr<KvFeed> feed, metrics::Registry& registry,
                       const Clock& clock)
    : options_(std::move(options)),
      card_(std::move(card)),
      feed_(std::move(feed)),
      clock_(clock),
      metrics_(registry, card_),
      router_(options_.policy, options_.seed) {
    if (card_.block_tokens > 0) index_ = std::make_shared<PoolIndex>(options_.index);
}

PoolRouter::~PoolRouter() = default;

router::RankDescription PoolRouter::describe(const PoolRank& rank) {
    const auto info = rank.worker->info();
    router::RankDescription d;
    d.name = fmt::format("{}/{}", info->name, rank.rank);
    d.prior_std = kGuess;
    d.handoff_bytes_per_token = static_cast<double>(info->card.kv_bytes_per_token);
    d.handoff_latency_s = kHandoffLatency_s;
    d.handoff_s_per_token = kHandoffPerToken_s;
    d.transfer_methods = info->transfer_methods;
    if (d.transfer_methods.empty()) d.transfer_methods = {"none"};
    std::string rack;
    for (const auto& [key, value] : info->labels) {
        if (key == "zone") d.zone = value;
        if (key == "rack") rack = value;
        if (key == "host") d.host = value;
        if (key == "taint") d.taints.push_back(value);
        if (key == "avoid") d.avoid.push_back(value);
    }
    d.labels = labels_of(*info);
    if (!rack.empty()) d.zone += "/" + rack;
    return d;
}

/// Under the lock. What of a worker's roles it can have here.
router::Roles PoolRouter::roles_of(const PoolRank& rank, std::string& concern) const {
    const auto info = rank.worker->info();
    router::Roles roles;
    for (const Role role : info->roles) roles.add(role);
    if (info->roles.empty()) roles.add(Role::kAggregated);
    if (info->decode_only) roles.takes_no_whole();
    concern.clear();
    if (roles.has(Role::kPrefill) && info->transfer_methods.empty()) {
        roles.remove(Role::kPrefill);
        concern = "it computes no prompts for others: it has no way to hand them over";
    }
    if (roles.has(Role::kEncode) && info->card.media_digest != media_digest_) {
        roles.remove(Role::kEncode);
        concern = fmt::format("it encodes no media: its encoder is {}, that of the pool is {}",
                              info->card.media_digest, media_digest_);
    }
    return roles;
}

/// Under the lock. The first encode rank that came says which encoder the pool has.
void PoolRouter::settle_roles(std::span<const PoolRank> ranks) {
    const auto encodes_with = [](const PoolRank& rank, const std::string& digest) {
        const auto info = rank.worker->info();
        return std::ranges::find(info->roles, Role::kEncode) != info->roles.end() &&
               (digest.empty() || info->card.media_digest == digest);
    };
    const bool still = !media_digest_.empty() && std::ranges::any_of(ranks, [&](const auto& rank) {
        return encodes_with(rank, media_digest_);
    });
    if (!still) {
        const auto first =
            std::ranges::find_if(ranks, [&](const auto& rank) { return encodes_with(rank, {}); });
        media_digest_ = first == ranks.end() ? "" : first->worker->info()->card.media_digest;
    }
    for (std::size_t i = 0; i < members_.size(); ++i) {
        Member& m = members_[i];
        if (!m.rank.worker || !m.stays) continue;
        const auto rank = static_cast<router::RankIndex>(i);
        const router::Roles roles = roles_of(m.rank, m.concern);
        auto labels = labels_of(*m.rank.worker->info());
        const router::RankDescription& known = router_.ranks().description(rank);
        if (known.roles == roles && known.labels == labels) continue;
        router::RankDescription d = known;
        d.roles = roles;
        d.labels = std::move(labels);
        router_.describe(rank, std::move(d));
    }
}

router::RankIndex PoolRouter::add(const PoolRank& rank) {
    const router::RankIndex index = router_.add_rank(describe(rank));
    if (index >= members_.size()) members_.resize(index + 1);
    members_[index] = Member{};
    members_[index].rank = rank;
    members_[index].stays = true;
    audit_.reset(index);
    if (index_) members_[index].slot = index_->add_rank(index);
    router_.on_report(index, rank.worker->load(rank.rank), router::BookingId(last_booking_));
    return index;
}

std::vector<router::RankIndex> PoolRouter::set_ranks(std::span<const PoolRank> ranks) {
    const std::scoped_lock following(following_mutex_);
    std::vector<router::RankIndex> out;
    std::vector<std::shared_ptr<fleet::Worker>> gone;
    {
        const std::scoped_lock lock(mutex_);
        for (Member& m : members_) m.stays = false;
        for (const PoolRank& rank : ranks) {
            const auto known = std::ranges::find_if(members_, [&](const Member& m) {
                return m.rank.worker == rank.worker && m.rank.rank == rank.rank;
            });
            if (known != members_.end()) {
                known->stays = true;
                out.push_back(static_cast<router::RankIndex>(known - members_.begin()));
            } else {
                out.push_back(add(rank));
            }
        }
        for (std::size_t i = 0; i < members_.size(); ++i) {
            Member& m = members_[i];
            if (!m.rank.worker || m.stays) continue;
            router_.remove_rank(static_cast<router::RankIndex>(i), now());
            embeddings_.forget(static_cast<router::RankIndex>(i));
            splits_.forget(static_cast<router::RankIndex>(i));
            gone.push_back(m.rank.worker);
        }
        settle_roles(ranks);
    }
    // The subscriptions first, then the slots: nothing is written to a slot that another has.
    std::erase_if(following_,
                  [&](const auto& f) { return std::ranges::find(gone, f.first) != gone.end(); });
    {
        const std::scoped_lock lock(mutex_);
        for (Member& m : members_) {
            if (!m.rank.worker || m.stays) continue;
            if (m.slot) index_->remove_rank(*m.slot);
            m = {};
        }
        show_trust();
    }
    {
        const std::scoped_lock lock(mutex_);
        peers_.ranks_changed();
    }
    follow_events();
    return out;
}

/// Of workers that are new here; under the lock of what is followed.
void PoolRouter::follow_events() {
    if (!feed_ || !index_) return;
    struct New {
        std::shared_ptr<fleet::Worker> worker;
        std::vector<std::optional<index::RankSlot>> slots;
    };
    std::vector<New> fresh;
    {
        const std::scoped_lock lock(mutex_);
        for (const Member& m : members_) {
            if (!m.rank.worker || m.writer || !m.rank.worker->info()->events) continue;
            auto at = std::ranges::find(fresh, m.rank.worker, &New::worker);
            if (at == fresh.end()) {
                at = fresh.insert(at, {m.rank.worker, {}});
                at->slots.resize(m.rank.worker->info()->ranks.size());
            }
            if (m.rank.rank < at->slots.size()) at->slots[m.rank.rank] = m.slot;
        }
    }
    for (New& n : fresh) {
        auto writer = std::make_shared<IndexWriter>(index_, n.slots);
        auto made = feed_->follow(n.worker, writer);
        if (!made) {
            log_warn("A worker's KV events can't be followed; it gets requests by its load.",
                     {{"worker", n.worker->info()->name}, {"reason", made.error().message}});
            continue;
        }
        following_.emplace_back(n.worker, Following{std::move(*made), writer, n.slots});
        const std::scoped_lock lock(mutex_);
        for (Member& m : members_) {
            if (m.rank.worker == n.worker) m.writer = writer;
        }
    }
}

/// Under the lock. What a worker's load does not know yet of our bookings is in `pending`.
void PoolRouter::refresh_loads(TimePoint now) {
    if (members_.size() > kSmallFleet && now - loads_at_ < kLoadsKeep) return;
    loads_at_ = now;
    for (std::size_t i = 0; i < members_.size(); ++i) {
        const Member& m = members_[i];
        if (!m.rank.worker) continue;
        protocol::LoadReport load = m.rank.worker->load(m.rank.rank);
        load.waiting += m.rank.pending->load(std::memory_order_relaxed);
        router_.on_report(static_cast<router::RankIndex>(i), load,
                          router::BookingId(last_booking_));
    }
}

/// Who holds the request's prefix. Replaces what is in both. True: at most so much of it.
bool PoolRouter::look_up(const protocol::GenerateRequest& request,
                         std::vector<tokens::SequenceHash>& blocks,
                         std::vector<router::Overlap>& overlaps) const {
    blocks.clear();
    overlaps.clear();
    if (!index_) return false;
    hash_prompt(request.prompt, card_.block_tokens, request.cache_salt, request.adapter, blocks);
    return index_->lookup(blocks, overlaps);
}

router::RouteRequest PoolRouter::route_request(const protocol::GenerateRequest& request,
                                               const std::vector<tokens::SequenceHash>& blocks,
                                               const std::vector<router::Overlap>& overlaps) const {
    constexpr std::uint32_t kUsualOutput = 256;
    router::RouteRequest r;
    r.prompt_tokens = static_cast<std::uint32_t>(request.prompt.size());
    r.block_tokens = std::max(card_.block_tokens, 1U);
    r.expected_output_tokens = std::min(request.max_tokens, kUsualOutput);
    r.blocks = std::span(reinterpret_cast<const std::uint64_t*>(blocks.data()), blocks.size());
    r.overlaps = overlaps;
    r.priority = request.priority;
    const auto* hints = request.hints.get();
    if (!request.adapter.empty()) {
        // Until the next one of this thread.
        thread_local std::vector<router::Label> required;
        required.clear();
        if (hints != nullptr) required = hints->required_labels;
        required.push_back(label_of(request.adapter));
        r.required = required;
    }
    if (hints == nullptr) return r;
    if (hints->expected_output_tokens > 0) {
        r.expected_output_tokens = std::min(hints->expected_output_tokens, request.max_tokens);
    }
    // The same in every frontend, for consistent-hash.
    if (!hints->session.empty()) r.session = tokens::hash_seed({}, hints->session) | 1U;
    r.session_hard = hints->session_hard;
    if (request.adapter.empty()) r.required = hints->required_labels;
    r.preferred = hints->preferred_labels;
    r.tolerated = hints->tolerated_taints;
    return r;
}

Result<Route> PoolRouter::choose(const protocol::GenerateRequest& request,
                                 std::span<const router::RankIndex> excluded,
                                 const std::optional<Hold>& hold, bool may_split,
                                 std::span<const std::string> media_methods) {
    thread_local std::vector<tokens::SequenceHash> blocks;
    thread_local std::vector<router::Overlap> overlaps;
    const TimePoint begin = clock_.now();
    const bool upper_bound = look_up(request, blocks, overlaps);
    if (index_ && index_->tidy(begin)) show_index();
    router::RouteRequest r = route_request(request, blocks, overlaps);
    r.excluded = excluded;
    r.split = may_split;
    r.media_methods = media_methods;
    if (hold) {
        r.most_queue_s = hold->queue_s;
        r.most_waiting_share = hold->waiting_share;
        if (!request.deadline.is_never()) r.deadline = now() + request.deadline.left(begin);
    }

    std::array<std::optional<index::RankSlot>, 2> predicted;
    Route route;
    {
        const std::scoped_lock lock(mutex_);
        refresh_loads(begin);
        std::optional<router::Explanation> explanation;
        if (request.hints) {
            if (auto ok = pin(*request.hints, r); !ok) return tl::unexpected(ok.error());
            // Once: later choices may be made on other threads than its reader's.
            if (request.hints->explain) {
                request.hints->explain = false;
                explanation = router_.explain(r, now());
                explanation->upper_bound = upper_bound;
            }
        }
        auto decision = router_.book(r, now());
        if (!decision && r.pinned && request.hints->advised) {
            r.pinned.reset();
            decision = router_.book(r, now());
        }
        if (explanation) {
            if (decision) note_choice(*explanation, decision->chosen);
            request.hints->explanation = router::to_json(*explanation, kExplainedRanks);
        }
        const bool could_split = r.split && router_.ranks().can_split();
        if (!decision) {
            if (could_split) splits_.refused();
            return tl::unexpected(decision.error());
        }
        if (decision->booking.value == 0) return route;
        if (could_split) {
            const std::uint32_t cached = decision->chosen.cached_tokens;
            splits_.decided(r.prompt_tokens - std::min(r.prompt_tokens, cached),
                            decision->chosen.decode_rank != router::kNoRank);
        }
        route.rank = decision->chosen.rank;
        route.decode_rank = decision->chosen.decode_rank;
        if (route.decode_rank != router::kNoRank) route.leg = Leg::kPrefill;
        route.booking = decision->booking;
        route.cached_tokens = decision->chosen.cached_tokens;
        route.ttft_s = decision->chosen.ttft_s();
        route.fallbacks = std::move(decision->fallbacks);
        last_booking_ = decision->booking.value;
        if (r.split && router_.ranks().can_split()) {
            const auto computed = static_cast<double>(
                r.prompt_tokens - std::min(r.prompt_tokens, decision->chosen.cached_tokens));
            (route.leg == Leg::kPrefill ? metrics_.split_tokens : metrics_.whole_tokens)
                .observe(computed);
        }
        const Member& m = members_[route.rank];
        if (!m.writer) predicted[0] = m.slot;
        if (route.leg == Leg::kPrefill && !members_[route.decode_rank].writer) {
            predicted[1] = members_[route.decode_rank].slot;
        }
        const auto held = std::ranges::find(overlaps, route.rank, &router::Overlap::rank);
        if (m.writer && m.writer->is_live(m.rank.rank) && !upper_bound) {
            settle_snapshot(route.rank);
            route.audited = true;
            route.resyncs_done = audit_.verdict(route.rank).resyncs_done;
            route.held_tokens = held == overlaps.end() ? 0 : held->any_blocks * card_.block_tokens;
        }
        route.prompt_tokens = r.prompt_tokens;
    }
    wake();
    for (const auto& slot : predicted) {
        if (!slot) continue;
        index_->predict(*slot, blocks, begin + options_.predict_ttl, tenant_number(request.tenant));
    }
    metrics_.decision_seconds.observe(to_seconds(clock_.now() - begin));
    return route;
}

Result<Route> PoolRouter::choose_decode(const protocol::GenerateRequest& request,
                                        std::span<const router::RankIndex> excluded) {
    router::RouteRequest r = route_request(request, {}, {});
    r.role = Role::kDecode;
    r.session = 0;  // that is where its prompt was computed
    r.excluded = excluded;
    return book_leg(r, Leg::kDecode);
}

/// `excluded` and the encode ranks that have other roles besides; empty where no rank is left then,
/// or there are none.
std::vector<router::RankIndex> PoolRouter::also_compute(
    std::span<const router::RankIndex> excluded) const {
    std::vector<router::RankIndex> out(excluded.begin(), excluded.end());
    bool alone = false;
    const std::scoped_lock lock(mutex_);
    for (std::size_t i = 0; i < members_.size(); ++i) {
        const auto rank = static_cast<router::RankIndex>(i);
        if (!members_[i].rank.worker || !members_[i].stays ||
            std::ranges::find(excluded, rank) != excluded.end()) {
            continue;
        }
        const router::Roles& roles = router_.ranks().description(rank).roles;
        if (!roles.has(Role::kEncode)) continue;
        if (roles.has(Role::kAggregated) || roles.has(Role::kPrefill) || roles.has(Role::kDecode)) {
            out.push_back(rank);
        } else {
            alone = true;
        }
    }
    if (!alone || out.size() == excluded.size()) out.clear();
    return out;
}

Result<Route> PoolRouter::choose_encode(const protocol::Digest& item,
                                        std::span<const router::RankIndex> excluded) {
    std::vector<router::Overlap> holders;
    router::RouteRequest r;
    r.role = Role::kEncode;
    r.expected_output_tokens = 0;
    r.excluded = excluded;
    {
        const std::scoped_lock lock(mutex_);
        embeddings_.find(item, holders);
        r.encode_s = encode_s_ > 0 ? encode_s_ : kUsualEncode_s;
    }
    r.overlaps = holders;
    // Who computes prompts besides does so where no other encodes.
    const auto others = also_compute(excluded);
    if (!others.empty()) r.excluded = others;
    auto route = book_leg(r, Leg::kEncode);
    if (!route && !others.empty()) {
        r.excluded = excluded;
        route = book_leg(r, Leg::kEncode);
    }
    if (!route) return route;
    route->held = std::ranges::find(holders, route->rank, &router::Overlap::rank) != holders.end();
    return route;
}

Result<Route> PoolRouter::book_leg(const router::RouteRequest& request, Leg leg) {
    Route route;
    {
        const std::scoped_lock lock(mutex_);
        refresh_loads(clock_.now());
        auto decision = router_.book(request, now());
        if (!decision) return tl::unexpected(std::move(decision.error()));
        route.rank = decision->chosen.rank;
        route.leg = leg;
        route.booking = decision->booking;
        route.prompt_tokens = request.prompt_tokens;
        route.items_before = router_.ranks().columns().requests[route.rank] - 1;
        last_booking_ = decision->booking.value;
    }
    wake();
    return route;
}

Result<std::string> PoolRouter::explain(const protocol::GenerateRequest& request) {
    std::vector<tokens::SequenceHash> blocks;
    std::vector<router::Overlap> overlaps;
    const bool upper_bound = look_up(request, blocks, overlaps);
    router::RouteRequest r = route_request(request, blocks, overlaps);
    const std::scoped_lock lock(mutex_);
    refresh_loads(clock_.now());
    if (request.hints) {
        if (auto ok = pin(*request.hints, r); !ok) return tl::unexpected(ok.error());
    }
    r.split = request.leg == Leg::kWhole && request.resumed_tokens == 0;
    auto explanation = router_.explain(r, now());
    explanation.upper_bound = upper_bound;
    return router::to_json(explanation);
}

std::vector<PoolRouter::Holder> PoolRouter::holders(std::span<const tokens::TokenId> prompt,
                                                    std::uint64_t salt,
                                                    std::string_view adapter) const {
    std::vector<Holder> out;
    if (!index_) return out;
    std::vector<tokens::SequenceHash> blocks;
    std::vector<router::Overlap> overlaps;
    hash_prompt(prompt, card_.block_tokens, salt, adapter, blocks);
    index_->lookup(blocks, overlaps);
    const std::scoped_lock lock(mutex_);
    for (const router::Overlap& o : overlaps) {
        if (!router_.ranks().present(o.rank)) continue;
        out.push_back({router_.ranks().description(o.rank).name, o.device_blocks, o.any_blocks});
    }
    std::ranges::sort(out, {}, &Holder::name);
    return out;
}

Result<PoolRouter::Dump> PoolRouter::dump(std::string_view worker, std::uint32_t rank,
                                          std::size_t skip, std::size_t limit) const {
    Dump out;
    std::optional<index::RankSlot> slot;
    {
        const std::scoped_lock lock(mutex_);
        for (const Member& m : members_) {
            if (!m.rank.worker || m.rank.rank != rank) continue;
            if (m.rank.worker->info()->name != worker) continue;
            out.name = fmt::format("{}/{}", worker, rank);
            slot = m.slot;
        }
    }
    if (out.name.empty()) {
        return error(ErrorCode::kNotFound, "there is no rank {} of a worker {}", rank, worker);
    }
    if (!slot) return out;
    out.all_blocks = index_->blocks_of(*slot);
    out.runs = index_->dump(*slot, skip, limit);
    return out;
}

std::vector<std::shared_ptr<fleet::Worker>> PoolRouter::workers() const {
    const std::scoped_lock lock(mutex_);
    std::vector<std::shared_ptr<fleet::Worker>> out;
    out.reserve(members_.size());
    for (const Member& m : members_) out.push_back(m.rank.worker);
    return out;
}

std::shared_ptr<fleet::Worker> PoolRouter::worker(router::RankIndex rank,
                                                  std::uint32_t& of_worker) const {
    const std::scoped_lock lock(mutex_);
    if (rank >= members_.size()) return nullptr;
    of_worker = members_[rank].rank.rank;
    return members_[rank].rank.worker;
}

/// Under the lock. A worker with several ranks and none named: its first.
Result<void> PoolRouter::pin(const protocol::RouteHints& hints, router::RouteRequest& r) const {
    if (hints.worker.empty()) return {};
    for (std::size_t i = 0; i < members_.size(); ++i) {
        const Member& m = members_[i];
        if (!m.rank.worker || m.rank.rank != hints.rank.value_or(m.rank.rank)) continue;
        const auto info = m.rank.worker->info();
        // A number: what the reference calls an instance.
        if (info->name != hints.worker && std::to_string(info->incarnation.value) != hints.worker) {
            continue;
        }
        r.pinned = static_cast<router::RankIndex>(i);
        return {};
    }
    if (hints.advised) return {};
    return error(ErrorCode::kNotFound, "worker {} is asked for, and not there", hints.worker);
}

void PoolRouter::first_token(const Route& route, std::optional<std::uint32_t> cached_tokens,
                             TimePoint chosen_at) {
    prompt_computed(route, cached_tokens);
    if (route.ttft_s > 0)
        metrics_.ttft_error.observe(to_seconds(clock_.now() - chosen_at) / route.ttft_s);
}

void PoolRouter::prompt_computed(const Route& route, std::optional<std::uint32_t> cached_tokens) {
    bool resync = false;
    {
        const std::scoped_lock lock(mutex_);
        router_.on_first_token(route.booking, cached_tokens, now());
        if (route.leg == Leg::kPrefill) {
            splits_.prompt_computed(route.booking.value, route.rank, route.decode_rank,
                                    route.prompt_tokens, clock_.now());
        }
        if (route.audited && cached_tokens) resync = audit(route, *cached_tokens);
    }
    wake();
    if (resync) fetch_again(route.rank);
    if (cached_tokens) count_cached(route, *cached_tokens);
}

void PoolRouter::cached_told(const Route& route, std::optional<std::uint32_t> cached_tokens) {
    bool resync = false;
    {
        const std::scoped_lock lock(mutex_);
        router_.on_cached_told(route.booking, cached_tokens.value_or(route.cached_tokens));
        if (route.audited && cached_tokens) resync = audit(route, *cached_tokens);
    }
    if (resync) fetch_again(route.rank);
    if (cached_tokens) count_cached(route, *cached_tokens);
}

void PoolRouter::count_cached(const Route& route, std::uint32_t cached_tokens) {
    metrics_.predicted_tokens.add(route.cached_tokens);
    metrics_.cached_tokens.add(cached_tokens);
    metrics_.prompt_tokens.add(route.prompt_tokens);
}

void PoolRouter::handed_over(const Route& route, TimePoint chosen_at) {
    {
        const std::scoped_lock lock(mutex_);
        router_.on_handed_over(route.booking, now());
        splits_.handed_over(route.booking.value, clock_.now());
    }
    if (route.ttft_s > 0)
        metrics_.ttft_error.observe(to_seconds(clock_.now() - chosen_at) / route.ttft_s);
}

void PoolRouter::encoded(const Route& route, const protocol::Digest& item, TimePoint chosen_at) {
    constexpr double kShare = 0.1;
    const double took = to_seconds(clock_.now() - chosen_at) / (1.0 + route.items_before);
    const std::scoped_lock lock(mutex_);
    if (route.rank < members_.size() && members_[route.rank].rank.worker) {
        embeddings_.add(item, route.rank);
    }
    if (route.held) return;
    encode_s_ = encode_s_ > 0 ? (1 - kShare) * encode_s_ + kShare * took : took;
}

void PoolRouter::ended(router::BookingId booking) {
    {
        const std::scoped_lock lock(mutex_);
        router_.on_end(booking, now());
        splits_.ended(booking.value);
    }
    wake();
}

void PoolRouter::wake() {
    if (wake_) wake_();
}

void PoolRouter::share(std::function<void()> wake) {
    const std::scoped_lock lock(mutex_);
    wake_ = std::move(wake);
    router_.set_sink(&journal_);
}

void PoolRouter::take(replicas::ReplicaId from, const replicas::Message& message,
                      std::vector<replicas::Message>& out) {
    const std::scoped_lock lock(mutex_);
    if (const auto* delta = std::get_if<replicas::Delta>(&message)) {
        if (!delta->again && !delta->events.empty()) {
            metrics_.delta_age.observe(std::max(0.0, to_seconds(now() - delta->events.front().at)));
        }
    }
    peers_.take(from, message, now());
    std::vector<replicas::Ask> asks;
    peers_.asks(now(), asks);
    for (replicas::Ask& ask : asks) out.emplace_back(std::move(ask));
}

void PoolRouter::answer(const replicas::Ask& ask, std::vector<replicas::Message>& out) {
    const std::scoped_lock lock(mutex_);
    journal_.answer(ask, out);
}

void PoolRouter::flush(std::vector<replicas::Message>& out) {
    const std::scoped_lock lock(mutex_);
    journal_.flush(out);
}

void PoolRouter::tick(std::vector<replicas::Message>& out) {
    const std::scoped_lock lock(mutex_);
    peers_.expire(now());
    journal_.digest(now(), out);
    std::vector<replicas::Ask> asks;
    peers_.asks(now(), asks);
    for (replicas::Ask& ask : asks) out.emplace_back(std::move(ask));
    show_peers();
}

void PoolRouter::peer_heard(replicas::ReplicaId peer) {
    const std::scoped_lock lock(mutex_);
    peers_.heard(peer, now());
}

void PoolRouter::peer_gone(replicas::ReplicaId peer) {
    const std::scoped_lock lock(mutex_);
    peers_.drop(peer, now());
    show_peers();
}

/// Under the lock.
void PoolRouter::show_peers() {
    const replicas::PeerCounters& c = peers_.counters();
    metrics_.peers_shown.set(static_cast<double>(peers_.size()));
    metrics_.peers_bookings.set(static_cast<double>(router_.peers_bookings()));
    metrics_.deltas_missed.add(c.missed - told_.missed);
    metrics_.deltas_repaired.add(c.repaired - told_.repaired);
    metrics_.digest_mismatches.add(c.mismatches - told_.mismatches);
    metrics_.peers_gone.add(c.peers_gone - told_.peers_gone);
    told_ = c;
}

void PoolRouter::show_index() {
    const auto size = index_->size();
    metrics_.index_blocks.set(static_cast<double>(size.blocks));
    metrics_.index_bytes.set(static_cast<double>(size.bytes));
}

Result<void> PoolRouter::set_policy(router::PolicyOptions policy) {
    const std::scoped_lock lock(mutex_);
    return router_.set_options(std::move(policy));
}

void PoolRouter::observe_queue(std::function<std::optional<QueueState>()> look) {
    const std::scoped_lock lock(look_mutex_);
    look_at_queue_ = std::move(look);
}

PoolRouter::State PoolRouter::state() const {
    State out;
    if (index_) out.index = index_->size();
    {
        const std::scoped_lock lock(look_mutex_);
        if (look_at_queue_) out.queue = look_at_queue_();
    }
    const std::scoped_lock lock(mutex_);
    out.policy = router_.options();
    out.bookings = router_.bookings();
    out.peers_bookings = router_.peers_bookings();
    out.shares = wake_ != nullptr;
    out.at = clock_.now();
    out.peers = peers_.peers();
    out.peer_counters = peers_.counters();
    for (std::size_t i = 0; i < members_.size(); ++i) {
        const Member& m = members_[i];
        if (!m.rank.worker) continue;
        const auto rank = static_cast<router::RankIndex>(i);
        RankState& s = out.ranks.emplace_back();
        s.name = router_.ranks().description(rank).name;
        s.rank = m.rank.rank;
        s.roles = router_.ranks().description(rank).roles;
        s.follows_events = m.writer != nullptr;
        s.live = m.writer && m.writer->is_live(m.rank.rank);
        s.prefill_scale = router_.ranks().speed(rank).prefill_scale().scale();
        s.queue_s = router_.ranks().queue_s(rank, 1, to_seconds(now()));
        // As of now: the router's own is as old as the last decision.
        s.load = m.rank.worker->load(m.rank.rank);
        s.load.waiting += m.rank.pending->load(std::memory_order_relaxed);
        const auto verdict = audit_.verdict(rank);
        s.trust = router::to_string(verdict.trust);
        if (verdict.trust != router::Trust::kTrusted)
            s.finding = router::to_string(verdict.finding);
        s.believed = verdict.believed;
        s.mismatch_rate = verdict.mismatch_rate;
        if (m.slot) s.blocks = index_->blocks_of(*m.slot);
    }
    std::ranges::sort(out.ranks, {}, &RankState::name);
    out.can_split = router_.ranks().can_split();
    out.whole = splits_.whole();
    out.split = splits_.split();
    out.refused = splits_.refused_count();
    out.break_even_tokens = splits_.break_even();
    for (const SplitAccount::Way& way : splits_.ways()) {
        out.ways.push_back({router_.ranks().description(way.from).name,
                            router_.ranks().description(way.to).name, way});
    }
    return out;
}

router::Disaggregation PoolRouter::disaggregation() const {
    const std::scoped_lock lock(mutex_);
    return router_.options().disaggregation;
}

std::vector<std::string> PoolRouter::concerns() const {
    std::vector<std::string> out;
    const std::scoped_lock lock(mutex_);
    for (std::size_t i = 0; i < members_.size(); ++i) {
        if (!members_[i].rank.worker) continue;
        const auto rank = static_cast<router::RankIndex>(i);
        const auto verdict = audit_.verdict(rank);
        const std::string& name = router_.ranks().description(rank).name;
        if (!members_[i].concern.empty()) {
            out.push_back(fmt::format("{}: {}", name, members_[i].concern));
        }
        const std::string_view why = router::to_string(verdict.finding);
        switch (verdict.trust) {
            case router::Trust::kTrusted:
                break;
            case router::Trust::kResync:
                out.push_back(
                    fmt::format("{}'s cache is read again from a snapshot: {}", name, why));
                break;
            case router::Trust::kDistrusted:
                out.push_back(fmt::format(
                    "{}'s KV events are not trusted{}: {}", name,
                    verdict.believed ? "" : ", it gets requests by its load alone", why));
                break;
        }
    }
    return out;
}

}  // namespace stator::routing
