#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/protocol/kv_event.h"

namespace stator::events {

/// The blocks one rank holds: what its events, applied in order, add up to. A block may lie in
/// several memories and is gone when none holds it. Storing a block again changes nothing; removing
/// one that is not there changes nothing; removing a parent leaves its children. A flat table,
/// because every block event of every publisher passes here. Of sparse groups it keeps no blocks,
/// only that there are some.
class KvMirror {
  public:
    /// One bit for each memory.
    using Tiers = std::uint8_t;
    [[nodiscard]] static constexpr Tiers bit(protocol::KvTier tier) {
        return static_cast<Tiers>(1U << static_cast<unsigned>(tier));
    }
    struct Block {
        tokens::SequenceHash sequence;
        tokens::BlockHash block;
        std::optional<tokens::SequenceHash> parent;
        Tiers tiers = bit(protocol::KvTier::kDevice);  ///< that hold it; never none
        auto operator<=>(const Block&) const = default;
    };

    void apply(const protocol::KvEvent& event);
    void clear();
    [[nodiscard]] std::size_t size() const { return size_; }
    /// The rank has stored blocks of a sparse group.
    [[nodiscard]] bool sparse() const { return sparse_; }
    [[nodiscard]] std::optional<Block> find(tokens::SequenceHash sequence) const;
    /// All blocks, by their sequence hash.
    [[nodiscard]] std::vector<Block> sorted() const;
    /// Appends the payload of a batch whose events, applied to nothing, give this state: chains of
    /// stored blocks, parents first, one memory after the other.
    void append_state(std::string& out) const;

    /// Same blocks with the same parents in the same memories; sparse groups or none.
    bool operator==(const KvMirror& other) const;

  private:
    /// How a slot is used: the memories that hold its block (none = a free slot), and kChild.
    using Use = std::uint8_t;
    static constexpr Use kFree = 0;
    static constexpr Use kChild = 0x80;
    struct Slot {
        std::uint64_t sequence = 0;
        std::uint64_t block = 0;
        std::uint64_t parent = 0;
    };
    struct Order;
    struct Run;

    [[nodiscard]] std::size_t home(std::uint64_t sequence) const;
    [[nodiscard]] std::size_t locate(std::uint64_t sequence) const;
    void store(const Slot& slot, Use use);
    void remove(std::uint64_t sequence, Tiers from);
    void grow();
    [[nodiscard]] Order order() const;
    [[nodiscard]] std::vector<Run> runs(const Order& order) const;

    std::vector<Slot> slots_;  // a power of two, at most 5/8 used; linear probing
    std::vector<Use> use_;     // beside them, so that probing touches little memory
    std::size_t size_ = 0;
    bool sparse_ = false;
    int shift_ = 64;
};

}  // namespace stator::events
