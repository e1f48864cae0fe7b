#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "stator/index/reserved.h"

namespace stator::index {

/// Arrays of 64-bit words in sizes of 4, 8, 16, … words. One writer; readers may read any word at
/// any time and must find out by themselves whether it was still theirs.
class HolderPool {
  public:
    static constexpr std::uint32_t kNone = 0;
    /// Size class c has 4 << c words.
    static std::uint32_t words_of(std::uint32_t c) { return 4U << c; }
    static std::uint32_t class_of(std::uint32_t words) {
        return words <= 4 ? 0 : static_cast<std::uint32_t>(std::bit_width(words - 1)) - 2;
    }

    explicit HolderPool(std::size_t words) : words_(words + (4U << kClasses)) {}

    /// The first word's number; kNone if all is used.
    [[nodiscard]] std::uint32_t allocate(std::uint32_t c);
    void free(std::uint32_t first, std::uint32_t c);
    [[nodiscard]] std::uint64_t get(std::uint32_t i) const {
        return words_[i].load(std::memory_order_relaxed);
    }
    void set(std::uint32_t i, std::uint64_t word) {
        words_[i].store(word, std::memory_order_relaxed);
    }
    void prefetch(std::uint32_t i) const { __builtin_prefetch(&words_[i]); }

    /// Gives the pages back to the system if nothing is used.
    void release_unused();
    [[nodiscard]] std::size_t used_bytes() const { return used_ * 8; }
    [[nodiscard]] std::size_t memory_bytes() const { return touched_ * 8; }

  private:
    static constexpr std::uint32_t kClasses = 16;
    static constexpr std::size_t kFirst = 4;  // word 0 stands for none

    ReservedArray<std::atomic<std::uint64_t>> words_;
    std::array<std::uint32_t, kClasses> free_{};
    std::size_t top_ = kFirst;
    std::size_t touched_ = kFirst;
    std::size_t used_ = 0;
};

}  // namespace stator::index
