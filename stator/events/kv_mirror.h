#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stator/protocol/kv_event.h"

namespace stator::events {

/// The blocks one rank holds: what its events, applied in order, add up to. Storing a block again
/// changes nothing; removing one that is not there changes nothing; removing a parent leaves its
/// children. A flat table, because every block event of every publisher passes here.
class KvMirror {
  public:
    struct Block {
        tokens::SequenceHash sequence;
        tokens::BlockHash block;
        std::optional<tokens::SequenceHash> parent;
        auto operator<=>(const Block&) const = default;
    };

    void apply(const protocol::KvEvent& event);
    void clear();
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::optional<Block> find(tokens::SequenceHash sequence) const;
    /// All blocks, by their sequence hash.
    [[nodiscard]] std::vector<Block> sorted() const;
    /// Appends the payload of a batch whose events, applied to nothing, give this state: chains of
    /// stored blocks, parents first.
    void append_state(std::string& out) const;

    /// Same blocks with the same parents.
    bool operator==(const KvMirror& other) const;

  private:
    enum class Use : std::uint8_t { kFree, kRoot, kChild };
    struct Slot {
        std::uint64_t sequence = 0;
        std::uint64_t block = 0;
        std::uint64_t parent = 0;
    };
    struct Order;

    [[nodiscard]] std::size_t home(std::uint64_t sequence) const;
    [[nodiscard]] std::size_t locate(std::uint64_t sequence) const;
    void store(const Slot& slot, Use use);
    void remove(std::uint64_t sequence);
    void grow();
    [[nodiscard]] Order order() const;

    std::vector<Slot> slots_;  // a power of two, at most 5/8 used; linear probing
    std::vector<Use> use_;
    std::size_t size_ = 0;
    int shift_ = 64;
};

}  // namespace stator::events
