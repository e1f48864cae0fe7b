#include "stator/fleet/dialer.h"

#include <algorithm>
#include <utility>

#include "stator/base/log.h"
#include "stator/runtime/asio.h"

namespace stator::fleet {

Dialer::Dialer(const FleetOptions& options, net::SocketAddress address, runtime::Loop& loop,
               std::shared_ptr<Roster> roster, std::uint64_t random_seed, const Clock& clock)
    : options_(options),
      loop_(loop),
      roster_(std::move(roster)),
      clock_(clock),
      random_(random_seed),
      timer_(runtime::asio_context(loop)) {
    entry_.address = std::move(address);
}

void Dialer::set_wanted(bool wanted) {
    if (shut_ || std::exchange(wanted_, wanted) == wanted) return;
    if (wanted) {
        // A worker that is still there was removed: it goes first, its end dials again.
        idle_.store(false, std::memory_order_release);
        if (!worker_) {
            roster_->put(entry_);
            dial();
        }
        return;
    }
    timer_.cancel();
    idle_.store(!worker_, std::memory_order_release);
    if (worker_) {
        worker_->remove();
    } else {
        roster_->erase(entry_.address);
    }
}

void Dialer::shut() {
    if (std::exchange(shut_, true)) return;
    timer_.cancel();
    if (const auto worker = worker_) {
        worker->shut(error(ErrorCode::kUnavailable, "this process is stopping").value());
    }
}

void Dialer::dial() {
    MemberOptions member;
    member.id = roster_->next_worker_id();
    member.link.address = entry_.address;
    member.link.link = options_.link;
    if (options_.secret) member.link.link.secret = options_.secret();
    if (options_.tls) member.link.stream.tls = options_.tls();
    member.canary_after = options_.canary_after;
    member.canary_within = options_.canary_within;
    worker_ = std::make_shared<LinkedWorker>(std::move(member), loop_, shared_from_this(), clock_);
    worker_->connect();
}

Result<void> Dialer::on_words(const std::shared_ptr<const protocol::WorkerInfo>& info) {
    net::SocketAddress holder;
    if (!roster_->claim(info->incarnation, entry_.address, holder)) {
        duplicate_ = true;
        return error(ErrorCode::kAborted, "worker {} is linked already, at {}", info->name,
                     net::to_string(holder));
    }
    claimed_ = info->incarnation;
    delay_ = {};
    last_failure_.clear();
    entry_.state = worker_->state();
    entry_.info = info;
    entry_.worker = worker_;
    roster_->put(entry_);
    return {};
}

void Dialer::on_state(MemberState from, MemberState to, const std::string& reason) {
    if (!entry_.info) return;  // an attempt that came to nothing: see log_over()
    roster_->count_transition(from, to);
    log_line(to == MemberState::kSuspect || (to == MemberState::kGone && !shut_) ? LogLevel::kWarn
                                                                                 : LogLevel::kInfo,
             "A worker changed its state.",
             {{"worker", entry_.info->name},
              {"address", net::to_string(entry_.address)},
              {"from", to_string(from)},
              {"to", to_string(to)},
              {"reason", reason}});
    entry_.state = to;
    entry_.reason = reason;
    if (to != MemberState::kGone) roster_->put(entry_);
}

void Dialer::on_canary(bool lost) {
    roster_->count_canary(lost);
    if (lost) return;
    log_debug("A canary is sent.", {{"worker", entry_.info ? entry_.info->name : ""},
                                    {"address", net::to_string(entry_.address)}});
}

void Dialer::on_over(const Error& why, bool refused) {
    const bool was_member = entry_.worker != nullptr;
    log_over(why, refused);
    if (claimed_) roster_->release(*claimed_, entry_.address);
    claimed_.reset();
    worker_.reset();
    entry_.worker.reset();
    entry_.info.reset();
    if (was_member) entry_.state = MemberState::kGone;
    const bool news = was_member || entry_.reason != why.message;
    entry_.reason = why.message;
    if (shut_) return roster_->put(entry_);
    if (!wanted_) {
        roster_->erase(entry_.address);
        return idle_.store(true, std::memory_order_release);
    }
    if (news) roster_->put(entry_);
    dial_later(refused);
}

void Dialer::log_over(const Error& why, bool refused) {
    if (refused && !std::exchange(duplicate_, false)) roster_->count_refused();
    // on_state() has told of a member's end; a dial that fails as the last one did is no news.
    if ((entry_.worker && !refused) || last_failure_ == why.message || shut_) return;
    last_failure_ = why.message;
    const bool duplicate = refused && why.code == ErrorCode::kAborted;
    log_line(duplicate ? LogLevel::kInfo : LogLevel::kWarn,
             duplicate ? "Two addresses lead to one worker; the first one is kept."
             : refused ? "A worker is refused."
                       : "A worker can't be reached; it is dialled again and again.",
             {{"address", net::to_string(entry_.address)}, {"reason", why.message}});
}

void Dialer::dial_later(bool slowly) {
    delay_ = slowly ? options_.dial_again_max
                    : std::clamp(delay_ * 2, options_.dial_again_min, options_.dial_again_max);
    // Half to all of it: those that lost one peer together do not come back together.
    std::uniform_int_distribution<std::int64_t> jitter(delay_.count() / 2, delay_.count());
    timer_.expires_after(std::chrono::milliseconds(jitter(random_)));
    timer_.async_wait([weak = weak_from_this()](const auto& ec) {
        const auto self = weak.lock();
        if (!ec && self && self->wanted_ && !self->shut_ && !self->worker_) self->dial();
    });
}

}  // namespace stator::fleet
