#include "stator/engine/mock/resident_set.h"

namespace stator::engine::mock {

bool ResidentSet::use(std::uint64_t key, std::uint64_t size) {
    if (const auto found = where_.find(key); found != where_.end()) {
        order_.splice(order_.end(), order_, found->second);
        return true;
    }
    if (size > capacity_) return false;
    while (used_ + size > capacity_) {
        used_ -= order_.front().size;
        where_.erase(order_.front().key);
        order_.pop_front();
    }
    order_.push_back({key, size});
    where_.emplace(key, std::prev(order_.end()));
    used_ += size;
    return false;
}

void ResidentSet::clear() {
    order_.clear();
    where_.clear();
    used_ = 0;
}

}  // namespace stator::engine::mock
