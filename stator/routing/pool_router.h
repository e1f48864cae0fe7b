#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/fleet/fleet.h"
#include "stator/metrics/registry.h"
#include "stator/protocol/generate.h"
#include "stator/protocol/worker_info.h"
#include "stator/replicas/journal.h"
#include "stator/replicas/peer_table.h"
#include "stator/router/embedding_holders.h"
#include "stator/router/overlap_audit.h"
#include "stator/router/router.h"
#include "stator/routing/kv_feed.h"
#include "stator/routing/pool_index.h"
#include "stator/routing/pool_router_metrics.h"
#include "stator/routing/split_account.h"

namespace stator::routing {

struct PoolRouterOptions {
    router::PolicyOptions policy;
    index::IndexOptions index;
    /// How long blocks sent to a rank that publishes no events are taken to be there.
    std::chrono::milliseconds predict_ttl{120'000};
    std::uint64_t seed = 1;
};

/// A rank that takes requests.
struct PoolRank {
    std::shared_ptr<fleet::Worker> worker;
    std::uint32_t rank = 0;
    /// Requests chosen for it that its load does not know yet.
    std::shared_ptr<const std::atomic<std::uint32_t>> pending;
};

/// A request may wait at the router: what a rank may have before it, so that it goes there.
struct Hold {
    double queue_s = 0.5;          ///< of prompts
    double waiting_share = 0.125;  ///< RouteRequest::most_waiting_share
};

/// Where a request goes, booked.
struct Route {
    router::RankIndex rank = router::kNoRank;
    /// What the rank is to compute.
    protocol::Leg leg = protocol::Leg::kWhole;
    /// Of a kPrefill leg: booked with it, for the decode leg.
    router::RankIndex decode_rank = router::kNoRank;
    router::BookingId booking;
    std::uint32_t cached_tokens = 0;           ///< predicted
    double ttft_s = 0;                         ///< predicted, from the booking on
    std::vector<router::RankIndex> fallbacks;  ///< of choose(): the next best, in order
    // For the audit.
    bool audited = false;
    std::uint32_t held_tokens = 0;  ///< by the rank's events alone
    std::uint32_t prompt_tokens = 0;
    std::uint32_t resyncs_done = 0;
    // Of a kEncode leg.
    std::uint32_t items_before = 0;
    bool held = false;
};

/// Chooses ranks of one pool by what they hold and what they have to do, and keeps account of what
/// was sent where. Any thread.
class PoolRouter {
  public:
    /// `feed`: null where nobody follows events; then what was sent to a rank is taken to be there.
    PoolRouter(PoolRouterOptions options, protocol::ModelCard card, std::shared_ptr<KvFeed> feed,
               metrics::Registry& registry, const Clock& clock);
    ~PoolRouter();
    PoolRouter(const PoolRouter&) = delete;
    PoolRouter& operator=(const PoolRouter&) = delete;

    /// The ranks there are now; those that were there keep their numbers. What they hold is
    /// followed from now on. By the order of `ranks`.
    std::vector<router::RankIndex> set_ranks(std::span<const PoolRank> ranks);

    /// Chooses and books; end it with ended(). `excluded`: not these. With `hold` its deadline is
    /// looked at, and Route::booking is 0 where the best rank has more before it: nothing is
    /// booked, it is to be asked for again. Errors as Router::book(). `may_split`: Route::leg may
    /// be kPrefill, with a decode rank booked too, where that is better (PolicyOptions::
    /// disaggregation). `media_methods`: router::RouteRequest's.
    [[nodiscard]] Result<Route> choose(const protocol::GenerateRequest& request,
                                       std::span<const router::RankIndex> excluded,
                                       const std::optional<Hold>& hold = std::nullopt,
                                       bool may_split = false,
                                       std::span<const std::string> media_methods = {});
    /// A decode rank for a prompt that is computed already.
    [[nodiscard]] Result<Route> choose_decode(const protocol::GenerateRequest& request,
                                              std::span<const router::RankIndex> excluded);
    /// An encode rank for a media item: one that holds its embeddings, unless encoding it again
    /// elsewhere is sooner.
    [[nodiscard]] Result<Route> choose_encode(const protocol::Digest& item,
                                              std::span<const router::RankIndex> excluded);
    /// The first token has come; `cached_tokens`: of the prompt, as the engine says. None: it has
    /// not said so yet, and cached_told() will.
    void first_token(const Route& route, std::optional<std::uint32_t> cached_tokens,
                     TimePoint chosen_at);
    /// The same in two parts, of a pair: the prefill leg has ended …
    void prompt_computed(const Route& route, std::optional<std::uint32_t> cached_tokens);
    /// Said later than with the first token, before ended(). None: its engine does not say, and
    /// what was predicted is all there is to learn from.
    void cached_told(const Route& route, std::optional<std::uint32_t> cached_tokens);
    /// … and its decode leg has given the first token.
    void handed_over(const Route& route, TimePoint chosen_at);
    /// An encode leg has ended with the item's embeddings.
    void encoded(const Route& route, const protocol::Digest& item, TimePoint chosen_at);
    void ended(router::BookingId booking);

