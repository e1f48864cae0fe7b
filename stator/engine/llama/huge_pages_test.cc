#include "stator/engine/llama/huge_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::engine::llama {
namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;

TEST(HugePages, TakesLargeAnonymousMappingsThatAreInUse) {
    // Address ranges of 16 MiB each: weights, a stack of which little is touched, a file, a named
    // mapping, shared memory.
    const char* smaps =
        "7f0000100000-7f0001100000 rw-p 00000000 00:00 0 \n"
        "Size:              16384 kB\n"
        "Rss:               16384 kB\n"
        "AnonHugePages:         0 kB\n"
        "7f1000000000-7f1001000000 rw-p 00000000 00:00 0 \n"
        "Rss:                  64 kB\n"
        "7f2000000000-7f2001000000 rw-p 00000000 08:01 77   /models/a-b.gguf\n"
        "Rss:               16384 kB\n"
        "7f3000000000-7f3001000000 rw-p 00000000 00:00 0    [stack]\n"
        "Rss:               16384 kB\n"
        "7f4000000000-7f4001000000 rw-s 00000000 00:00 0 \n"
        "Rss:               16384 kB\n"
        "VmFlags: rd wr sh\n";
    EXPECT_THAT(huge_page_candidates(smaps, 8 * kMiB),
                testing::ElementsAre(MemoryRange{0x7f0000200000, 0x7f0001000000}))
        << "cut to whole huge pages";
    EXPECT_TRUE(huge_page_candidates(smaps, 32 * kMiB).empty());
}

TEST(HugePages, BrokenTextIsHarmless) {
    EXPECT_TRUE(huge_page_candidates("", 1).empty());
    EXPECT_TRUE(huge_page_candidates("-\nRss: 99999999 kB", 1).empty());
    EXPECT_TRUE(huge_page_candidates("zz-yy rw-p 00000000 00:00 0\nRss:", 1).empty());
}

TEST(HugePages, AskingNeverFails) { (void)use_huge_pages(); }

}  // namespace
}  // namespace stator::engine::llama
