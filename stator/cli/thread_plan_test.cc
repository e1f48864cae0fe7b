#include "stator/cli/thread_plan.h"

#include <gtest/gtest.h>

namespace stator::cli {
namespace {

TEST(ThreadPlan, LeavesCoresForBoth) {
    EXPECT_EQ(plan_threads(1, 0, 0), (ThreadPlan{1, 1}));
    EXPECT_EQ(plan_threads(2, 0, 0), (ThreadPlan{1, 1}));
    EXPECT_EQ(plan_threads(3, 0, 0), (ThreadPlan{1, 2}));
    EXPECT_EQ(plan_threads(8, 0, 0), (ThreadPlan{4, 4}));
    EXPECT_EQ(plan_threads(64, 0, 0), (ThreadPlan{32, 16}));
}

TEST(ThreadPlan, WhatWasAskedForIsKept) {
    EXPECT_EQ(plan_threads(8, 7, 0), (ThreadPlan{7, 1}));
    EXPECT_EQ(plan_threads(8, 12, 0), (ThreadPlan{12, 1}));
    EXPECT_EQ(plan_threads(2, 0, 5), (ThreadPlan{1, 5}));
    EXPECT_EQ(plan_threads(64, 0, 40), (ThreadPlan{32, 40}));
}

}  // namespace
}  // namespace stator::cli
