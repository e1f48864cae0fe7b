#include "stator/loadgen/schedule.h"

#include <algorithm>
#include <utility>

namespace stator::loadgen {

using workload::RequestSpec;

Schedule::Schedule(workload::Workload& workload, ScheduleOptions options)
    : workload_(workload), options_(options) {
    options_.most_at_once = std::max<std::size_t>(options_.most_at_once, 1);
    read_ahead(Nanoseconds(0));
}

void Schedule::read_ahead(Nanoseconds now) {
    ahead_.reset();
    while (auto spec = workload_.next()) {
        if (!spec->after) {
            ahead_ = std::move(spec);
            return;
        }
        add_follower(std::move(*spec), now);
    }
}

void Schedule::add_follower(RequestSpec spec, Nanoseconds now) {
    std::vector<std::uint64_t> needs;
    const auto need = [&](std::uint64_t index) {
        if (open_.contains(index) && std::ranges::find(needs, index) == needs.end()) {
            needs.push_back(index);
        }
    };
    need(*spec.after);
    for (const workload::Segment& s : spec.prompt) {
        if (s.output_of) need(*s.output_of);
    }
    open_.insert(spec.index);
    ++sessions_[spec.session];
    if (needs.empty()) {
        const auto at = now + spec.start;
        due_.emplace(at, std::move(spec));
        return;
    }
    const auto place = waiting_.insert(waiting_.end(), {std::move(spec), needs.size()});
    for (const std::uint64_t index : needs) needed_by_[index].push_back(place);
}

std::optional<Start> Schedule::take_due(Nanoseconds now) {
    // In a closed loop the sessions that run come before new ones.
    const bool root_due = ahead_ && (options_.closed || ahead_->start <= now);
    const bool follower_due = !due_.empty() && due_.begin()->first <= now;
    if (follower_due && (!root_due || options_.closed || due_.begin()->first <= ahead_->start)) {
        auto node = due_.extract(due_.begin());
        return Start{std::move(node.mapped()), node.key()};
    }
    if (!root_due) return std::nullopt;
    Start start{std::move(*ahead_), options_.closed ? now : Nanoseconds(0)};
    if (!options_.closed) start.intended = start.spec.start;
    open_.insert(start.spec.index);
    ++sessions_[start.spec.session];
    read_ahead(now);
    return start;
}

std::optional<Start> Schedule::take(Nanoseconds now) {
    if (running_ >= options_.most_at_once) return std::nullopt;
    auto start = take_due(now);
    if (start) ++running_;
    // In a closed loop a session's next turn may have waited for room, which is no delay of ours:
    // its time is when there is some.
    if (start && options_.closed) start->intended = now;
    return start;
}

std::optional<Schedule::Nanoseconds> Schedule::next_start() const {
    if (running_ >= options_.most_at_once) return std::nullopt;
    std::optional<Nanoseconds> next;
    if (!due_.empty()) next = due_.begin()->first;
    if (ahead_) {
        const Nanoseconds root = options_.closed ? Nanoseconds(0) : ahead_->start;
        next = next ? std::min(*next, root) : root;
    }
    return next;
}

void Schedule::ended(const RequestSpec& spec, Nanoseconds now) {
    --running_;
    open_.erase(spec.index);
    if (const auto session = sessions_.find(spec.session);
        session != sessions_.end() && --session->second == 0) {
        sessions_.erase(session);
    }
    auto node = needed_by_.extract(spec.index);
    if (node.empty()) return;
    for (const auto place : node.mapped()) {
        if (--place->needs > 0) continue;
        const auto at = now + place->spec.start;
        due_.emplace(at, std::move(place->spec));
        waiting_.erase(place);
    }
}

std::vector<Start> Schedule::stop(Nanoseconds now) {
    constexpr std::size_t kMost = 1'000'000;
    std::vector<Start> held_back;
    while (!options_.closed && held_back.size() < kMost) {
        auto start = take_due(now);
        if (!start) break;
        held_back.push_back(std::move(*start));
    }
    ahead_.reset();
    due_.clear();
    waiting_.clear();
    needed_by_.clear();
    return held_back;
}

}  // namespace stator::loadgen
