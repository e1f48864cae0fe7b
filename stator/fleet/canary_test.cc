#include "stator/fleet/canary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::fleet {
namespace {

using protocol::FinishReason;
using protocol::Leg;
using protocol::Role;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

std::shared_ptr<protocol::GenerateRequest> canary_for(std::vector<Role> roles) {
    protocol::WorkerInfo worker;
    worker.roles = std::move(roles);
    worker.card.vocab_size = 100;
    return canary_request(worker);
}

TEST(Canary, AsksForWhatTheRolesCompute) {
    for (const Role role : {Role::kAggregated, Role::kDecode}) {
        for (auto roles : {std::vector{role}, std::vector{Role::kEncode, Role::kPrefill, role}}) {
            const auto whole = canary_for(std::move(roles));
            EXPECT_EQ(whole->leg, Leg::kWhole);
            EXPECT_THAT(whole->prompt, ElementsAre(1U));
            EXPECT_EQ(whole->max_tokens, 1U);
        }
    }
    const auto prefill = canary_for({Role::kEncode, Role::kPrefill});
    EXPECT_EQ(prefill->leg, Leg::kPrefill);
    EXPECT_THAT(prefill->prompt, ElementsAre(1U, 1U)) << "one token leaves nothing to hand over";
    const auto encode = canary_for({Role::kEncode});
    EXPECT_EQ(encode->leg, Leg::kEncode);
    EXPECT_THAT(encode->prompt, IsEmpty());
    ASSERT_THAT(encode->media, SizeIs(1));
    const auto& picture = *encode->media[0].content;
    EXPECT_THAT(picture.pixels, SizeIs(picture.width * picture.height * 3));
}

TEST(Canary, ComesBackWithATokenOrAHandoff) {
    protocol::StepEvent event;
    EXPECT_FALSE(is_back(event));
    event.finish = FinishReason::kError;
    EXPECT_FALSE(is_back(event));
    event.finish = FinishReason::kHandoff;
    EXPECT_TRUE(is_back(event));
    event.finish.reset();
    event.count = 1;
    EXPECT_TRUE(is_back(event));
}

}  // namespace
}  // namespace stator::fleet
