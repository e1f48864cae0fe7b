#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace stator::engine::llama {

/// A stretch of this process's memory.
struct MemoryRange {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    bool operator==(const MemoryRange&) const = default;
};

/// From the text of /proc/PID/smaps: private anonymous mappings of at least `at_least_bytes` that
/// are almost wholly in use (weights, KV cache), in whole 2 MiB pages. Thread stacks and reserves
/// are not: they are mostly untouched.
[[nodiscard]] std::vector<MemoryRange> huge_page_candidates(std::string_view smaps,
                                                            std::uint64_t at_least_bytes);

/// Asks the kernel to back the model's large buffers with huge pages. Decoding streams all weights
/// for every token; with 4 KiB pages the prefetchers stop at each page's end, which costs 5 %
/// (docs/adr/0006). Returns the bytes asked for; 0 where the system has no /proc or in sanitizer
/// builds, whose shadow memory must be left alone. Never fails: it is a hint.
std::uint64_t use_huge_pages();

}  // namespace stator::engine::llama
