#include "stator/engine/llama/kv_blob.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace stator::engine::llama {
namespace {

struct Shape {
    std::size_t layers = 3;
    std::uint64_t key_bytes = 8;
    std::uint64_t value_bytes = 6;
    bool extended = false;
    bool values = true;
};

template <class T>
void put(std::vector<std::byte>& out, T value) {
    const auto* p = reinterpret_cast<const std::byte*>(&value);
    out.insert(out.end(), p, p + sizeof value);
}

/// What llama.cpp would write; positions in the order of cells, which need not be theirs.
std::vector<std::byte> state(const Shape& shape, const std::vector<std::int32_t>& positions) {
    std::vector<std::byte> out;
    put<std::uint32_t>(out, 0xaf143cd8);
    put<std::int32_t>(out, 16);
    put<std::uint32_t>(out, 1);
    put<std::uint32_t>(out, static_cast<std::uint32_t>(positions.size()));
    for (const auto p : positions) {
        put<std::int32_t>(out, p);
        put<std::uint32_t>(out, 1);
        if (shape.extended) {
            for (int i = 0; i < 3; ++i) put<std::int32_t>(out, 7);
        }
        put<std::int32_t>(out, 16);
    }
    put<std::uint32_t>(out, 0);
    put<std::uint32_t>(out, static_cast<std::uint32_t>(shape.layers));
    put<std::uint32_t>(out, 0);
    put<std::uint32_t>(out, 0);
    for (std::size_t part = 0; part < (shape.values ? 2 : 1); ++part) {
        for (std::size_t i = 0; i < shape.layers; ++i) {
            const auto row = part == 0 ? shape.key_bytes : shape.value_bytes;
            put<std::int32_t>(out, 1);
            put<std::uint64_t>(out, row);
            out.resize(out.size() + row * positions.size(), std::byte{0x5a});
        }
    }
    return out;
}

TEST(KvBlob, IsLearntFromAStateAndTellsOthersSizes) {
    for (const bool extended : {false, true}) {
        for (const bool values : {false, true}) {
            const Shape shape{.extended = extended, .values = values};
            const auto learnt = KvBlobFormat::learn(state(shape, {0}), 1);
            ASSERT_TRUE(learnt);
            const auto other = state(shape, {12, 10, 11, 13});
            EXPECT_EQ(learnt->bytes(4), other.size());
            EXPECT_EQ(learnt->why_not(other, 10, 4), "");
            EXPECT_EQ(KvBlobFormat::learn(other, 4)->text(), learnt->text());
        }
    }
    EXPECT_NE(KvBlobFormat::learn(state({}, {0}), 1)->text(),
              KvBlobFormat::learn(state({.value_bytes = 10}, {0}), 1)->text());
}

TEST(KvBlob, OtherFormsAreNotLearnt) {
    auto transposed = state({}, {0});
    transposed[16 + 12] = std::byte{1};
    EXPECT_FALSE(KvBlobFormat::learn(transposed, 1));
    EXPECT_FALSE(KvBlobFormat::learn(state({}, {0, 1}), 1));
    EXPECT_FALSE(KvBlobFormat::learn({}, 1));
    auto longer = state({}, {0});
    longer.push_back({});
    EXPECT_FALSE(KvBlobFormat::learn(longer, 1));
}

TEST(KvBlob, WrongPositionsSizesAndHeadersAreFound) {
    const auto format = *KvBlobFormat::learn(state({}, {0}), 1);
    EXPECT_EQ(format.why_not(state({}, {4, 5, 6}), 4, 3), "");
    EXPECT_NE(format.why_not(state({}, {4, 5, 6}), 3, 3), "");
    EXPECT_NE(format.why_not(state({}, {4, 5, 6}), 5, 3), "");
    EXPECT_NE(format.why_not(state({}, {4, 5, 5}), 4, 3), "");
    EXPECT_NE(format.why_not(state({}, {4, 5, -1}), 4, 3), "");
    EXPECT_NE(format.why_not(state({}, {4, 5, 6}), 4, 2), "");
    EXPECT_NE(format.why_not(state({.layers = 4}, {4}), 4, 1), "");
    EXPECT_NE(format.why_not({}, 4, 0), "");
}

TEST(KvBlob, ACutOrFlippedStateIsFoundOrHasItsFormStill) {
    const Shape shape;
    const auto format = *KvBlobFormat::learn(state(shape, {0}), 1);
    const auto good = state(shape, {4, 5, 6});
    for (std::size_t n = 0; n < good.size(); ++n) {
        EXPECT_NE(format.why_not(std::span(good).first(n), 4, 3), "");
    }
    std::size_t found = 0;
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
        auto bad = good;
        bad[bit / 8] ^= std::byte{1} << (bit % 8);
        if (!format.why_not(bad, 4, 3).empty()) ++found;
    }
    // All bits but those of the rows and of the sequences' numbers, which are not read.
    const std::size_t rows = 3 * 3 * (8 + 6);
    const std::size_t numbers = 4 + 3 * 4;
    EXPECT_EQ(found, (good.size() - rows - numbers) * 8);
}

}  // namespace
}  // namespace stator::engine::llama
