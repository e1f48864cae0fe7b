#include "stator/transfer/range_allocator.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <vector>

namespace stator::transfer {
namespace {

constexpr std::uint64_t kUnit = 16;
constexpr std::uint64_t kUnits = 64;

/// The same by a list of units: slow and plain.
class Units {
  public:
    std::optional<std::uint64_t> take(std::uint64_t bytes) {
        const std::uint64_t want = bytes == 0 ? 1 : (bytes + kUnit - 1) / kUnit;
        for (std::uint64_t at = 0; at + want <= kUnits; ++at) {
            bool free = true;
            for (std::uint64_t i = at; i < at + want; ++i) free = free && owner_[i] == 0;
            if (!free) continue;
            ++last_;
            for (std::uint64_t i = at; i < at + want; ++i) owner_[i] = last_;
            return at * kUnit;
        }
        return std::nullopt;
    }
    void give_back(std::uint64_t offset) {
        const int who = owner_[offset / kUnit];
        for (auto& o : owner_) {
            if (o == who) o = 0;
        }
    }
    [[nodiscard]] std::uint64_t taken() const {
        std::uint64_t n = 0;
        for (const int o : owner_) n += o != 0 ? kUnit : 0;
        return n;
    }

  private:
    std::vector<int> owner_ = std::vector<int>(kUnits);
    int last_ = 0;
};

TEST(RangeAllocator, DoesWhatAListOfUnitsDoes) {
    EXPECT_TRUE(rc::check([](const std::vector<std::uint16_t>& steps) {
        RangeAllocator allocator(kUnit * kUnits + 5, kUnit);
        Units oracle;
        std::vector<std::uint64_t> held;
        for (const std::uint16_t step : steps) {
            if (step % 3 == 0 && !held.empty()) {
                const std::size_t which = (step / 3) % held.size();
                allocator.give_back(held[which]);
                oracle.give_back(held[which]);
                held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
            } else {
                const std::uint64_t bytes = (step / 3) % (kUnit * 12);
                const auto offset = allocator.take(bytes);
                RC_ASSERT(offset == oracle.take(bytes));
                if (offset) held.push_back(*offset);
            }
            RC_ASSERT(allocator.taken_bytes() == oracle.taken());
        }
        for (const auto offset : held) allocator.give_back(offset);
        RC_ASSERT(allocator.free_ranges().size() == 1U);
        RC_ASSERT(allocator.free_ranges().begin()->second == kUnit * kUnits);
    }));
}

TEST(RangeAllocator, NeverGivesMoreThanThereIs) {
    RangeAllocator allocator(4096, 4096);
    EXPECT_FALSE(allocator.take(4097));
    EXPECT_FALSE(allocator.take(~std::uint64_t{0}));
    EXPECT_TRUE(allocator.take(4096));
    EXPECT_FALSE(allocator.take(1));
    RangeAllocator none(0, 4096);
    EXPECT_FALSE(none.take(0));
}

}  // namespace
}  // namespace stator::transfer
