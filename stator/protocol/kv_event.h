#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>
#include <vector>

#include "stator/base/strong.h"
#include "stator/tokens/token.h"

namespace stator::protocol {

/// Position in one rank's stream of events; starts at 1, no gaps.
using EventSeq = Strong<std::uint64_t, struct EventSeqTag>;

/// One block whose KV a rank now holds. `tokens` has exactly the pool's block size, or nothing
/// where the block only goes from one memory to another.
struct StoredBlock {
    tokens::BlockHash block;
    tokens::SequenceHash sequence;
    std::vector<tokens::TokenId> tokens;
    bool operator==(const StoredBlock&) const = default;
};

/// In which memory of a rank a block's KV lies. A block may lie in several.
enum class KvTier : std::uint8_t { kDevice, kHost, kDisk };
std::string_view to_string(KvTier tier);  ///< "device", "host", "disk"

/// Which of a model's KV a block is of. Models with sliding windows or state spaces keep several
/// groups: their prefix can be reused as far as all of them reach.
enum class KvGroup : std::uint8_t {
    kDense,   ///< of all tokens
    kSparse,  ///< of the last ones, or of some: a window, a state
};

/// Blocks stored, in order, each the child of the one before; the first is the child of `parent`
/// (none = a root).
struct KvStored {
    std::optional<tokens::SequenceHash> parent;
    std::vector<StoredBlock> blocks;
    KvTier tier = KvTier::kDevice;
    KvGroup group = KvGroup::kDense;
    bool operator==(const KvStored&) const = default;
};

/// No longer in that memory; perhaps in another.
struct KvRemoved {
    std::vector<tokens::SequenceHash> sequences;
    KvTier tier = KvTier::kDevice;
    KvGroup group = KvGroup::kDense;
    bool operator==(const KvRemoved&) const = default;
};

/// Nothing is left in any memory.
struct KvCleared {
    bool operator==(const KvCleared&) const = default;
};

/// A change of one rank's prefix cache. Replaying a rank's events from 1 gives exactly the blocks
/// it holds.
struct KvEvent {
    EventSeq seq;
    std::variant<KvStored, KvRemoved, KvCleared> what;
    bool operator==(const KvEvent&) const = default;
};

}  // namespace stator::protocol
