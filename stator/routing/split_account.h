#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/router/route.h"

namespace stator::routing {

/// What was decided about prompts that could have a rank of their own, and how long it took until
/// who decodes had them: for people, nothing is chosen by it. Bounded. Not thread-safe.
class SplitAccount {
  public:
    static constexpr std::size_t kRecent = 1024;      ///< decisions that break_even() looks at
    static constexpr std::size_t kMostWays = 4096;    ///< pairs; of further ones nothing is kept
    static constexpr std::size_t kMostOpen = 65'536;  ///< handoffs under way; likewise

    /// `computed_tokens`: of the prompt, those cached where it went not included.
    void decided(std::uint32_t computed_tokens, bool split);
    /// No rank could take it, either way.
    void refused() { ++refused_; }

    /// A prefill leg of so many tokens has ended; its handoff is on the way.
    void prompt_computed(std::uint64_t booking, router::RankIndex from, router::RankIndex to,
                         std::uint32_t tokens, TimePoint now);
    /// Its decode leg has given the first token.
    void handed_over(std::uint64_t booking, TimePoint now);
    /// Unknown ones are ignored.
    void ended(std::uint64_t booking) { open_.erase(booking); }
    /// The rank is gone; its number may be given to another one.
    void forget(router::RankIndex rank);

    [[nodiscard]] std::uint64_t whole() const { return whole_; }
    [[nodiscard]] std::uint64_t split() const { return split_; }
    [[nodiscard]] std::uint64_t refused_count() const { return refused_; }
    /// From how many tokens to compute on prompts were split of late: the size that has fewest
    /// decisions on its wrong side. 0: none were; 1 + the largest: all were whole.
    [[nodiscard]] std::uint32_t break_even() const;

    struct Way {
        router::RankIndex from = router::kNoRank;
        router::RankIndex to = router::kNoRank;
        std::uint64_t handoffs = 0;
        /// From the prompt's end to the first token: the wait for a place, the bytes, a step. Of
        /// late: each handoff weighs a tenth less than the next.
        double mean_s = 0;
        double tokens_per_s = 0;
    };
    [[nodiscard]] std::vector<Way> ways() const;

  private:
    struct Open {
        router::RankIndex from;
        router::RankIndex to;
        std::uint32_t tokens;
        TimePoint since;
    };
    struct Sums {
        std::uint64_t handoffs = 0;
        double weight = 0;
        double seconds = 0;
        double tokens = 0;
    };

    std::uint64_t whole_ = 0;
    std::uint64_t split_ = 0;
    std::uint64_t refused_ = 0;
    std::vector<std::pair<std::uint32_t, bool>> recent_;  ///< a ring
    std::size_t next_ = 0;
    std::unordered_map<std::uint64_t, Open> open_;  ///< by booking
    std::map<std::pair<router::RankIndex, router::RankIndex>, Sums> ways_;
};

}  // namespace stator::routing
