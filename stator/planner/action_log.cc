#include "stator/planner/action_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace stator::planner {

namespace {
constexpr std::size_t kMostNotes = 16;

void note(std::vector<std::string>& notes, std::string text) {
    if (notes.size() < kMostNotes) notes.push_back(std::move(text));
}
}  // namespace

void ActionLog::appeared(Known& known) {
    for (Open& open : open_) {
        if (open.action.kind != Action::Kind::kStart || open.action.role != known.role) continue;
        if (open.unseen == 0) continue;
        --open.unseen;
        known.start = open.action.id;
        return;
    }
}

void ActionLog::back_off(Role role, double now_s) {
    Backoff& b = up_[role];
    const double length = std::max(b.next_s, options_.backoff_s);
    b.until_s = now_s + length;
    b.next_s = std::min(2 * length, options_.longest_backoff_s);
}

void ActionLog::observe(const std::vector<WorkerObservation>& workers, double now_s,
                        double start_up_s, std::vector<std::string>& notes) {
    for (auto& [name, known] : known_) known.seen = false;
    for (const WorkerObservation& w : workers) {
        auto [at, fresh] = known_.try_emplace(w.name);
        Known& known = at->second;
        known.seen = true;
        if (fresh) {
            known.role = w.role;
            known.state = w.state;
            known.since_s = known.first_s = now_s;
            if (!first_) appeared(known);
            continue;
        }
        known.role = w.role;
        if (known.state == w.state) continue;
        if (known.state == WorkerState::kStarting && w.state == WorkerState::kReady) {
            start_ups_.push_back(now_s - known.first_s);
            if (known.stuck) note(notes, fmt::format("{} is ready after all", w.name));
            known.stuck = false;
            up_[known.role] = {};  // orders have their effect again
        }
        known.state = w.state;
        known.since_s = now_s;
    }
    first_ = false;
    for (auto it = known_.begin(); it != known_.end();) {
        it = it->second.seen ? std::next(it) : known_.erase(it);
    }
    for (auto& [name, known] : known_) {
        const double age = now_s - known.since_s;
        if (known.state == WorkerState::kStarting && !known.stuck &&
            age > options_.ready_factor * std::max(start_up_s, options_.interval_s)) {
            known.stuck = true;
            ++without_effect_;
            back_off(known.role, now_s);
            note(notes, fmt::format("{} has been starting for {:.0f} s and is not counted on any "
                                    "more",
                                    name, age));
        }
        if (known.state == WorkerState::kDraining && !known.told_long &&
            age > options_.drain_within_s) {
            known.told_long = true;
            note(notes, fmt::format("{} has been draining for {:.0f} s", name, age));
        }
    }
    settle(now_s, notes);
}

/// Closes the orders that had their effect, or whose time is over.
void ActionLog::settle(double now_s, std::vector<std::string>& notes) {
    std::erase_if(open_, [&](Open& open) {
        const Action& a = open.action;
        const bool late = now_s >= open.deadline_s;
        if (a.kind == Action::Kind::kStart) {
            if (open.unseen == 0) return true;
            if (!late) return false;
            ++without_effect_;
            back_off(a.role, now_s);
            note(notes, fmt::format("order {} had no effect: {} of {} {} workers were never seen; "
                                    "the next order waits {:.0f} s",
                                    a.id, open.unseen, a.count, protocol::to_string(a.role),
                                    up_[a.role].until_s - now_s));
            return true;
        }
        const auto known = known_.find(a.worker);
        if (known == known_.end()) return true;
        const bool done = a.kind == Action::Kind::kDrain
                              ? known->second.state == WorkerState::kDraining
                              : known->second.role == a.to;
        if (done) return true;
        if (!late) return false;
        ++without_effect_;
        known->second.avoid_until_s = now_s + options_.longest_backoff_s / 4;
        note(notes,
             fmt::format("order {} had no effect: {} is still {} as {}", a.id, a.worker,
                         to_string(known->second.state), protocol::to_string(known->second.role)));
        return true;
    });
}

void ActionLog::add(const Action& action, double now_s) {
    if (open_.size() == kMostOpen) open_.pop_front();
    Open open;
    open.action = action;
    open.deadline_s = now_s + std::max(options_.appear_within_s, 2.5 * options_.interval_s);
    if (action.kind == Action::Kind::kStart) open.unseen = action.count;
    open_.push_back(std::move(open));
}

bool ActionLog::refuse(std::uint64_t id, double now_s) {
    const auto at =
        std::ranges::find_if(open_, [&](const Open& open) { return open.action.id == id; });
    if (at == open_.end()) return false;
    if (at->action.kind == Action::Kind::kStart) {
        back_off(at->action.role, now_s);
    } else if (const auto known = known_.find(at->action.worker); known != known_.end()) {
        known->second.avoid_until_s = now_s + options_.longest_backoff_s / 4;
    }
    open_.erase(at);
    return true;
}

std::uint32_t ActionLog::ordered(Role role) const {
    std::uint32_t n = 0;
    for (const Open& open : open_) {
        if (open.action.kind == Action::Kind::kStart && open.action.role == role) n += open.unseen;
    }
    return n;
}

bool ActionLog::stuck(std::string_view worker) const {
    const auto at = known_.find(worker);
    return at != known_.end() && at->second.stuck;
}

double ActionLog::up_blocked_s(Role role, double now_s) const {
    return std::max(0.0, up_[role].until_s - now_s);
}

bool ActionLog::avoid(std::string_view worker, double now_s) const {
    const auto at = known_.find(worker);
    if (at != known_.end() && at->second.avoid_until_s > now_s) return true;
    return std::ranges::any_of(open_, [&](const Open& open) {
        return open.action.kind != Action::Kind::kStart && open.action.worker == worker;
    });
}

std::vector<double> ActionLog::take_start_ups() { return std::exchange(start_ups_, {}); }

std::vector<std::string> ActionLog::troubles(double now_s) const {
    std::vector<std::string> out;
    for (const Role role : kRoles) {
        if (const double s = up_blocked_s(role, now_s); s > 0) {
            out.push_back(fmt::format("orders for {} workers have no effect; none for {:.0f} s",
                                      protocol::to_string(role), s));
        }
    }
    const auto stuck = std::ranges::count_if(known_, [](const auto& k) { return k.second.stuck; });
    if (stuck > 0) out.push_back(fmt::format("{} workers do not become ready", stuck));
    return out;
}

}  // namespace stator::planner
