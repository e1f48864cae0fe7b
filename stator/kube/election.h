#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/clock.h"
#include "stator/kube/backoff.h"
#include "stator/kube/lease.h"

namespace stator::kube {

struct ElectionOptions {
    std::string in_namespace;
    std::string lease;  ///< its name
    std::string self;   ///< who we are; differs between all who take part
    /// What others wait for after our last renewal …
    std::chrono::seconds lease_duration{15};
    /// … and after how long without a renewal we stop of ourselves. Shorter, by more than clocks
    /// may differ in speed.
    std::chrono::milliseconds renew_within{10'000};
    std::chrono::milliseconds retry_every{2'000};
    std::uint64_t random_seed = 1;
};

/// One leader among many, by a Lease: the rules of client-go's leader election, so that the two can
/// share one. Nobody's clock is compared with another's: a lease has run out when we have not seen
/// it change for as long as it says, on our own clock. Every write carries the version that was
/// read, so of two who try at once one is refused.
///
/// No sockets and no clock: the owner sends what take_call() gives, one at a time, and tells the
/// answer. `now` is monotonic; `unix_seconds` is only written down for people.
class Election {
  public:
    struct Call {
        std::string method;
        std::string path;
        std::string body;  ///< JSON; empty for GET
    };

    explicit Election(ElectionOptions options);

    [[nodiscard]] std::optional<Call> take_call(TimePoint now, std::int64_t unix_seconds);
    void on_answer(int status, std::string_view body, TimePoint now);
    void on_failure(TimePoint now);  ///< no answer
    /// When take_call() may have something; asked again after each answer.
    [[nodiscard]] TimePoint next_time() const { return due_; }

    /// True only as long as others must believe it: ask at each use. Ends by itself where renewals
    /// fail, and before the lease does.
    [[nodiscard]] bool leading(TimePoint now) const {
        return leading_ && now < renewed_at_ + options_.renew_within;
    }
    /// What to send to let go of the lease at once (on leaving); nothing where we don't hold it.
    [[nodiscard]] std::optional<Call> release(TimePoint now, std::int64_t unix_seconds);
    [[nodiscard]] const std::string& holder() const { return seen_.holder; }

  private:
    enum class Step : std::uint8_t { kRead, kWrite };

    [[nodiscard]] std::string collection() const;
    [[nodiscard]] Call write(std::int64_t unix_seconds);
    void observe(Lease lease, TimePoint now);
    void later(TimePoint now);
    [[nodiscard]] bool run_out(TimePoint now) const;

    const ElectionOptions options_;
    Backoff chance_;
    Step step_ = Step::kRead;
    bool out_ = false;
    TimePoint due_{};
    TimePoint sent_;
    Lease seen_;
    std::optional<TimePoint> seen_at_;
    Lease written_;
    bool leading_ = false;
    TimePoint renewed_at_;  ///< when the last renewal that succeeded was sent
};

}  // namespace stator::kube
