#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "stator/base/clock.h"
#include "stator/index/prediction_owners.h"

namespace stator::index {

/// When predicted blocks expire and whose they are: pieces [begin, end) of runs, by rank. The
/// writer's own.
class Predictions {
  public:
    struct Piece {
        std::uint32_t begin;
        std::uint32_t end;
        TimePoint expires_at;
        std::uint64_t tenant;
        std::uint64_t call;   ///< of predict(), counted; each has one tenant
        std::uint32_t first;  ///< which block of that request `begin` is
    };
    /// Blocks that are not predicted any more.
    struct Ended {
        std::uint32_t rank;
        std::uint32_t run;
        std::uint32_t begin;
        std::uint32_t end;
    };

    /// Each block of the piece belongs to its tenant from now on, and expires at the later of this
    /// and what it had.
    void set(std::uint32_t rank, std::uint32_t run, const Piece& piece);
    void erase(std::uint32_t rank, std::uint32_t run, std::uint32_t begin, std::uint32_t end);
    /// Takes out a piece whose time is over; false if there is none.
    bool take_expired(TimePoint now, Ended& out);
    /// Takes out what the tenant predicted longest ago, at most `most` blocks; false if there is
    /// nothing of it.
    bool take_oldest(std::uint64_t tenant, std::size_t most, Ended& out);
    [[nodiscard]] bool empty() const { return pieces_.empty(); }
    [[nodiscard]] const PredictionOwners& owners() const { return owners_; }
    [[nodiscard]] std::size_t memory_bytes() const;

  private:
    struct Due {
        TimePoint at;
        std::uint64_t key;
        bool operator<(const Due& other) const { return at > other.at; }  // the soonest on top
    };
    static std::uint64_t key(std::uint32_t rank, std::uint32_t run) {
        return std::uint64_t{rank} << 32 | run;
    }
    void push(Due due);
    void count_owners(std::uint64_t key, const std::vector<Piece>& before,
                      const std::vector<Piece>& after);

    std::unordered_map<std::uint64_t, std::vector<Piece>> pieces_;  // sorted, apart
    std::size_t count_ = 0;                                         // of pieces
    std::vector<Due> due_;  // a heap; may have entries of pieces that are no more
    PredictionOwners owners_;
};

}  // namespace stator::index
