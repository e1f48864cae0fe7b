#include "stator/engine/llama/huge_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <string>

#include "stator/base/log.h"

namespace stator::engine::llama {
namespace {

#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

constexpr std::uintptr_t kHugePage = 2ULL * 1024 * 1024;
constexpr std::uint64_t kLargeBuffer = 8ULL * 1024 * 1024;
constexpr std::uint64_t kCollapseAtOnce =
    512ULL * 1024 * 1024;  // copying more would delay the start
#ifdef MADV_COLLAPSE
constexpr int kCollapse = MADV_COLLAPSE;
#else
constexpr int kCollapse = 25;  // Linux 6.1; older C libraries do not name it
#endif

std::uint64_t hex(std::string_view text) {
    std::uint64_t value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value, 16);
    return value;
}

/// "Rss:      1234 kB" → bytes; 0 for another field.
std::uint64_t field_bytes(std::string_view line, std::string_view name) {
    if (!line.starts_with(name)) return 0;
    line.remove_prefix(name.size());
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    std::uint64_t kilobytes = 0;
    std::from_chars(line.data(), line.data() + line.size(), kilobytes);
    return kilobytes * 1024;
}

/// "7f00-7f10 rw-p 00000000 00:00 0 [name]": a private, writable mapping without a file or a name?
bool is_anonymous_header(std::string_view line, MemoryRange& range) {
    const std::size_t dash = line.find('-');
    const std::size_t space = line.find(' ');
    if (dash == std::string_view::npos || space == std::string_view::npos || dash > space)
        return false;
    range.begin = hex(line.substr(0, dash));
    range.end = hex(line.substr(dash + 1, space - dash - 1));
    const bool private_writable = line.substr(space + 1, 4) == "rw-p";
    const std::string_view rest = line.substr(std::min(line.size(), space + 6));
    return private_writable && rest.starts_with("00000000 00:00 0") &&
           rest.find_first_not_of(' ', 16) == std::string_view::npos;
}

bool is_header(std::string_view line) {
    return !line.empty() && (line.front() < 'A' || line.front() > 'Z') && line.contains('-');
}

}  // namespace

std::vector<MemoryRange> huge_page_candidates(std::string_view smaps,
                                              std::uint64_t at_least_bytes) {
    std::vector<MemoryRange> out;
    MemoryRange range;
    bool anonymous = false;
    while (!smaps.empty()) {
        const std::size_t end = std::min(smaps.find('\n'), smaps.size());
        const std::string_view line = smaps.substr(0, end);
        smaps.remove_prefix(std::min(end + 1, smaps.size()));
        if (is_header(line)) {
            anonymous = is_anonymous_header(line, range);
            continue;
        }
        const std::uint64_t resident = anonymous ? field_bytes(line, "Rss:") : 0;
        const std::uint64_t size = range.end - range.begin;
        if (resident == 0 || size < at_least_bytes || resident < size / 10 * 9) continue;
        const MemoryRange whole{(range.begin + kHugePage - 1) / kHugePage * kHugePage,
                                range.end / kHugePage * kHugePage};
        if (whole.begin < whole.end) out.push_back(whole);
    }
    return out;
}

std::uint64_t use_huge_pages() {
    if (kSanitized) return 0;
    std::ifstream file("/proc/self/smaps");
    const std::string smaps{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    std::uint64_t bytes = 0;
    std::uint64_t collapsed = 0;
    for (const MemoryRange& range : huge_page_candidates(smaps, kLargeBuffer)) {
        auto* begin =
            reinterpret_cast<void*>(range.begin);  // NOLINT: an address the kernel gave us
        const std::size_t size = range.end - range.begin;
        if (madvise(begin, size, MADV_HUGEPAGE) != 0) continue;
        // Now rather than whenever the kernel comes by; page by page, because one that can't be
        // would end a call over the whole range.
        for (std::size_t at = 0; at < size && collapsed < kCollapseAtOnce; at += kHugePage) {
            madvise(static_cast<char*>(begin) + at, kHugePage, kCollapse);
            collapsed += kHugePage;
        }
        bytes += size;
    }
    log_debug("Large buffers are backed by huge pages where the kernel has them.",
              {{"bytes", bytes}});
    return bytes;
}

}  // namespace stator::engine::llama
