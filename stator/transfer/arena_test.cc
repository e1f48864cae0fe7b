#include "stator/transfer/arena.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

namespace stator::transfer {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

class EveryArena : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Kinds, EveryArena, testing::Bool());

TEST_P(EveryArena, GivesPagesBackThatNobodyNeedsAnyMore) {
    auto arena = GetParam() ? Arena::make("test", 64 * kMiB) : Arena::make_private(64 * kMiB);
    ASSERT_TRUE(arena) << arena.error().message;
    auto kept = (*arena)->take(kMiB);
    ASSERT_TRUE(kept);
    ASSERT_TRUE((*kept)->populate());
    std::memset((*kept)->bytes().data(), 7, (*kept)->bytes().size());
    {
        auto range = (*arena)->take(32 * kMiB);
        ASSERT_TRUE(range);
        ASSERT_TRUE((*range)->populate());
        EXPECT_EQ((*arena)->resident_bytes(), 33 * kMiB);
    }
    (*arena)->trim(4 * kMiB);  // was in use since the last call
    (*arena)->trim(4 * kMiB);  // and since the last but one
    EXPECT_EQ((*arena)->resident_bytes(), 33 * kMiB);
    (*arena)->trim(4 * kMiB);
    EXPECT_LE((*arena)->resident_bytes(), 5 * kMiB);
    EXPECT_EQ((*arena)->taken_bytes(), kMiB);
    for (const std::byte b : (*kept)->bytes()) ASSERT_EQ(b, std::byte{7});
}

TEST(Arena, OthersMayReadItAndNoMore) {
    auto arena = Arena::make("test", kMiB);
    ASSERT_TRUE(arena);
    auto range = (*arena)->take(5);
    ASSERT_TRUE(range);
    std::memcpy((*range)->bytes().data(), "hello", 5);
    const int fd = (*arena)->read_only_fd();
    EXPECT_EQ(::mmap(nullptr, kMiB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    void* view = ::mmap(nullptr, kMiB, PROT_READ, MAP_SHARED, fd, 0);
    ASSERT_NE(view, MAP_FAILED);
    EXPECT_EQ(std::memcmp(static_cast<char*>(view) + (*range)->offset(), "hello", 5), 0);
    ::munmap(view, kMiB);
    EXPECT_EQ(::fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK, F_SEAL_SHRINK);
}

TEST(Arena, RefusesMoreThanItHas) {
    auto arena = Arena::make("test", kMiB);
    ASSERT_TRUE(arena);
    auto all = (*arena)->take(kMiB);
    ASSERT_TRUE(all);
    auto more = (*arena)->take(1);
    ASSERT_FALSE(more);
    EXPECT_EQ(more.error().code, ErrorCode::kExhausted);
    all->reset();
    EXPECT_TRUE((*arena)->take(1));
}

}  // namespace
}  // namespace stator::transfer
