#include "stator/engine/mock/slow_tier.h"

#include <algorithm>

namespace stator::engine::mock {
namespace {

double block_ns(std::uint64_t bytes, double gb_per_s) {
    return gb_per_s > 0 ? static_cast<double>(bytes) / gb_per_s : 0.0;
}

std::chrono::nanoseconds queue_copy(std::chrono::nanoseconds& free, std::chrono::nanoseconds now,
                                    double ns) {
    free = std::max(free, now) + std::chrono::nanoseconds(static_cast<std::int64_t>(ns));
    return free;
}

}  // namespace

SlowTier::SlowTier(std::uint32_t blocks, std::uint64_t block_bytes, double read_gb_per_s,
                   double write_gb_per_s)
    : capacity_(blocks),
      read_block_ns_(block_ns(block_bytes, read_gb_per_s)),
      write_block_ns_(block_ns(block_bytes, write_gb_per_s)) {}

SlowTier::Put SlowTier::put(const Block& block, std::chrono::nanoseconds now,
                            std::optional<Block>& evicted) {
    if (holds(block.name)) {
        touch(block.name);
        return Put::kThere;
    }
    if (write_free_ - now > kMaxWriteQueue) return Put::kDropped;
    queue_copy(write_free_, now, write_block_ns_);
    if (where_.size() == capacity_) {
        evicted = order_.front();
        where_.erase(order_.front().name.value);
        order_.pop_front();
    }
    order_.push_back(block);
    where_.emplace(block.name.value, std::prev(order_.end()));
    return Put::kStored;
}

void SlowTier::touch(SequenceHash name) {
    const auto found = where_.find(name.value);
    if (found != where_.end()) order_.splice(order_.end(), order_, found->second);
}

std::chrono::nanoseconds SlowTier::read(std::uint32_t blocks, std::chrono::nanoseconds now) {
    return queue_copy(read_free_, now, read_block_ns_ * blocks);
}

void SlowTier::clear() {
    order_.clear();
    where_.clear();
}

std::vector<SequenceHash> SlowTier::names() const {
    std::vector<SequenceHash> names;
    names.reserve(order_.size());
    for (const Block& block : order_) names.push_back(block.name);
    return names;
}

}  // namespace stator::engine::mock
