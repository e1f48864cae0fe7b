#include "stator/media/resolver.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

namespace stator::media {
namespace {

using namespace std::chrono_literals;

std::vector<IpAddress> some() { return {*parse_ip_address("192.0.2.1")}; }

TEST(Resolver, FindsThisMachineAndNotWhatIsNoName) {
    const auto system = system_resolver();
    const auto found = system->resolve("localhost", 10s);
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_FALSE(why_not_public(found->front()).empty());
    const auto none = system->resolve("no name", 10s);
    ASSERT_FALSE(none);
    EXPECT_NE(none.error().message.find("no name"), std::string::npos);
}

TEST(Resolver, ASlowNameServiceIsNotWaitedForAndItsLookUpsAreBounded) {
    std::promise<void> answer;
    std::shared_future<void> answered = answer.get_future();
    std::promise<void> back;
    std::atomic<int> left{2};
    const auto resolver = make_resolver(
        [&, answered](const std::string& host) -> Result<std::vector<IpAddress>> {
            if (host == "fast.example") return some();
            answered.wait();
            if (--left == 0) back.set_value();
            return some();
        },
        2);
    for (int i = 0; i < 2; ++i) {
        const auto slow = resolver->resolve("slow.example", 10ms);
        ASSERT_FALSE(slow);
        EXPECT_EQ(slow.error().code, ErrorCode::kDeadlineExceeded);
        EXPECT_NE(slow.error().message.find("slow.example"), std::string::npos);
    }
    const auto refused = resolver->resolve("fast.example", 10s);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kOverloaded);
    answer.set_value();
    back.get_future().wait();
    // Room comes back once the threads that were left behind have ended.
    Result<std::vector<IpAddress>> found = error(ErrorCode::kOverloaded, "");
    for (int i = 0; i < 1000 && !found; ++i) {
        found = resolver->resolve("fast.example", 10s);
        if (!found) std::this_thread::sleep_for(5ms);
    }
    EXPECT_TRUE(found);
}

}  // namespace
}  // namespace stator::media
