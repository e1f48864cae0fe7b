#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "stator/engine/mock/block_pool.h"
#include "stator/engine/mock/core.h"
#include "stator/engine/mock/slow_tier.h"

namespace stator::engine::mock {

/// All KV memory of a rank: the device's blocks, the tiers behind them, and every change of what is
/// held for reuse, in order.
class Memory {
  public:
    explicit Memory(const CoreOptions& options);

    /// How far a prompt's blocks are here already: the first `device` of them in device memory, the
    /// next `slow` behind it.
    struct Found {
        std::uint32_t device = 0;
        std::uint32_t slow = 0;
    };
    [[nodiscard]] Found find(std::span<const SequenceHash> names) const;

    [[nodiscard]] BlockPool& device() { return device_; }
    [[nodiscard]] const BlockPool& device() const { return device_; }
    /// A nameless block. There must be one available. What has to go for it moves to the tiers.
    [[nodiscard]] BlockPool::BlockId allocate(Nanos now);
    /// Block `index` of `owner` is computed or copied: from now on it can be reused.
    void publish(BlockPool::BlockId block, std::span<const SequenceHash> names, std::uint32_t index,
                 RequestId owner);
    /// Starts to copy these blocks to the device; when they will be there.
    [[nodiscard]] Nanos read(std::span<const SequenceHash> names, Nanos now);
    void clear();

    [[nodiscard]] std::uint64_t slow_blocks() const { return host_.size() + disk_.size(); }
    [[nodiscard]] std::vector<SequenceHash> names(KvTier tier) const;
    void take_changes(std::vector<KvChange>& changes);

  private:
    void demote(const BlockPool::Evicted& evicted, Nanos now);
    void put_on_disk(const SlowTier::Block& block, Nanos now);
    KvChange& note(KvChange::Kind kind, KvTier tier, SequenceHash name);

    BlockPool device_;
    SlowTier host_;
    SlowTier disk_;
    std::vector<KvChange> changes_;
};

}  // namespace stator::engine::mock
