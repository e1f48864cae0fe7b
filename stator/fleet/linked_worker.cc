#include "stator/fleet/linked_worker.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"
#include "stator/fleet/canary.h"
#include "stator/fleet/words.h"
#include "stator/runtime/asio.h"

namespace stator::fleet {
namespace {

using requests::StreamId;

/// So many looks without progress, a quarter of canary_after apart, call for a canary.
constexpr int kLooks = 4;

}  // namespace

LinkedWorker::LinkedWorker(MemberOptions options, runtime::Loop& loop,
                           std::shared_ptr<MemberEvents> events, const Clock& clock)
    : options_(std::move(options)),
      loop_(loop),
      clock_(clock),
      events_(std::move(events)),
      timer_(runtime::asio_context(loop)) {}

void LinkedWorker::connect() {
    link_ = requests::connect_link(loop_, options_.link, *this, clock_);
}

void LinkedWorker::remove() {
    if (over_) return;
    removed_ = true;
    if (streams_.size() == 0) return end_if_removed();
    apply(MemberEvent::kGoAway, "discovery does not name it any more");
}

void LinkedWorker::shut(const Error& why) {
    if (!over_) finish(MemberEvent::kLost, why, false);
}

std::shared_ptr<const protocol::WorkerInfo> LinkedWorker::info() const {
    const std::scoped_lock lock(mutex_);
    return info_;
}

protocol::LoadReport LinkedWorker::load(std::uint32_t rank) const {
    const std::scoped_lock lock(mutex_);
    if (!ranks_ || rank >= ranks_->size()) return {};
    return (*ranks_)[rank]->read();
}

Result<StreamId> LinkedWorker::open(std::shared_ptr<const protocol::GenerateRequest> request,
                                    std::uint32_t rank, StreamEvents& events, std::uint64_t tag) {
    if (over_ || !ranks_) return error(ErrorCode::kUnavailable, "the worker is gone");
    if (removed_ || state() == MemberState::kDraining) {
        return error(ErrorCode::kUnavailable, "the worker takes no new requests");
    }
    if (rank >= ranks_->size()) {
        return error(ErrorCode::kInvalidArgument, "the worker has {} ranks, not {}", ranks_->size(),
                     rank + 1);
    }
    auto id = link_->open(std::move(request), rank, booking_ + 1);
    if (!id) return id;
    ++booking_;
    if (streams_.size() == 0) {
        looks_in_vain_ = 0;
        progress_ = true;
    }
    streams_.insert(id->value) = {.events = &events, .tag = tag, .rank = rank};
    (*ranks_)[rank]->opened(booking_);
    arm();
    return id;
}

void LinkedWorker::cancel(StreamId stream) {
    const Stream* const known = over_ ? nullptr : streams_.find(stream.value);
    if (known == nullptr) return;
    (*ranks_)[known->rank]->ended();
    streams_.erase(stream.value);
    link_->cancel(stream);
    if (removed_ && streams_.size() == 0) {
        loop_.at_turn_end([self = shared_from_this()] { self->end_if_removed(); });
    }
}

void LinkedWorker::release(StreamId stream) {
    watched_.erase(stream.value);
    if (!over_) link_->release(stream);
}

void LinkedWorker::watch_handoff(StreamId stream, std::function<void(const Error&)> lost) {
    if (over_) return lost(error(ErrorCode::kUnavailable, "the worker is gone").value());
    watched_.insert_or_assign(stream.value, std::move(lost));
    if (watched_.size() > kMostWatched) watched_.erase(watched_.begin());
}

void LinkedWorker::on_handoff_lost(StreamId stream, const Error& why) {
    const auto watched = watched_.extract(stream.value);
    if (!watched.empty()) watched.mapped()(why);
}

void LinkedWorker::fetch(const requests::Fetch& what,
                         std::function<void(Result<std::string>)> done) {
    Result<std::uint64_t> number =
        over_ || !link_
            ? Result<std::uint64_t>(error(ErrorCode::kUnavailable, "the worker is gone"))
            : link_->fetch(what);
    if (!number) return done(tl::unexpected(std::move(number.error())));
    fetches_.emplace(*number, std::move(done));
}

void LinkedWorker::on_info(const protocol::WorkerInfo& info) {
    if (over_) return;
    const auto before = info_;
    auto words = check_words(before.get(), info);
    const auto now = std::make_shared<const protocol::WorkerInfo>(info);
    if (words) {
        auto ranks = ranks_;
        // One that could not take requests for a while has its open ones still.
        if (!ranks || (before->loading && before->ranks != info.ranks)) {
            auto fresh = std::make_shared<Ranks>();
            for (const auto& r : info.ranks) fresh->push_back(std::make_unique<RankLoad>(r));
            ranks = std::move(fresh);
            steps_.assign(info.ranks.size(), 0);
        }
        {
            const std::scoped_lock lock(mutex_);
            info_ = now;
            ranks_ = std::move(ranks);
        }
        words = events_->on_words(now);
    }
    if (!words) return finish(MemberEvent::kLost, words.error(), true);
    if (info.draining) return apply(MemberEvent::kGoAway, "it says that it is draining");
    if (info.loading) return apply(MemberEvent::kLoading, "it says that it is loading");
    apply(MemberEvent::kReady, "it says that it is ready");
}

void LinkedWorker::on_load(const requests::LoadMessage& load) {
    if (over_ || !ranks_ || load.rank >= ranks_->size()) return;
    (*ranks_)[load.rank]->report(load.load, load.booking);
    if (std::exchange(steps_[load.rank], load.steps) != load.steps) progress_ = true;
}

void LinkedWorker::on_go_away(const requests::GoAway& go_away) {
    if (!over_) apply(MemberEvent::kGoAway, "it said go-away: " + go_away.reason);
}

void LinkedWorker::on_silent(bool silent) {
    if (over_ || std::exchange(silent_, silent) == silent) return;
    if (silent) {
        apply(MemberEvent::kSilent, "it is silent");
        if (state() == MemberState::kSuspect) {
            loop_.at_turn_end([self = shared_from_this()] {
                if (!self->over_ && !self->canary_until_) self->send_canary();
            });
        }
    } else if (!stuck_) {
        apply(MemberEvent::kHeard, "it is heard again");
    }
}

void LinkedWorker::on_step(StreamId stream, const protocol::StepEvent& event,
                           std::span<const protocol::TokenOutput> tokens,
                           std::span<const protocol::TokenLogprob> top) {
    const Stream* const known = over_ ? nullptr : streams_.find(stream.value);
    if (known == nullptr) {
        if (over_ || canary_ != stream) return;
        if (event.finish) canary_.reset();
        if (event.handoff) {
            // Behind its stream's end.
            loop_.at_turn_end([self = shared_from_this(), stream] { self->release(stream); });
        }
        // A refusal shows that the worker is alive, and nothing of its engine.
        if (is_back(event)) canary_back();
        return;
    }
    if (is_back(event)) progress_ = true;
    const Stream to = *known;
    if (event.finish) {
        (*ranks_)[to.rank]->ended();
        streams_.erase(stream.value);
    }
    if (touched_.empty() || touched_.back() != to.events) {
        if (std::ranges::find(touched_, to.events) == touched_.end()) touched_.push_back(to.events);
    }
    to.events->on_step(to.tag, event, tokens, top);
}

void LinkedWorker::on_turn_end() {
    for (StreamEvents* e : touched_) e->on_turn_end();
    touched_.clear();
    if (removed_ && streams_.size() == 0) {
        loop_.at_turn_end([self = shared_from_this()] { self->end_if_removed(); });
    }
}

void LinkedWorker::on_fetched(std::uint64_t fetch, Result<std::string> body) {
    const auto waiting = fetches_.extract(fetch);
    if (!waiting.empty()) waiting.mapped()(std::move(body));
}

void LinkedWorker::on_lost(const Error& why) {
    if (!over_) finish(MemberEvent::kLost, why, false);
}

void LinkedWorker::apply(MemberEvent event, const std::string& reason) {
    const MemberState from = state();
    const MemberState to = next_state(from, event);
    if (from == to) return;
    state_.store(to, std::memory_order_release);
    events_->on_state(from, to, reason);
}

void LinkedWorker::end_if_removed() {
    if (over_ || !removed_ || streams_.size() != 0) return;
    finish(MemberEvent::kRemoved,
           error(ErrorCode::kUnavailable, "discovery does not name it any more").value(), false);
}

/// May run inside one of the link's calls: the link itself is closed at the turn's end.
void LinkedWorker::finish(MemberEvent event, const Error& why, bool refused) {
    const auto self = shared_from_this();
    on_turn_end();  // what was told before the end goes out before it
    over_ = true;
    timer_.cancel();
    apply(event, why.message);
    lose_streams(why);
    for (auto& [number, done] : std::exchange(fetches_, {})) done(tl::unexpected(why));
    for (auto& [stream, lost] : std::exchange(watched_, {})) lost(why);
    loop_.at_turn_end([self, link = std::move(link_)] {
        if (link) link->close();
    });
    const auto events = std::move(events_);
    events->on_over(why, refused);
}

void LinkedWorker::lose_streams(const Error& why) {
    std::vector<std::pair<std::uint32_t, Stream>> lost;
    lost.reserve(streams_.size());
    streams_.each([&](std::uint32_t id, const Stream& s) { lost.emplace_back(id, s); });
    streams_ = {};
    for (const auto& [id, stream] : lost) {
        (*ranks_)[stream.rank]->ended();
        if (!over_) link_->cancel(StreamId(id));
        stream.events->on_stream_lost(stream.tag, why);
    }
}

void LinkedWorker::arm() {
    if (armed_ || over_) return;
    armed_ = true;
    timer_.expires_after(options_.canary_after / kLooks);
    timer_.async_wait([weak = weak_from_this()](const auto& ec) {
        const auto self = weak.lock();
        if (ec || !self) return;
        self->armed_ = false;
        if (!self->over_) self->on_timer();
    });
}

void LinkedWorker::on_timer() {
    if (std::exchange(progress_, false)) {
        looks_in_vain_ = 0;
        progress_since_canary_ = true;
    } else {
        ++looks_in_vain_;
    }
    if (canary_until_) {
        if (canary_until_->reached(clock_.now())) {
            if (progress_since_canary_ && !stuck_) {
                // The canary waits in a long queue; the engine works.
                if (canary_) link_->cancel(*canary_);
                canary_.reset();
                canary_until_.reset();
            } else {
                canary_lost();
            }
        }
    } else if (looks_in_vain_ >= kLooks && (streams_.size() > 0 || stuck_)) {
        send_canary();
    }
    if (streams_.size() > 0 || stuck_ || canary_until_) arm();
}

void LinkedWorker::send_canary() {
    if (!info_ || info_->loading || !link_) return;
    auto request = canary_request(*info_);
    request->deadline = Deadline::after(clock_.now(), options_.canary_within);
    canary_until_ = request->deadline;
    progress_since_canary_ = false;
    looks_in_vain_ = 0;
    events_->on_canary(false);
    // Refused (draining): nothing will come back, and that is for the deadline to say.
    auto id = link_->open(std::move(request), 0, ++booking_);
    if (id) canary_ = *id;
    arm();
}

void LinkedWorker::canary_back() {
    canary_until_.reset();
    progress_ = true;
    stuck_ = false;
    if (!silent_) apply(MemberEvent::kCanaryBack, "its canary came back");
}

void LinkedWorker::canary_lost() {
    if (canary_) link_->cancel(*canary_);
    canary_.reset();
    canary_until_.reset();
    stuck_ = true;
    events_->on_canary(true);
    const Error why = error(ErrorCode::kUnavailable,
                            "its engine made no step, and a canary got no token in {} ms",
                            options_.canary_within.count())
                          .value();
    apply(MemberEvent::kCanaryLost, why.message);
    lose_streams(why);
    end_if_removed();
}

}  // namespace stator::fleet
