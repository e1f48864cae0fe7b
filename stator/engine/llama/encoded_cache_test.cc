#include "stator/engine/llama/encoded_cache.h"

#include <gtest/gtest.h>

namespace stator::engine::llama {
namespace {

std::shared_ptr<const Encoded> encoded(std::size_t floats) {
    auto e = std::make_shared<Encoded>();
    e->rows.resize(floats);
    return e;
}

protocol::Digest named(std::uint8_t name) {
    protocol::Digest d{};
    d[0] = name;
    return d;
}

TEST(EncodedCache, TheLeastRecentlyUsedGoWhenItIsFull) {
    EncodedCache cache(100);
    cache.put(named(1), encoded(10));
    cache.put(named(2), encoded(10));
    EXPECT_EQ(cache.bytes(), 80U);
    EXPECT_NE(cache.find(named(1)), nullptr);
    EXPECT_EQ(cache.put(named(3), encoded(10)), 1U);
    EXPECT_EQ(cache.bytes(), 80U);
    EXPECT_EQ(cache.find(named(2)), nullptr);
    EXPECT_NE(cache.find(named(1)), nullptr);
    EXPECT_EQ(cache.put(named(4), encoded(26)), 0U);
    EXPECT_EQ(cache.find(named(4)), nullptr) << "larger than all of it";
    cache.put(named(1), encoded(10));
    EXPECT_EQ(cache.bytes(), 80U);
}

}  // namespace
}  // namespace stator::engine::llama
