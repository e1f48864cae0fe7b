#include "stator/planner/profile_fit.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace stator::planner {
namespace {

TEST(ProfileFit, FindsTheCostsThatMadeTheFigures) {
    std::vector<PromptPoint> prompts;
    for (const double n : {128.0, 512.0, 2048.0, 8192.0}) prompts.push_back({n, 0.02 + n * 1.6e-5});
    std::vector<DecodePoint> decodes;
    for (const double n : {1.0, 4.0, 16.0, 64.0}) decodes.push_back({n, 0.0043 + n * 4.2e-5});
    const auto cost = fit_step_cost(prompts, decodes);
    ASSERT_TRUE(cost) << cost.error().message;
    EXPECT_NEAR(cost->prefill_token_s, 1.6e-5, 1e-9);
    EXPECT_NEAR(cost->base_s, 0.0043, 1e-6);
    EXPECT_NEAR(cost->decode_token_s, 4.2e-5, 1e-8);
    EXPECT_EQ(cost->image_s, 0);
}

TEST(ProfileFit, NoiseOfAFewPercentStaysOne) {
    std::vector<PromptPoint> prompts;
    double sign = 1;
    for (const double n : {128.0, 512.0, 2048.0, 8192.0}) {
        prompts.push_back({n, (0.02 + n * 1.6e-5) * (1 + 0.03 * (sign = -sign))});
    }
    const auto cost = fit_step_cost(prompts, std::vector<DecodePoint>{{1, 0.01}});
    ASSERT_TRUE(cost) << cost.error().message;
    EXPECT_NEAR(cost->prefill_token_s, 1.6e-5, 1.6e-6);
    EXPECT_DOUBLE_EQ(cost->base_s, 0.01);
    EXPECT_EQ(cost->decode_token_s, 0);
}

TEST(ProfileFit, CostsAreNeverNegative) {
    const auto falling = fit_step_cost(std::vector<PromptPoint>{{100, 0.5}, {1000, 0.4}},
                                       std::vector<DecodePoint>{{1, 0.02}, {8, 0.01}});
    ASSERT_TRUE(falling) << falling.error().message;
    EXPECT_EQ(falling->prefill_token_s, 0);
    EXPECT_EQ(falling->decode_token_s, 0);
    EXPECT_GT(falling->base_s, 0);
    const auto steep = fit_step_cost(std::vector<PromptPoint>{{100, 0.1}, {1000, 2.0}},
                                     std::vector<DecodePoint>{{1, 0.001}, {8, 0.02}});
    ASSERT_TRUE(steep) << steep.error().message;
    EXPECT_GE(steep->base_s, 0);
    EXPECT_GT(steep->decode_token_s, 0);
}

TEST(ProfileFit, TooLittleOrNonsenseIsSaid) {
    const std::vector<DecodePoint> one{{1, 0.01}};
    EXPECT_FALSE(fit_step_cost({}, one));
    EXPECT_FALSE(fit_step_cost(std::vector<PromptPoint>{{100, 0.1}, {100, 0.2}}, one));
    EXPECT_FALSE(fit_step_cost(std::vector<PromptPoint>{{100, 0.1}, {200, 0.2}}, {}));
    EXPECT_FALSE(fit_step_cost(std::vector<PromptPoint>{{100, 0.1}, {200, 0.0}}, one));
    const double infinite = std::numeric_limits<double>::infinity();
    EXPECT_FALSE(fit_step_cost(std::vector<PromptPoint>{{100, 0.1}, {200, infinite}}, one));
}

}  // namespace
}  // namespace stator::planner
