#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "stator/estimate/rank_speed.h"
#include "stator/protocol/load.h"
#include "stator/protocol/worker_info.h"
#include "stator/router/handoff_times.h"
#include "stator/router/route.h"

namespace stator::router {

/// What the fleet knows of a rank, apart from its load.
struct RankDescription {
    std::string name;  ///< stable: survives restarts; "worker/rank"
    Roles roles = protocol::Role::kAggregated;
    estimate::PrefillTime prefill;  ///< priors of its pool; must be valid
    estimate::DecodeStepTime step;
    /// How far off the priors may be, as the standard deviation of a logarithm: 0.25 where they
    /// were measured, 1.5 where they are a guess.
    double prior_std = 0.25;
    double onboarding_s_per_token = 0;  ///< from host memory or disk
    /// Of a decode rank: what a token's KV takes in a handoff. How long that is, its method says
    /// (speed_of). 0 = not known: then the two below count.
    double handoff_bytes_per_token = 0;
    double handoff_latency_s = 0;    ///< of a decode rank: to get a prompt's KV within a zone; …
    double handoff_s_per_token = 0;  ///< … half of both on one host
    double adapter_load_s = 0;
    std::uint32_t max_adapters = 4;
    std::vector<std::uint32_t> adapters;  ///< loaded
    std::vector<Label> labels;            ///< requests may require them
    std::vector<Label> taints;            ///< exclude it unless tolerated
    std::vector<Label> avoid;             ///< others are preferred unless these are tolerated
    std::string zone;                     ///< handoffs within one are cheap; empty = any
    std::string host;                     ///< and within one of these cheaper; empty = unknown
    /// By which handoffs can be moved: two ranks need one in common, and "shm" one host. Empty =
    /// not said: any.
    std::vector<std::string> transfer_methods;
    bool open = true;         ///< takes requests
    bool distrusted = false;  ///< overlaps of it are not believed
};

/// The load of every rank, side by side: columns, since each decision reads all ranks. A rank's
/// prefill queue is a fluid: work in seconds of its prior, taken off by passing time as far as its
/// first unfinished prompt reaches, and set right whenever a first token comes. Not thread-safe.
class RankTable {
  public:
    /// Prefills of lower priority do not hold up those of higher: three levels.
    static constexpr std::size_t kLevels = 3;
    [[nodiscard]] static std::size_t level_of(std::int32_t priority) {
        return priority < 0 ? 0 : priority == 0 ? 1 : 2;
    }

    RankIndex add(RankDescription description);
    void remove(RankIndex rank);
    /// Everything but the priors' learned scales is replaced.
    void describe(RankIndex rank, RankDescription description);
    /// For what no column repeats: adapters.
    [[nodiscard]] RankDescription& edit(RankIndex rank) { return ranks_[rank].description; }
    [[nodiscard]] std::size_t size() const { return ranks_.size(); }
    [[nodiscard]] bool present(RankIndex rank) const {
        return rank < ranks_.size() && ranks_[rank].present;
    }
    [[nodiscard]] const RankDescription& description(RankIndex rank) const {
        return ranks_[rank].description;
    }
    [[nodiscard]] const estimate::RankSpeed& speed(RankIndex rank) const {
        return ranks_[rank].speed;
    }

    /// A booking's prefill work is on its way: seconds of its tokens. What a step takes whatever it
    /// computes (the prior's base) counts once for all that are queued together, for they share
    /// steps.
    void enqueue(RankIndex rank, std::uint64_t booking, double prior_s, std::size_t level,
                 double now_s);
    /// Its first token came: its work is done, of which `real_prior_s` was really needed for
    /// its tokens (less where more was cached than thought). Learns the rank's scale.
    void first_token(RankIndex rank, std::uint64_t booking, double real_prior_s, double now_s);
    /// The same where the engine has not said yet what was really needed: what the rank's scale
    /// learns of it waits for told(). What is told after kMostLate others teaches nothing.
    void first_token_untold(RankIndex rank, std::uint64_t booking, double now_s);
    void told(RankIndex rank, std::uint64_t booking, double real_prior_s);
    static constexpr std::size_t kMostLate = 1024;
    /// It went away before its first token.
    void withdraw(RankIndex rank, std::uint64_t booking, double now_s);
    /// When the queue was last looked at: what is told later of an earlier time happened then.
    [[nodiscard]] double latest_s(RankIndex rank) const {
        return ranks_[rank].pending.empty()
                   ? 0
                   : std::max(columns_.anchor[rank], ranks_[rank].busy_since_s);
    }
    void observe_step(RankIndex rank, double seconds, double sequences, double kv_tokens);

    void report(RankIndex rank, const protocol::LoadReport& load);
    [[nodiscard]] const protocol::LoadReport& reported(RankIndex rank) const {
        return ranks_[rank].load;
    }

    /// Seconds until the prefill work that is queued there now is done, for a request of this
    /// level; what others than this router have queued included.
    [[nodiscard]] double queue_s(RankIndex rank, std::size_t level, double now_s) const;

