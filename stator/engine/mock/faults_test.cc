#include "stator/engine/mock/faults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::engine::mock {
namespace {

using namespace std::chrono_literals;
using Kind = Fault::Kind;

FaultPlan plan(std::string_view text, std::uint32_t worker = 0) {
    const auto faults = parse_faults(text);
    EXPECT_TRUE(faults) << faults.error().message;
    return FaultPlan(*faults, worker);
}

TEST(Faults, ReadsEveryKind) {
    const auto faults = parse_faults(
        "crash@30s, hang@10s+5s,slow@20s+1.5m:x4,drop-events@500ms+2s:0.5,"
        "wrong-tokens@1h+1s , worker=3:crash@0s,drop-events@1s+1s,"
        "lose-events@1s+2s:0.05,wrong-template@3s+1s,changed-hash-seed@5s+2s,"
        "lose-handoffs@1s+2s:0.25");
    ASSERT_TRUE(faults) << faults.error().message;
    EXPECT_EQ(*faults,
              (std::vector<Fault>{
                  {.kind = Kind::kCrash, .at = 30s},
                  {.kind = Kind::kHang, .at = 10s, .length = 5s},
                  {.kind = Kind::kSlow, .at = 20s, .length = 90s, .factor = 4},
                  {.kind = Kind::kDropEvents, .at = 500ms, .length = 2s, .probability = 0.5},
                  {.kind = Kind::kWrongTokens, .at = 1h, .length = 1s},
                  {.kind = Kind::kCrash, .worker = 3},
                  {.kind = Kind::kDropEvents, .at = 1s, .length = 1s},
                  {.kind = Kind::kLoseEvents, .at = 1s, .length = 2s, .probability = 0.05},
                  {.kind = Kind::kWrongTemplate, .at = 3s, .length = 1s},
                  {.kind = Kind::kChangedHashSeed, .at = 5s, .length = 2s},
                  {.kind = Kind::kLoseHandoffs, .at = 1s, .length = 2s, .probability = 0.25},
              }));
    const FaultPlan all(*faults, 0);
    EXPECT_EQ(all.first_lie(), 1s);
    EXPECT_EQ(all.lose_probability(2s), 0.05);
    EXPECT_EQ(all.lose_probability(3s), 0);
    EXPECT_EQ(all.handoff_loss(2s), 0.25);
    EXPECT_EQ(all.handoff_loss(3s), 0);
    EXPECT_TRUE(all.wrong_template(3s));
    EXPECT_FALSE(all.wrong_template(4s));
    EXPECT_TRUE(all.changed_hash_seed(6999ms));
    EXPECT_FALSE(all.changed_hash_seed(7s));
    EXPECT_EQ(all.hash_seed_repaired(), std::vector<std::chrono::nanoseconds>{7s});
    EXPECT_FALSE(plan("crash@1s, drop-events@1s+1s").first_lie());
    EXPECT_TRUE(parse_faults("")->empty());
    EXPECT_TRUE(parse_faults("  ")->empty());
}

TEST(Faults, SaysWhichFaultIsWrongAndWhy) {
    struct Wrong {
        std::string_view text;
        std::string_view says;
    };
    for (const auto& [text, says] : {
             Wrong{"explode@3s", "\"explode@3s\" is none of"},
             Wrong{"crash", "is none of"},
             Wrong{"crash@30s,", "the fault \"\" is none of"},
             Wrong{"hang@10s", "needs a length"},
             Wrong{"crash@10s+3s", "what has crashed stays so"},
             Wrong{"hang@ten+3s", "no time that can be read: \"ten\""},
             Wrong{"hang@10+3s", "no time that can be read: \"10\""},
             Wrong{"hang@-1s+3s", "no time that can be read"},
             Wrong{"hang@1s+0s", "no length"},
             Wrong{"hang@1s+99999h", "no length"},
             Wrong{"slow@1s+1s", "how many times as slow"},
             Wrong{"slow@1s+1s:4", "how many times as slow"},
             Wrong{"slow@1s+1s:x0", "how many times as slow"},
             Wrong{"slow@1s+1s:xnan", "how many times as slow"},
             Wrong{"drop-events@1s+1s:2", "a probability from 0 to 1"},
             Wrong{"hang@1s+1s:x2", "takes nothing after a colon, not \"x2\""},
             Wrong{"worker=x:crash@1s", "a worker's number"},
             Wrong{"worker=4", "a worker's number"},
             Wrong{"worker=4:", "is none of"},
         }) {
        const auto faults = parse_faults(text);
        ASSERT_FALSE(faults) << text;
        EXPECT_EQ(faults.error().code, ErrorCode::kInvalidArgument);
        EXPECT_THAT(faults.error().message, testing::HasSubstr(says)) << text;
    }
}

TEST(FaultPlan, IsForOneWorker) {
    constexpr std::string_view kText = "worker=1:crash@9s,worker=1:crash@7s,worker=2:hang@1s+1s";
    EXPECT_EQ(plan(kText, 1).crash(), 7s);
    EXPECT_EQ(plan(kText, 0).crash(), std::nullopt);
    EXPECT_EQ(plan(kText, 1).after_hang(1s), 1s);
    EXPECT_EQ(plan(kText, 2).after_hang(1s), 2s);
    EXPECT_EQ(plan("crash@3s", 17).crash(), 3s);
}

TEST(FaultPlan, AHangHoldsUpWhatRunsAndWhatWouldBegin) {
    const FaultPlan p = plan("hang@10s+5s,hang@14s+3s,hang@30s+1s");
    EXPECT_EQ(p.after_hang(9s), 9s);
    EXPECT_EQ(p.after_hang(10s), 17s);
    EXPECT_EQ(p.after_hang(16s), 17s);
    EXPECT_EQ(p.after_hang(17s), 17s);
    EXPECT_EQ(p.step_end(1s, 2s), 3s);
    EXPECT_EQ(p.step_end(8s, 3s), 18s);   // 7 s of hangs that overlap
    EXPECT_EQ(p.step_end(8s, 20s), 36s);  // and the third
    EXPECT_EQ(p.step_end(17s, 1s), 18s);
}

TEST(FaultPlan, WindowsBeginAndEnd) {
    const FaultPlan p = plan("slow@20s+10s:x4,drop-events@5s+2s:0.5,wrong-tokens@40s+1s");
    EXPECT_EQ(p.step_end(19s, 1s), 20s);
    EXPECT_EQ(p.step_end(20s, 1s), 24s);
    EXPECT_EQ(p.step_end(30s, 1s), 31s);
    EXPECT_EQ(p.drop_probability(4s), 0.0);
    EXPECT_EQ(p.drop_probability(5s), 0.5);
    EXPECT_EQ(p.drop_probability(7s), 0.0);
    EXPECT_FALSE(p.wrong_tokens(39s));
    EXPECT_TRUE(p.wrong_tokens(40s));
    EXPECT_FALSE(p.wrong_tokens(41s));
}

}  // namespace
}  // namespace stator::engine::mock
