#include "stator/router/rank_table.h"

#include <gtest/gtest.h>

namespace stator::router {
namespace {

RankDescription description() {
    RankDescription d;
    d.prefill.base_s = 0.001;
    return d;
}

double scale(const RankTable& table) { return table.speed(0).prefill_scale().scale(); }

TEST(RankTable, WhatIsToldLateTeachesTheSame) {
    RankTable told;
    RankTable late;
    for (RankTable* t : {&told, &late}) (void)t->add(description());
    for (std::uint64_t i = 1; i <= 30; ++i) {
        const double now = static_cast<double>(i);
        // Three prompts in a row, in a tenth of a second for each second of work.
        for (RankTable* t : {&told, &late}) {
            for (std::uint64_t n = 0; n < 3; ++n) t->enqueue(0, 3 * i + n, 1.0, 1, now);
        }
        for (std::uint64_t n = 0; n < 3; ++n) {
            const double at = now + 0.1 * static_cast<double>(n + 1);
            told.first_token(0, 3 * i + n, 1.0, at);
            // One of them says so at once.
            if (n == 1) {
                late.first_token(0, 3 * i + n, 1.0, at);
            } else {
                late.first_token_untold(0, 3 * i + n, at);
            }
        }
        const double before = scale(late);
        late.told(0, 3 * i + 2, 1.0);
        EXPECT_EQ(scale(late), before);
        late.told(0, 3 * i, 1.0);
        // The first few say little of a rank.
        if (i > 10) EXPECT_NE(scale(late), before);
        late.told(0, 3 * i, 1.0);  // once
        EXPECT_EQ(scale(late), scale(told)) << i;
    }
    EXPECT_NEAR(scale(told), 0.1, 0.05);
}

TEST(RankTable, WhatIsToldWhileOthersArePendingCounts) {
    RankTable told;
    RankTable late;
    for (RankTable* t : {&told, &late}) {
        (void)t->add(description());
        t->enqueue(0, 1, 1.0, 1, 0);
        t->enqueue(0, 2, 1.0, 1, 0);
    }
    told.first_token(0, 1, 1.0, 0.2);
    told.first_token(0, 2, 1.0, 0.4);
    late.first_token_untold(0, 1, 0.2);
    late.told(0, 1, 1.0);
    late.first_token(0, 2, 1.0, 0.4);
    EXPECT_EQ(scale(late), scale(told));
}

TEST(RankTable, WhatIsNeverToldIsForgotten) {
    RankTable table;
    (void)table.add(description());
    const double before = scale(table);
    for (std::uint64_t i = 1; i <= RankTable::kMostLate + 1; ++i) {
        const double now = static_cast<double>(i);
        table.enqueue(0, i, 1.0, 1, now);
        table.first_token_untold(0, i, now + 0.1);
    }
    table.told(0, 1, 1.0);
    EXPECT_EQ(scale(table), before);
    for (std::uint64_t i = 2; i <= 30; ++i) table.told(0, i, 1.0);
    EXPECT_NE(scale(table), before);
}

}  // namespace
}  // namespace stator::router
