#include "stator/engine/mock/live/mock_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <latch>
#include <thread>
#include <vector>

namespace stator::engine {
namespace {

using namespace std::chrono_literals;

TimePoint now() { return Clock::real().now(); }

class Driven final : public MockHost::Driven {
  public:
    explicit Driven(std::function<Deadline(TimePoint)> f) : f_(std::move(f)) {}
    Deadline drive(TimePoint at) override { return f_(at); }

  private:
    std::function<Deadline(TimePoint)> f_;
};

TEST(MockHost, DrivesEachSeatWhenItIsDue) {
    MockHost host({.threads = 2});
    constexpr int kSeats = 20;
    constexpr int kTimes = 50;
    std::latch done(kSeats);
    std::atomic<int> early{0};
    std::vector<std::unique_ptr<Driven>> driven;
    std::vector<std::unique_ptr<MockHost::Seat>> seats;
    const TimePoint start = now();
    for (int i = 0; i < kSeats; ++i) {
        driven.push_back(
            std::make_unique<Driven>([&, due = start + i * 100us, times = 0](TimePoint at) mutable {
                if (at < due) ++early;
                if (++times == kTimes) {
                    done.count_down();
                    return Deadline::never();
                }
                due = due + 1ms;
                return Deadline::at(due);
            }));
        seats.push_back(host.seat(*driven.back()));
        seats.back()->wake(start + i * 100us);
    }
    done.wait();
    EXPECT_GE(now() - start, (kTimes - 1) * 1ms);
    EXPECT_EQ(early, 0);
    EXPECT_LE(host.stats().turns, static_cast<std::uint64_t>(kSeats * kTimes));
}

TEST(MockHost, AWakeUpWhileDrivingIsNotLost) {
    MockHost host;
    std::latch driving(1);
    std::latch woken(1);
    std::latch again(1);
    int times = 0;
    Driven driven([&](TimePoint) {
        if (++times == 1) {
            driving.count_down();
            woken.wait();
        } else {
            again.count_down();
        }
        return Deadline::never();
    });
    const auto seat = host.seat(driven);
    seat->wake(now());
    driving.wait();
    seat->wake(now());
    woken.count_down();
    again.wait();
    seat->leave();
    EXPECT_EQ(times, 2);
}

TEST(MockHost, LeavingWaitsForTheTurnAndIsFinal) {
    MockHost host;
    std::latch driving(1);
    std::atomic<bool> over{false};
    Driven driven([&](TimePoint at) {
        driving.count_down();
        std::this_thread::sleep_for(20ms);
        over = true;
        return Deadline::at(at);
    });
    auto seat = host.seat(driven);
    seat->wake(now());
    driving.wait();
    seat->leave();
    EXPECT_TRUE(over);
    over = false;
    seat->wake(now());
    seat->leave();
    EXPECT_FALSE(over);
}

TEST(MockHost, ShowsHowLateStepsWere) {
    metrics::Registry registry;
    MockHost host;
    host.show(registry);
    host.step_was_late(3ms);
    host.step_was_late(1ms);
    host.time_lost(2s);
    const std::string text = registry.render();
    for (const char* line :
         {"stator_mock_steps_total 2\n", "stator_mock_late_seconds_total 0.004\n",
          "stator_mock_latest_seconds 0.003\n", "stator_mock_lost_seconds_total 2\n"}) {
        EXPECT_THAT(text, testing::HasSubstr(line));
    }
}

}  // namespace
}  // namespace stator::engine
