#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <limits>

namespace stator {

/// A point on a monotonic time line, in nanoseconds since an arbitrary start (real clock:
/// CLOCK_MONOTONIC). Tests and the simulator make their own, so nothing outside base/clock.cc asks
/// the system.
struct TimePoint {
    std::int64_t ns = 0;

    constexpr auto operator<=>(const TimePoint&) const = default;
    constexpr TimePoint operator+(std::chrono::nanoseconds d) const { return {ns + d.count()}; }
    constexpr std::chrono::nanoseconds operator-(TimePoint other) const {
        return std::chrono::nanoseconds(ns - other.ns);
    }
};

constexpr double to_seconds(std::chrono::nanoseconds d) {
    return static_cast<double>(d.count()) * 1e-9;
}
constexpr double to_ms(std::chrono::nanoseconds d) { return static_cast<double>(d.count()) * 1e-6; }

/// Where time comes from. Implementations are thread-safe.
class Clock {
  public:
    virtual ~Clock() = default;
    [[nodiscard]] virtual TimePoint now() const = 0;
    /// Seconds since 1970, for what people and protocols read (OpenAI's `created`); never for
    /// measuring.
    [[nodiscard]] virtual std::int64_t unix_seconds() const = 0;

    /// The system's clock. Lives for the whole process.
    static const Clock& real();
};

/// Moved by hand; for tests. Not thread-safe.
class ManualClock final : public Clock {
  public:
    [[nodiscard]] TimePoint now() const override { return now_; }
    [[nodiscard]] std::int64_t unix_seconds() const override { return now_.ns / 1'000'000'000; }
    void advance(std::chrono::nanoseconds d) { now_ = now_ + d; }

  private:
    TimePoint now_;
};

/// "Until when", passed along instead of durations: converted once where a request enters, it can't
/// be restarted by accident on the way. Default is never.
class Deadline {
  public:
    constexpr Deadline() = default;
    static constexpr Deadline never() { return {}; }
    static constexpr Deadline at(TimePoint t) { return Deadline(t); }
    /// Saturates to never() where now + d would overflow.
    static constexpr Deadline after(TimePoint now, std::chrono::nanoseconds d) {
        if (d.count() > std::numeric_limits<std::int64_t>::max() - now.ns) return never();
        return Deadline(now + d);
    }

    [[nodiscard]] constexpr bool is_never() const { return at_.ns == kNever; }
    [[nodiscard]] constexpr bool reached(TimePoint now) const { return !is_never() && now >= at_; }
    /// Zero once reached; nanoseconds::max() for never().
    [[nodiscard]] constexpr std::chrono::nanoseconds left(TimePoint now) const {
        if (is_never()) return std::chrono::nanoseconds::max();
        return reached(now) ? std::chrono::nanoseconds::zero() : at_ - now;
    }
    constexpr auto operator<=>(const Deadline&) const = default;

  private:
    static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
    constexpr explicit Deadline(TimePoint t) : at_(t) {}
    TimePoint at_{kNever};
};

/// CPU seconds the calling thread has used so far (user + system).
double thread_cpu_seconds();

}  // namespace stator
