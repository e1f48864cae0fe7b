#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>

#include "stator/router/route.h"

namespace stator::router {

/// Which rank a session was last sent to. Bounded: the least recently used session is forgotten
/// first; each is after `ttl` without a request. Not thread-safe.
class SessionTable {
  public:
    explicit SessionTable(std::size_t most) : most_(most) {}

    /// `name_hash` is the rank's, so that a rank that took another's place is not mistaken for it.
    void put(std::uint64_t session, RankIndex rank, std::uint64_t name_hash, Nanos now);
    struct Place {
        RankIndex rank;
        std::uint64_t name_hash;
    };
    [[nodiscard]] std::optional<Place> find(std::uint64_t session, Nanos now, Nanos ttl) const;
    [[nodiscard]] std::size_t size() const { return entries_.size(); }

  private:
    struct Entry {
        std::uint64_t session;
        Place place;
        Nanos used;
    };
    std::size_t most_;
    std::list<Entry> order_;  ///< the most recently used first
    std::unordered_map<std::uint64_t, std::list<Entry>::iterator> entries_;
};

}  // namespace stator::router
