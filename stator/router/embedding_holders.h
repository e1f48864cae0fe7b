#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "stator/protocol/handoff.h"
#include "stator/router/route.h"

namespace stator::router {

/// Which encode ranks hold the embeddings of which media items: those that have made them, as long
/// as this remembers. Bounded: the item that was longest not asked for is forgotten first, and of
/// an item's ranks the one that was first. Not thread-safe.
class EmbeddingHolders {
  public:
    explicit EmbeddingHolders(std::size_t most_items = 65'536) : most_items_(most_items) {}

    void add(const protocol::Digest& item, RankIndex rank);
    /// The rank has nothing any more.
    void forget(RankIndex rank);
    /// Appends those that hold it, as overlaps of one block.
    void find(const protocol::Digest& item, std::vector<Overlap>& out);
    [[nodiscard]] std::size_t size() const { return by_digest_.size(); }

    static constexpr std::size_t kMostRanks = 4;

  private:
    struct Entry {
        protocol::Digest item{};
        std::vector<RankIndex> ranks;
    };
    struct Hash {
        std::size_t operator()(const protocol::Digest& digest) const;
    };
    std::size_t most_items_;
    std::list<Entry> by_use_;  ///< the last one used first
    std::unordered_map<protocol::Digest, std::list<Entry>::iterator, Hash> by_digest_;
};

}  // namespace stator::router
