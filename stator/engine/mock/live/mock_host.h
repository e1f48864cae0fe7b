#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "stator/base/clock.h"
#include "stator/metrics/registry.h"

namespace stator::engine {

struct MockHostOptions {
    std::size_t threads = 1;
    /// The thread sleeps at least so long between two turns: what comes due meanwhile shares one
    /// wake-up, here and at the receivers. The engines' own clocks do not feel it.
    std::chrono::nanoseconds gather{std::chrono::microseconds(100)};
};

/// The threads of any number of mock engines: each engine says when it is next due. Must outlive
/// them. Thread-safe.
class MockHost {
  public:
    explicit MockHost(MockHostOptions options = {}, const Clock& clock = Clock::real());
    ~MockHost();  ///< all seats must have been given up
    MockHost(const MockHost&) = delete;
    MockHost& operator=(const MockHost&) = delete;

    /// Something that does its work when it is due.
    class Driven {
      public:
        virtual ~Driven() = default;
        /// On the host's thread, never twice at once. Answers when it is next due.
        virtual Deadline drive(TimePoint now) = 0;
        /// Then, when all that were due have been driven, what it gives to other threads; each kind
        /// for all of them in a row, so that who gets it wakes once for all.
        virtual void deliver() {}
        virtual void announce() {}
    };
    /// A place on one of the threads. First due when wake() says so.
    class Seat {
      public:
        virtual ~Seat() = default;  ///< as leave()
        /// Due at `at` at the latest. Wakes the thread only where that is earlier than all else.
        virtual void wake(TimePoint at) = 0;
        /// Returns when it is not driven and will not be any more. Not from within drive().
        virtual void leave() = 0;
    };
    [[nodiscard]] std::unique_ptr<Seat> seat(Driven& driven);

    /// The zero of its engines' clocks.
    [[nodiscard]] TimePoint zero() const;
    [[nodiscard]] const Clock& clock() const;

    /// How late steps ended, in real time, which shows whether the machine keeps up. `lost` is time
    /// that an engine gave up catching up with.
    void step_was_late(std::chrono::nanoseconds late);
    void time_lost(std::chrono::nanoseconds lost);
    struct Stats {
        std::uint64_t steps = 0;
        std::chrono::nanoseconds late{0};  ///< all steps together
        std::chrono::nanoseconds latest{0};
        std::chrono::nanoseconds lost{0};
        std::uint64_t turns = 0;   ///< wake-ups that found something due
        double cpu_seconds = 0.0;  ///< of the threads
    };
    [[nodiscard]] Stats stats() const;
    /// Shows the same as stator_mock_…; the registry must not be rendered after this host is gone.
    void show(metrics::Registry& registry) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::engine
