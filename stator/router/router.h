#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/load.h"
#include "stator/router/active_prefixes.h"
#include "stator/router/explanation.h"
#include "stator/router/handoff_times.h"
#include "stator/router/policy.h"
#include "stator/router/rank_table.h"
#include "stator/router/route.h"
#include "stator/router/scorer.h"
#include "stator/router/session_table.h"
#include "stator/router/shared_booking.h"

namespace stator::router {

/// Chooses a rank for each request of one pool and keeps account of what it has sent where. One
/// step scores and books, so that requests of the same moment see each other. Load is what a rank
/// reports plus the bookings that the report can't know. Pure: time is passed in, randomness comes
/// from the seed. Not thread-safe: it lives on its owner's thread. Memory: some 250 bytes a rank,
/// and for each booking its prompt's hashes.
class Router {
  public:
    /// `options` must be valid (STATOR_CHECK).
    explicit Router(PolicyOptions options = {}, std::uint64_t seed = 1);

    RankIndex add_rank(RankDescription description);
    /// Its bookings are forgotten, on_end() of them does nothing; but those of pairs whose prompt
    /// it has computed go on at their decode rank.
    void remove_rank(RankIndex rank, Nanos now);
    void describe(RankIndex rank, RankDescription description);
    [[nodiscard]] const RankTable& ranks() const { return table_; }
    [[nodiscard]] const PolicyOptions& options() const { return options_; }
    /// Takes effect with the next decision. The dynamo policy counts blocks from then on.
    [[nodiscard]] Result<void> set_options(PolicyOptions options);

    /// Chooses and books. kUnavailable: no rank of that role is there; kOverloaded: all are full,
    /// or no decode rank will have room; kDeadlineExceeded: predicted to be too late; kNotFound:
    /// the pinned rank is not there.
    [[nodiscard]] Result<Decision> book(const RouteRequest& request, Nanos now);
    /// What book() would do, for all ranks; books nothing. Slow: for people.
    [[nodiscard]] Explanation explain(const RouteRequest& request, Nanos now);

    /// The rank's load; `seen` is the last booking that it knew of when it wrote this.
    void on_report(RankIndex rank, const protocol::LoadReport& load, BookingId seen);
    /// A step that computed no prompt took so long.
    void on_step(RankIndex rank, double seconds, double sequences, double kv_tokens);
    /// Its prompt is computed; of a pair: the decode rank goes on. `cached_tokens`: of the prompt,
    /// as the engine says; none: it says so later, with on_cached_told().
    void on_first_token(BookingId booking, std::optional<std::uint32_t> cached_tokens, Nanos now);
    void on_cached_told(BookingId booking, std::uint32_t cached_tokens);
    /// Of a pair whose prompt is computed: the first token came from the decode rank. Learns how
    /// long a handoff takes.
    void on_handed_over(BookingId booking, Nanos now);
    /// It has ended, or was refused, or its rank was lost. Unknown ones are ignored.
    void on_end(BookingId booking, Nanos now);

    [[nodiscard]] std::size_t bookings() const { return live_; }

    // Several routers for the same ranks. Bookings of others are load and prefixes like our own,
    // with one difference: which of them a report has seen is not known. Those on a rank are taken
    // to be among the requests that its report counts beyond our own, as far as it counts any.
    /// Told of our bookings from now on; null: nobody. It must outlive the router.
    void set_sink(BookingSink* sink) { sink_ = sink; }
    /// kNoRank: there is none of this name.
    [[nodiscard]] RankIndex rank_named(std::string_view name) const;
    /// Another router's booking, made at `at`, its prompt computed already or not; on_end() ends
    /// it. 0 where its rank is not there. Times may be a little before the last that was told.
    BookingId add_peers(const SharedBooking& booking, bool prefilled, Nanos at);
    /// `learn`: `at` is when it came; else it is only known that it has come.
    void on_peers_first_token(BookingId booking, std::uint32_t cached_tokens, bool learn, Nanos at);
    [[nodiscard]] std::size_t peers_bookings() const { return peers_; }
    /// Adapters that a rank has loaded, as it says, the least recently used first. Until it says
    /// so again, those of bookings are taken to be loaded too.
    void set_adapters(RankIndex rank, std::vector<std::uint32_t> adapters);
    void set_open(RankIndex rank, bool open);
    void set_distrusted(RankIndex rank, bool distrusted);

  private:
    struct Booking {
        std::uint64_t id = 0;  ///< 0 = free
        RankIndex rank = kNoRank;
        RankIndex decode_rank = kNoRank;
        std::size_t level = 1;
        std::uint32_t prompt_tokens = 0;
        std::uint32_t uncached_tokens = 0;
        std::uint32_t kv_tokens = 0;
        double handoff_tokens = 0;  ///< of a pair: what the decode rank had not cached
        double end_s = 0;           ///< predicted
        double prefill_end_s = 0;   ///< of a pair; 0 = not yet, or learned from already
        bool prefilled = false;
        bool encodes = false;
        bool peers = false;  ///< another router's: `blocks` are the places of ActivePrefixes
        std::vector<std::uint64_t> blocks;
    };
    /// Ours on one rank, and what the last report could not know of them.
    struct Account {
        std::vector<std::uint64_t> unseen;  ///< bookings, ascending
        std::uint64_t last_seen = 0;
        std::uint32_t foreign_requests = 0;
        float foreign_kv = 0;
        float own_kv = 0;
        std::uint32_t own_decoding = 0;
        std::uint32_t foreign_decoding = 0;
        std::uint64_t waiting_tokens = 0;  ///< prompts of bookings without a first token
    };