    [[nodiscard]] Result<void> set_policy(router::PolicyOptions policy);

    // For ReplicaPlane: routers of the same pool in other processes.
    /// From now on bookings are kept for peers; `wake` is called (on any thread, without a lock)
    /// when there is something to flush().
    void share(std::function<void()> wake);
    /// A peer's message, its times by clock.now(). `out`: what is to be sent because of it.
    void take(replicas::ReplicaId from, const replicas::Message& message,
              std::vector<replicas::Message>& out);
    /// An ask of somebody, of this replica.
    void answer(const replicas::Ask& ask, std::vector<replicas::Message>& out);
    void flush(std::vector<replicas::Message>& out);
    /// Now and then: a digest, asks, and what is gone is dropped.
    void tick(std::vector<replicas::Message>& out);
    void peer_heard(replicas::ReplicaId peer);
    void peer_gone(replicas::ReplicaId peer);

    // For those who ask without sending: /router.
    /// What choose() would do, as JSON; books nothing.
    [[nodiscard]] Result<std::string> explain(const protocol::GenerateRequest& request);
    struct Holder {
        std::string name;  ///< "worker/rank"
        std::uint32_t device_blocks = 0;
        std::uint32_t any_blocks = 0;
    };
    /// Who holds how many leading blocks of a prompt.
    [[nodiscard]] std::vector<Holder> holders(std::span<const tokens::TokenId> prompt,
                                              std::uint64_t salt,
                                              std::string_view adapter = {}) const;
    struct Dump {
        std::string name;            ///< "worker/rank"
        std::size_t all_blocks = 0;  ///< each memory counts
        std::vector<PoolIndex::Run> runs;
    };
    /// What the index knows of a rank; see PoolIndex::dump(). kNotFound: no such rank.
    [[nodiscard]] Result<Dump> dump(std::string_view worker, std::uint32_t rank, std::size_t skip,
                                    std::size_t limit) const;
    /// The workers of the ranks, by RankIndex; null: gone.
    [[nodiscard]] std::vector<std::shared_ptr<fleet::Worker>> workers() const;
    /// Null where it is gone.
    [[nodiscard]] std::shared_ptr<fleet::Worker> worker(router::RankIndex rank,
                                                        std::uint32_t& of_worker) const;
    [[nodiscard]] const protocol::ModelCard& card() const { return card_; }

    /// For /router: policy, ranks, index.
    struct RankState {
        std::string name;
        std::uint32_t rank = 0;
        router::Roles roles;  ///< that it has here
        bool follows_events = false;
        bool live = false;
        std::size_t blocks = 0;
        std::string_view trust;    ///< of what its events say
        std::string_view finding;  ///< why they are not trusted; empty: they are
        bool believed = true;      ///< they count in decisions
        double mismatch_rate = 0;  ///< of late
        double prefill_scale = 1;
        double queue_s = 0;
        protocol::LoadReport load;
    };
    /// Requests that wait before they are booked.
    struct QueueState {
        std::array<std::size_t, 3> waiting{};  ///< by router::RequestClass
        std::size_t tenants = 0;
        double work_s = 0;  ///< of a rank as the pool's prior has it, of all that wait
        std::size_t most = 0;
        double hold_s = 0;
    };
    struct State {
        router::PolicyOptions policy;
        PoolIndex::Size index;
        std::size_t bookings = 0;
        std::size_t peers_bookings = 0;
        std::vector<RankState> ranks;
        std::optional<QueueState> queue;  ///< none: requests do not wait here
        bool can_split = false;           ///< some rank computes prompts for others, some decodes
        std::uint64_t whole = 0;          ///< of those that could have been split
        std::uint64_t split = 0;
        std::uint64_t refused = 0;            ///< likewise, that no rank could take
        std::uint32_t break_even_tokens = 0;  ///< SplitAccount::break_even()
        struct Way {
            std::string from;  ///< "worker/rank"
            std::string to;
            SplitAccount::Way way;
        };
        std::vector<Way> ways;  ///< of handoffs
        bool shares = false;
        TimePoint at;  ///< by which peers were heard
        std::vector<replicas::PeerTable::PeerState> peers;
        replicas::PeerCounters peer_counters;
    };
    [[nodiscard]] State state() const;
    [[nodiscard]] router::Disaggregation disaggregation() const;
    /// Who lets requests wait tells of them by this; null: nobody does any more.
    void observe_queue(std::function<std::optional<QueueState>()> look);
    /// Ranks that are not what they say they are, a sentence each: for /health.
    [[nodiscard]] std::vector<std::string> concerns() const;

