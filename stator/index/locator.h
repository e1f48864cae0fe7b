#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "stator/index/reserved.h"

namespace stator::index {

/// Spreads hashes that are not random, so that tables may take any of the bits.
inline std::uint64_t mixed(std::uint64_t hash) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = Wide{hash ^ 0x2d358dccaa6c78a5U} * 0x8bb84b93962eacc9U;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

/// Block → unit of the block store, 4 bytes each: the unit, and in the bits that units don't need
/// a part of the hash (the tag). Buckets are cache lines of 15 slots; what does not fit goes to the
/// next ones, and each bucket counts what passed it, so that a search ends and nothing moves when a
/// slot becomes free. Does not know the hashes: whoever calls checks whether the unit has the
/// block. The writer's own; no reader comes here.
class Locator {
  public:
    static constexpr std::size_t kFewestBuckets = 16;
    static constexpr std::uint32_t kNone = 0;
    static constexpr std::uint32_t kInserted = 0xffffffff;

    /// `buckets` is a power of two; units are below 2^unit_bits, at most 24.
    explicit Locator(int unit_bits, std::size_t buckets = kFewestBuckets);

    void prefetch(std::uint64_t hash) const {
        __builtin_prefetch(&buckets_[mixed(hash) & mask_], 1);
    }
    /// Calls has(unit) for the units that may hold it, until one says so; that unit, or kNone.
    template <typename Has>
    [[nodiscard]] std::uint32_t find(std::uint64_t hash, Has has) const {
        const std::uint64_t m = mixed(hash);
        for (std::size_t i = 0; i < kMaxProbes; ++i) {
            const Bucket& bucket = buckets_[(m + i) & mask_];
            for (std::uint32_t hits = same_tag(bucket, tag_of(m)); hits != 0; hits &= hits - 1) {
                const std::uint32_t unit = bucket.slots[std::countr_zero(hits)] & unit_mask_;
                if (unit != 0 && has(unit)) return unit;
            }
            if (bucket.passed == 0) break;
        }
        return kNone;
    }
    /// The same, and inserts it if it is not there: kInserted. kNone if its neighbourhood is full:
    /// too many with nearly the same hash.
    template <typename Has>
    [[nodiscard]] std::uint32_t find_or_insert(std::uint64_t hash, std::uint32_t unit, Has has) {
        const std::uint64_t m = mixed(hash);
        for (std::size_t i = 0; i < kMaxProbes; ++i) {
            Bucket& bucket = buckets_[(m + i) & mask_];
            for (std::uint32_t hits = same_tag(bucket, tag_of(m)); hits != 0; hits &= hits - 1) {
                const std::uint32_t there = bucket.slots[std::countr_zero(hits)] & unit_mask_;
                if (there != 0 && has(there)) return there;
            }
            if (bucket.passed != 0) continue;
            return insert(hash, unit) ? kInserted : kNone;
        }
        return insert(hash, unit) ? kInserted : kNone;
    }
    /// False if its neighbourhood is full.
    [[nodiscard]] bool insert(std::uint64_t hash, std::uint32_t unit) {
        const std::uint64_t m = mixed(hash);
        for (std::size_t i = 0; i < kMaxProbes; ++i) {
            Bucket& bucket = buckets_[(m + i) & mask_];
            const std::uint32_t empty = same(bucket, 0);
            if (empty == 0) continue;
            bucket.slots[std::countr_zero(empty)] = tag_of(m) | unit;
            for (std::size_t j = 0; j < i; ++j) ++buckets_[(m + j) & mask_].passed;
            ++size_;
            return true;
        }
        return false;
    }
    /// Nothing if it is not there.
    void erase(std::uint64_t hash, std::uint32_t unit) {
        const std::uint64_t m = mixed(hash);
        for (std::size_t i = 0; i < kMaxProbes; ++i) {
            Bucket& bucket = buckets_[(m + i) & mask_];
            const std::uint32_t hits = same(bucket, tag_of(m) | unit);
            if (hits == 0) continue;
            bucket.slots[std::countr_zero(hits)] = 0;
            for (std::size_t j = 0; j < i; ++j) --buckets_[(m + j) & mask_].passed;
            --size_;
            return;
        }
    }

    [[nodiscard]] bool crowded() const { return size_ >= capacity_ / 5 * 4; }
    [[nodiscard]] bool sparse() const { return capacity_ > kSmall && size_ < capacity_ / 8; }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::size_t buckets() const { return mask_ + 1; }
    [[nodiscard]] std::size_t memory_bytes() const { return (mask_ + 1) * sizeof(Bucket); }

  private:
    static constexpr std::uint32_t kSlots = 15;
    static constexpr std::size_t kMaxProbes = 64;
    static constexpr std::size_t kSmall = 4096;
    struct alignas(64) Bucket {
        std::uint32_t slots[kSlots];
        std::uint32_t passed;  // how many that belong here or before stand further on
    };
    [[nodiscard]] std::uint32_t tag_of(std::uint64_t m) const {
        return static_cast<std::uint32_t>(m >> 32) & ~unit_mask_;
    }
    /// A bit for each slot whose tag this is. Empty slots have tag 0 and unit 0.
    [[nodiscard]] std::uint32_t same_tag(const Bucket& bucket, std::uint32_t tag) const {
        return matching(bucket, ~unit_mask_, tag);
    }
    [[nodiscard]] static std::uint32_t same(const Bucket& bucket, std::uint32_t slot) {
        return matching(bucket, ~0U, slot);
    }
    [[nodiscard]] static std::uint32_t matching(const Bucket& bucket, std::uint32_t mask,
                                                std::uint32_t value) {
#if defined(__SSE2__)
        const __m128i masks = _mm_set1_epi32(static_cast<int>(mask));
        const __m128i values = _mm_set1_epi32(static_cast<int>(value));
        const auto* at = reinterpret_cast<const __m128i*>(&bucket);
        const auto lanes = [&](int i) {
            return _mm_cmpeq_epi32(_mm_and_si128(_mm_load_si128(at + i), masks), values);
        };
        const __m128i low = _mm_packs_epi32(lanes(0), lanes(1));
        const __m128i high = _mm_packs_epi32(lanes(2), lanes(3));
        return static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(low, high))) & 0x7fff;
#else
        std::uint32_t hits = 0;
        for (std::uint32_t i = 0; i < kSlots; ++i) {
            hits |= static_cast<std::uint32_t>((bucket.slots[i] & mask) == value) << i;
        }
        return hits;
#endif
    }

    ReservedArray<Bucket> buckets_;
    std::uint32_t unit_mask_;
    std::size_t mask_;
    std::size_t size_ = 0;
    std::size_t capacity_;
};

}  // namespace stator::index