    /// A decode rank for a prompt that is computed elsewhere.
    struct Decoder {
        RankIndex rank = kNoRank;
        double cost = Scorer::kNever;
        double handoff_s = 0;  ///< and the first step there
    };
    /// The best ones for prompts that are computed at one site, or on one host: the second one is
    /// for the rank that would be its own decoder.
    struct Decoders {
        Decoder first;
        Decoder second;
        void consider(const Decoder& d) {
            if (d.cost < first.cost) {
                second = std::exchange(first, d);
            } else if (d.cost < second.cost) {
                second = d;
            }
        }
        [[nodiscard]] const Decoder& other_than(RankIndex rank) const {
            return first.rank == rank ? second : first;
        }
    };

    [[nodiscard]] Result<Decision> decide(const RouteRequest& request, Nanos now);
    [[nodiscard]] static RouteRequest pair_of(const RouteRequest& request);
    [[nodiscard]] bool splits(const RouteRequest& request) const;
    [[nodiscard]] Result<Decision> decide_one(const RouteRequest& request, Nanos now);
    [[nodiscard]] bool is_better(const Decision& split, const Decision& whole,
                                 const RouteRequest& request) const;
    [[nodiscard]] Explanation::Entry entry(const Candidate& c) const;
    void list_ranks(const RouteRequest& request, bool decided, Nanos now, Explanation& out);
    [[nodiscard]] std::string why_excluded(const RouteRequest& request, RankIndex rank) const;
    [[nodiscard]] Error no_candidate(const RouteRequest& request) const;
    [[nodiscard]] RankIndex pick(const RouteRequest& request, double now_s, Nanos now,
                                 Decision& decision);
    [[nodiscard]] RankIndex of_session(const RouteRequest& request, RankIndex best, Nanos now);
    void list_fallbacks(Decision& decision) const;
    [[nodiscard]] RankIndex power_of_two();
    [[nodiscard]] RankIndex softmax(double least);
    [[nodiscard]] Result<void> add_decode_costs(const RouteRequest& request, Nanos now);
    void add_own_decode_costs(const RouteRequest& request, Nanos now);
    void consider_decoder(RankIndex rank, const RouteRequest& request, double now_s);
    [[nodiscard]] Decoder decoder_for(RankIndex rank) const;
    [[nodiscard]] static std::uint64_t beside(std::uint64_t host, std::uint32_t site);
    struct DecodeCost {
        double step_s = 0;  ///< the first one
        double rest = 0;    ///< and what else is charged
    };
    [[nodiscard]] DecodeCost decode_cost(RankIndex rank, const RouteRequest& request) const;
    struct Handoff {
        HandoffWay way;
        HandoffPrior prior;
    };
    [[nodiscard]] Handoff handoff(const RankTable::Site& from, RankIndex to, bool same_host,
                                  double tokens) const;
    [[nodiscard]] bool has_room(RankIndex rank, const RouteRequest& request, double when_s);
    void count_freed(double when_s);
    BookingId enter(const RouteRequest& request, const Decision& decision, Nanos now);
    void count_arrival(Nanos now);
    void use_adapter(RankIndex rank, std::uint32_t adapter);
    Booking& take_slot();
    void queue_work(const Booking& booking, double prior_s, double now_s);
    void share(const Booking& booking, const RouteRequest& request, const Candidate& chosen,
               double extra_s, Nanos now);
    void add_prefix(const Booking& booking);
    void remove_prefix(const Booking& booking);
    void open(RankIndex rank, std::uint64_t id, std::uint32_t kv_tokens);
    void open_peers(RankIndex rank, std::uint32_t kv_tokens);
    void close(RankIndex rank, std::uint64_t id, std::uint32_t kv_tokens);
    void refresh(RankIndex rank);
    [[nodiscard]] Booking* find(BookingId id);
    [[nodiscard]] double prefill_prior_s(const Booking& booking, std::uint32_t cached_tokens) const;
    void finish_prefill(Booking& booking, std::optional<std::uint32_t> cached_tokens, bool learn,
                        double now_s);

    struct NameHash {
        using is_transparent = void;
        std::size_t operator()(std::string_view name) const {
            return std::hash<std::string_view>{}(name);
        }
    };

    PolicyOptions options_;
    std::minstd_rand random_;
    RankTable table_;
    ActivePrefixes active_;
    Scorer scorer_;
    SessionTable sessions_;
    std::vector<Account> accounts_;
    std::vector<Booking> bookings_;
    std::vector<std::uint32_t> free_;
    std::vector<float> freed_;        ///< of count_freed()
    std::vector<Decoders> decoders_;  ///< for prompts computed at each site
    std::unordered_map<std::uint64_t, Decoders> decoders_on_;  ///< at each and on each host
    HandoffTimes handoffs_;
    std::uint64_t serial_ = 0;
    std::uint64_t turn_ = 0;
    std::size_t live_ = 0;   ///< ours
    std::size_t peers_ = 0;  ///< others'
    BookingSink* sink_ = nullptr;
    std::unordered_map<std::string, RankIndex, NameHash, std::equal_to<>> by_name_;
    double recent_ = 0;  ///< bookings with a prompt, each counting less as it gets older
    Nanos recent_at_{0};
};

}  // namespace stator::router