  private:
    struct Member {
        PoolRank rank;
        std::optional<index::RankSlot> slot;
        std::shared_ptr<IndexWriter> writer;  ///< null: publishes no events
        bool stays = false;
        bool resyncing = false;  ///< its snapshot is on its way
        std::string concern;     ///< a role that it can't have, and why; empty: none
        std::uint64_t orphans = 0;
    };
    struct Following {
        std::unique_ptr<events::Subscription> subscription;
        std::shared_ptr<IndexWriter> writer;
        std::vector<std::optional<index::RankSlot>> slots;
    };

    [[nodiscard]] router::Nanos now() const { return clock_.now() - TimePoint{}; }
    void wake();
    void show_peers();
    [[nodiscard]] static router::RankDescription describe(const PoolRank& rank);
    [[nodiscard]] router::Roles roles_of(const PoolRank& rank, std::string& concern) const;
    void settle_roles(std::span<const PoolRank> ranks);
    [[nodiscard]] std::vector<router::RankIndex> also_compute(
        std::span<const router::RankIndex> excluded) const;
    [[nodiscard]] Result<Route> book_leg(const router::RouteRequest& request, protocol::Leg leg);
    router::RankIndex add(const PoolRank& rank);
    void follow_events();
    void refresh_loads(TimePoint now);
    void show_index();
    void show_trust();
    void settle_snapshot(router::RankIndex rank);
    void count_cached(const Route& route, std::uint32_t cached_tokens);
    [[nodiscard]] bool audit(const Route& route, std::uint32_t cached_tokens);
    void fetch_again(router::RankIndex rank);
    bool look_up(const protocol::GenerateRequest& request,
                 std::vector<tokens::SequenceHash>& blocks,
                 std::vector<router::Overlap>& overlaps) const;
    [[nodiscard]] router::RouteRequest route_request(
        const protocol::GenerateRequest& request, const std::vector<tokens::SequenceHash>& blocks,
        const std::vector<router::Overlap>& overlaps) const;
    [[nodiscard]] Result<void> pin(const protocol::RouteHints& hints,
                                   router::RouteRequest& r) const;

    PoolRouterOptions options_;
    protocol::ModelCard card_;
    std::shared_ptr<KvFeed> feed_;
    const Clock& clock_;
    std::shared_ptr<PoolIndex> index_;  ///< null where the pool has no prefix cache

    PoolRouterMetrics metrics_;
    std::function<void()> wake_;  ///< set before there is traffic; empty: nobody shares

    mutable std::mutex mutex_;  ///< of all below
    replicas::Journal journal_;
    router::Router router_;
    replicas::PeerTable peers_{router_};
    replicas::PeerCounters told_;  ///< of the counters
    router::OverlapAudit audit_;
    router::EmbeddingHolders embeddings_;
    SplitAccount splits_;
    std::string media_digest_;     ///< that encode ranks must have; empty: there are none
    double encode_s_ = 0;          ///< an item, as learned; 0 = not yet
    std::vector<Member> members_;  ///< by RankIndex; no worker: gone
    TimePoint loads_at_;
    std::uint64_t last_booking_ = 0;

    mutable std::mutex look_mutex_;
    std::function<std::optional<QueueState>()> look_at_queue_;

    std::mutex following_mutex_;  ///< of what follows; taken before the other
    std::vector<std::pair<std::shared_ptr<fleet::Worker>, Following>> following_;
};

}  // namespace stator::routing