    /// Read by the scoring loops; index = rank. Written by RankTable, but for the counts, which
    /// the router keeps.
    struct Columns {
        // Fluid queue: total - min((now - anchor) / scale, head), in prior seconds.
        std::vector<double> total;
        std::vector<double> anchor;
        std::vector<double> head;
        std::vector<float> level_work[kLevels];  ///< of unfinished bookings, prior seconds
        std::vector<float> foreign;              ///< queued by others, prior seconds
        // Speed, the scale applied.
        std::vector<float> scale;
        std::vector<float> base, per_token, per_token_context;
        std::vector<float> step;  ///< a decode step now; 0 = nobody decodes
        std::vector<float> relative_std;
        std::vector<float> onboarding;
        // Counts: what the report says, and what it can't know yet.
        std::vector<std::uint32_t> requests;
        std::vector<std::uint32_t> own;  ///< bookings of ours
        std::vector<std::uint32_t> running_limit;
        std::vector<std::uint32_t> limit;  ///< of requests, running and waiting; 0 = none
        std::vector<float> decoding;       ///< sequences that decode
        std::vector<float> kv_tokens;      ///< that these need, and those booked
        std::vector<float> kv_total;       ///< 0 = unknown
        std::vector<float> kv_room;        ///< tokens left, where requests wait for some there
        std::vector<std::uint8_t> roles;   ///< Roles::bits(); 0 = gone or closed
        std::vector<std::uint8_t> handoffs_full;  ///< nobody takes what its legs have left
        std::vector<std::uint8_t> distrusted;
        std::vector<std::uint32_t> zone;  ///< number of the zone's name; 0 = any
        std::vector<std::uint32_t> site;  ///< number of its Site
        std::vector<std::uint64_t> host;  ///< hash of the host's name; 0 = unknown
        std::vector<std::uint64_t> name_hash;
    };
    [[nodiscard]] const Columns& columns() const { return columns_; }
    [[nodiscard]] Columns& counts() { return columns_; }
    /// After the counts of a rank changed: its step time.
    void refresh_step(RankIndex rank);
    /// Prompt tokens of our bookings that the engine's waiting tokens may contain.
    void note_own_waiting(RankIndex rank, std::uint64_t tokens);
    /// What of a rank's place decides how its handoffs can travel; as few as there are different
    /// ones.
    struct Site {
        std::uint32_t zone = 0;
        std::uint32_t methods = 0;  ///< a bit for each; 0 = any. The lowest is "shm".
        bool host_known = false;
        bool operator==(const Site&) const = default;
    };
    [[nodiscard]] const std::vector<Site>& sites() const { return sites_; }
    /// A bit for each method that any rank has; those of none are left out.
    [[nodiscard]] std::uint32_t methods_of(std::span<const std::string> names) const;
    /// Whether the rank has one of them, or does not say what it has.
    [[nodiscard]] bool takes_by(RankIndex rank, std::uint32_t methods) const {
        const std::uint32_t own = sites_[columns_.site[rank]].methods;
        return own == 0 || (own & methods) != 0;
    }
    /// Whether a handoff gets from one to the other.
    [[nodiscard]] static bool connected(const Site& from, const Site& to, bool same_host);
    /// By what a handoff between them is thought to go, the fastest way that both have: its number,
    /// from 1 on, and speed. On ranks that don't say where they are "shm" is the last choice.
    struct Method {
        std::uint32_t number = 0;  ///< 0 = not known
        TransferSpeed speed;
    };
    [[nodiscard]] Method method(const Site& from, const Site& to, bool same_host) const;
    /// Ranks that compute prompts and take requests; those that decode do where there are no
    /// others.
    [[nodiscard]] std::size_t prefill_ranks() const {
        return prefill_ranks_ > 0 ? prefill_ranks_ : decode_ranks_;
    }
    /// Whether a prompt could be computed by one rank and its output by another.
    [[nodiscard]] bool can_split() const { return split_prefill_ranks_ > 0 && decode_ranks_ > 0; }
    [[nodiscard]] bool any_taints() const { return tainted_ > 0; }
    [[nodiscard]] bool any_avoided() const { return avoided_ > 0; }

  private:
    struct Pending {
        std::uint64_t booking = 0;
        double prior_s = 0;
        std::size_t level = 1;
    };
    /// A time in which prompts were computed without a pause.
    struct Stretch {
        double took_s = 0;
        double work_s = 0;  ///< prior seconds
        std::vector<std::uint64_t> untold;
    };
    struct Rank {
        RankDescription description;
        estimate::RankSpeed speed;
        protocol::LoadReport load;
        std::vector<Pending> pending;  ///< by arrival, without a first token yet
        double busy_since_s = 0;       ///< of the stretch that is being measured
        double work_done_s = 0;        ///< in it, prior seconds
        std::uint32_t prompts_done = 0;
        std::vector<std::uint64_t> untold;  ///< of these, whose work is not in work_done_s
        std::deque<Stretch> late;           ///< that are over, but for what was not told
        bool present = false;
    };

    [[nodiscard]] std::optional<std::size_t> find_pending(RankIndex rank,
                                                          std::uint64_t booking) const;
    void prompt_done(RankIndex rank, std::size_t at, double now_s);
    void learn(RankIndex rank, double took_s, double work_s);
    void take_out(RankIndex rank, std::size_t at, double now_s);
    void refresh_speed(RankIndex rank);
    void learn_of_pool(double observed_s, double prior_s, double weight);
    void set_roles(RankIndex rank, std::uint8_t roles);
    [[nodiscard]] std::uint32_t site_number(const RankDescription& description);
    [[nodiscard]] std::uint32_t zone_number(const std::string& zone);

    std::vector<Rank> ranks_;
    estimate::ScaleFilter pool_scale_;  ///< of prefill, all ranks together: for those that are new
    double told_scale_ = 1.0;
    std::vector<RankIndex> free_;
    std::vector<std::string> zones_;
    Columns columns_;
    std::size_t tainted_ = 0;
    std::size_t avoided_ = 0;
    std::size_t prefill_ranks_ = 0;        ///< of role aggregated or prefill
    std::size_t split_prefill_ranks_ = 0;  ///< of role prefill
    std::size_t decode_ranks_ = 0;
    std::vector<Site> sites_;
    std::vector<std::string> methods_{"shm"};
    std::vector<TransferSpeed> speeds_{speed_of("shm")};  ///< of methods_
};

}  // namespace stator::router
