#include "stator/kube/election.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace stator::kube {

Election::Election(ElectionOptions options)
    : options_(std::move(options)),
      chance_(options_.retry_every, options_.retry_every, options_.random_seed) {}

std::string Election::collection() const {
    return fmt::format("/apis/coordination.k8s.io/v1/namespaces/{}/leases", options_.in_namespace);
}

/// Not seen to change for as long as it says, or nobody's.
bool Election::run_out(TimePoint now) const {
    if (seen_.holder.empty()) return true;
    const std::int64_t seconds =
        seen_.duration_seconds > 0 ? seen_.duration_seconds : options_.lease_duration.count();
    constexpr std::int64_t kYear = 365LL * 24 * 3600;
    return !seen_at_ || now >= *seen_at_ + std::chrono::seconds(std::min(seconds, kYear));
}

void Election::observe(Lease lease, TimePoint now) {
    if (!seen_at_ || !(lease == seen_)) {
        seen_ = std::move(lease);
        seen_at_ = now;
    }
    if (seen_.holder != options_.self) leading_ = false;
}

void Election::later(TimePoint now) {
    out_ = false;
    step_ = Step::kRead;
    // A leader keeps to its time; the others don't all come at once.
    const auto extra =
        leading_ ? std::chrono::milliseconds(0) : chance_.chance(options_.retry_every);
    due_ = now + options_.retry_every + extra;
}

Election::Call Election::write(std::int64_t unix_seconds) {
    Lease next = seen_;
    const std::string time = micro_time(unix_seconds);
    if (next.holder != options_.self) {
        if (!next.version.empty()) ++next.transitions;
        next.acquired = time;
    }
    if (next.acquired.empty()) next.acquired = time;
    next.holder = options_.self;
    next.renewed = time;
    next.duration_seconds = options_.lease_duration.count();
    written_ = next;
    Call call;
    call.method = next.version.empty() ? "POST" : "PUT";
    call.path = next.version.empty() ? collection() : collection() + "/" + options_.lease;
    call.body = format_lease(next, options_.in_namespace, options_.lease);
    return call;
}

std::optional<Election::Call> Election::take_call(TimePoint now, std::int64_t unix_seconds) {
    if (out_ || now < due_) return {};
    out_ = true;
    sent_ = now;
    // Who leads writes at once, over the version it wrote last.
    if (step_ == Step::kWrite || leading(now)) {
        step_ = Step::kWrite;
        return write(unix_seconds);
    }
    return Call{"GET", collection() + "/" + options_.lease, ""};
}

void Election::on_answer(int status, std::string_view body, TimePoint now) {
    if (!out_) return;
    if (step_ == Step::kRead) {
        if (status == 404) {
            observe(Lease{}, now);
        } else {
            auto lease = status == 200 ? parse_lease(body) : error(ErrorCode::kUnavailable, "");
            if (!lease) {
                later(now);
                return;
            }
            observe(*std::move(lease), now);
        }
        if (seen_.holder != options_.self && !run_out(now)) {
            later(now);
            return;
        }
        out_ = false;
        step_ = Step::kWrite;
        due_ = now;
        return;
    }
    if (status == 200 || status == 201) {
        auto lease = parse_lease(body);
        if (lease && lease->holder == options_.self) {
            seen_ = *std::move(lease);
            seen_at_ = now;
            leading_ = true;
            renewed_at_ = sent_;
            later(now);
            return;
        }
    }
    // Somebody was faster, or it is not known what became of it: what is there decides.
    const bool lost = status == 409 || status == 404;
    later(now);
    if (lost && leading_) due_ = now;
    if (lost) leading_ = false;
}

void Election::on_failure(TimePoint now) {
    if (out_) later(now);
}

std::optional<Election::Call> Election::release(TimePoint now, std::int64_t unix_seconds) {
    if (!leading(now)) {
        leading_ = false;
        return {};
    }
    leading_ = false;
    Lease next = seen_;
    next.holder.clear();
    next.duration_seconds = 1;
    next.renewed = micro_time(unix_seconds);
    return Call{"PUT", collection() + "/" + options_.lease,
                format_lease(next, options_.in_namespace, options_.lease)};
}

}  // namespace stator::kube
