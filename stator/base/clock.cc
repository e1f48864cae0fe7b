#include "stator/base/clock.h"

#include <time.h>

namespace stator {
namespace {

std::int64_t read_ns(clockid_t id) {
    timespec ts{};
    clock_gettime(id, &ts);
    return static_cast<std::int64_t>(ts.tv_sec) * 1'000'000'000 + ts.tv_nsec;
}

class RealClock final : public Clock {
  public:
    [[nodiscard]] TimePoint now() const override { return {read_ns(CLOCK_MONOTONIC)}; }
    [[nodiscard]] std::int64_t unix_seconds() const override {
        return read_ns(CLOCK_REALTIME) / 1'000'000'000;
    }
};

}  // namespace

const Clock& Clock::real() {
    static const RealClock clock;
    return clock;
}

double thread_cpu_seconds() { return static_cast<double>(read_ns(CLOCK_THREAD_CPUTIME_ID)) * 1e-9; }

}  // namespace stator
