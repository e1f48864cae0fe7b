#include "stator/index/locator.h"

namespace stator::index {

Locator::Locator(int unit_bits, std::size_t buckets)
    : buckets_(buckets),
      unit_mask_((1U << unit_bits) - 1),
      mask_(buckets - 1),
      capacity_(buckets * kSlots) {
    buckets_.prefer_huge_pages();
}

}  // namespace stator::index
