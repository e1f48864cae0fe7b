#include "stator/fleet/member.h"

#include <algorithm>
#include <utility>

#include "stator/base/log.h"

namespace stator::fleet {
namespace {

using protocol::WorkerInfo;

/// A canary's receiver: any token will do.
class CanaryEvents final : public StreamEvents {
  public:
    explicit CanaryEvents(std::function<void(bool)> ended) : ended_(std::move(ended)) {}
    void on_step(std::uint64_t /*tag*/, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> tokens,
                 std::span<const protocol::TokenLogprob> /*top*/) override {
        if (!tokens.empty()) got_token_ = true;
        if (event.finish) ended_(std::exchange(got_token_, false));
    }
    void on_turn_end() override {}
    void on_stream_lost(std::uint64_t /*tag*/, const Error& /*why*/) override {}

  private:
    std::function<void(bool)> ended_;
    bool got_token_ = false;
};

std::shared_ptr<const protocol::GenerateRequest> canary_request(Deadline deadline) {
    auto request = std::make_shared<protocol::GenerateRequest>();
    request->prompt = {0};
    request->sampling.temperature = 0.0F;
    request->max_tokens = 1;
    request->ignore_eos = true;
    request->deadline = deadline;
    return request;
}

}  // namespace

Member::Member(std::uint64_t id, runtime::Loop& loop, Options options,
               std::weak_ptr<MemberOwner> owner, FleetMetrics& metrics, const Clock& clock)
    : id_(id),
      loop_(loop),
      options_(std::move(options)),
      owner_(std::move(owner)),
      metrics_(metrics),
      clock_(clock),
      address_text_(net::to_string(options_.link.address)) {
    canary_events_ = std::make_unique<CanaryEvents>([this](bool got) { canary_ended(got); });
}

Member::~Member() = default;

void Member::start() {
    metrics_.dialled();
    link_ = requests::connect_link(loop_, options_.link, *this, clock_);
}

std::shared_ptr<const WorkerInfo> Member::info() const {
    const std::scoped_lock lock(mutex_);
    return info_;
}

std::string Member::reason() const {
    const std::scoped_lock lock(mutex_);
    return reason_;
}

void Member::apply(MemberEvent event, std::string_view why) {
    const MemberState before = state();
    const MemberState after = next_state(before, event);
    if (after == before) return;
    const auto words = info();
    {
        const std::scoped_lock lock(mutex_);
        reason_ = why;
    }
    state_.store(after, std::memory_order_release);
    metrics_.moved(before, after);
    // An address where nobody answers is tried again and again: not news each time.
    const bool news = words != nullptr;
    if (news) {
        log_info("A worker changed its state.", {{"worker", words->name},
                                                 {"address", address_text_},
                                                 {"from", to_string(before)},
                                                 {"to", to_string(after)},
                                                 {"event", to_string(event)},
                                                 {"reason", why}});
    } else {
        log_debug("A worker can't be reached.", {{"address", address_text_}, {"reason", why}});
    }
    if (const auto owner = owner_.lock()) owner->changed();
}

std::optional<Error> Member::contradiction(const WorkerInfo& info) const {
    const auto wrong = [&](std::string what) {
        return error(ErrorCode::kDataLoss, "the worker {} {}", info.name, what).value();
    };
    for (std::size_t i = 0; i < info.ranks.size(); ++i) {
        if (info.ranks[i].rank != i) return wrong("numbers its ranks with gaps");
    }
    if (info.ranks.empty() && !info.loading) return wrong("has no ranks");
    const auto before = this->info();
    if (!before) return std::nullopt;
    if (before->incarnation != info.incarnation) return wrong("changed its incarnation");
    if (before->name != info.name) return wrong("changed its name from " + before->name);
    if (before->loading) return std::nullopt;
    if (!protocol::same_pool(before->card, info.card)) return wrong("changed its model");
    if (before->ranks.size() != info.ranks.size()) return wrong("changed its number of ranks");
    return std::nullopt;
}

void Member::on_info(const WorkerInfo& words) {
    if (auto wrong = contradiction(words)) return send_away(*wrong);
    if (!claimed_) {
        const auto owner = owner_.lock();
        std::string held_by;
        if (!owner || !owner->claim(words.incarnation, address(), held_by)) {
            return send_away(error(ErrorCode::kAborted,
                                   "the worker {} is reached at {} already; the second address is "
                                   "not used",
                                   words.name, held_by)
                                 .value());
        }
        claimed_ = true;
        last_progress_ = clock_.now();
    }
    // Ranks may appear when loading ends, and stay then.
    if (ranks_.empty()) {
        for (const protocol::RankInfo& rank : words.ranks) {
            auto& load = ranks_.emplace_back(std::make_unique<RankLoad>());
            load->running_limit.store(rank.max_running, std::memory_order_relaxed);
            load->waiting_limit.store(rank.max_waiting, std::memory_order_relaxed);
            load->kv_total.store(rank.kv_total_tokens, std::memory_order_relaxed);
        }
        rank_count_.store(ranks_.size(), std::memory_order_release);
    }
    {
        const std::scoped_lock lock(mutex_);
        info_ = std::make_shared<const WorkerInfo>(words);
    }
    if (words.draining) {
        apply(MemberEvent::kGoAway, "it says that it is draining");
    } else if (words.loading) {
        apply(MemberEvent::kLoading, "it is loading its model");
    } else if (!leaving_) {
        apply(MemberEvent::kReady, "it says that it is ready");
    }
    if (const auto owner = owner_.lock()) owner->changed();
}

void Member::on_load(const requests::LoadMessage& message) {
    if (message.rank >= ranks_.size()) {
        return send_away(error(ErrorCode::kDataLoss,
                               "the worker reports load of rank {}, but has {}", message.rank,
                               ranks_.size())
                             .value());
    }
    RankLoad& rank = *ranks_[message.rank];
    const protocol::LoadReport& load = message.load;
    rank.running.store(load.running, std::memory_order_relaxed);
    rank.waiting.store(load.waiting, std::memory_order_relaxed);
    rank.running_limit.store(load.running_limit, std::memory_order_relaxed);
    rank.waiting_limit.store(load.waiting_limit, std::memory_order_relaxed);
    rank.waiting_tokens.store(load.waiting_tokens, std::memory_order_relaxed);
    rank.kv_used.store(load.kv_used_tokens, std::memory_order_relaxed);
    rank.kv_cached.store(load.kv_cached_tokens, std::memory_order_relaxed);
    rank.kv_total.store(load.kv_total_tokens, std::memory_order_relaxed);
    while (!rank.bookings.empty() && rank.bookings.front() <= message.booking)
        rank.bookings.pop_front();
    rank.unseen.store(static_cast<std::uint32_t>(rank.bookings.size()), std::memory_order_relaxed);
    if (message.steps > std::exchange(rank.steps, message.steps)) last_progress_ = clock_.now();
}

protocol::LoadReport Member::load(std::uint32_t index) const {
    protocol::LoadReport out;
    if (index >= rank_count_.load(std::memory_order_acquire)) return out;
    const RankLoad& rank = *ranks_[index];
    const auto reserved = rank.reserved.load(std::memory_order_relaxed);
    out.running = rank.running.load(std::memory_order_relaxed);
    out.waiting = rank.waiting.load(std::memory_order_relaxed) +
                  rank.unseen.load(std::memory_order_relaxed) +
                  static_cast<std::uint32_t>(std::max(reserved, 0));
    out.running_limit = rank.running_limit.load(std::memory_order_relaxed);
    out.waiting_limit = rank.waiting_limit.load(std::memory_order_relaxed);
    out.waiting_tokens = rank.waiting_tokens.load(std::memory_order_relaxed);
    out.kv_used_tokens = rank.kv_used.load(std::memory_order_relaxed);
    out.kv_cached_tokens = rank.kv_cached.load(std::memory_order_relaxed);
    out.kv_total_tokens = rank.kv_total.load(std::memory_order_relaxed);
    return out;
}

void Member::reserve(std::uint32_t rank, int change) {
    if (rank >= rank_count_.load(std::memory_order_acquire)) return;
    ranks_[rank]->reserved.fetch_add(change, std::memory_order_relaxed);
}

void Member::on_go_away(const requests::GoAway& go_away) {
    apply(MemberEvent::kGoAway, go_away.reason);
    close_if_done();
}

void Member::on_silent(bool silent) {
    if (silent) {
        apply(MemberEvent::kSilent, "nothing was heard of it");
    } else if (!canary_ && !stuck_) {
        apply(MemberEvent::kHeard, "it was heard again");
    }
}

Result<requests::StreamId> Member::open(std::shared_ptr<const protocol::GenerateRequest> request,
                                        std::uint32_t rank, StreamEvents& events,
                                        std::uint64_t tag) {
    reserve(rank, -1);
    const MemberState now = state();
    if (!link_ || now == MemberState::kGone || now == MemberState::kDraining) {
        return error(ErrorCode::kUnavailable, "the worker at {} takes no more requests",
                     address_text_);
    }
    if (rank >= ranks_.size()) {
        return error(ErrorCode::kUnavailable, "the worker at {} has no rank {}", address_text_,
                     rank);
    }
    const std::uint64_t booking = ++next_booking_;
    auto stream = link_->open(std::move(request), rank, booking);
    if (!stream) return stream;
    if (streams_.empty()) last_progress_ = clock_.now();
    streams_.emplace(stream->value, Stream{&events, tag});
    open_count_.store(streams_.size(), std::memory_order_relaxed);
    RankLoad& load = *ranks_[rank];
    load.bookings.push_back(booking);
    load.unseen.store(static_cast<std::uint32_t>(load.bookings.size()), std::memory_order_relaxed);
    return stream;
}

void Member::cancel(requests::StreamId stream) {
    if (streams_.erase(stream.value) == 0) return;
    open_count_.store(streams_.size(), std::memory_order_relaxed);
    if (link_) link_->cancel(stream);
    close_if_done();
}

void Member::fetch(const requests::Fetch& what, std::function<void(Result<std::string>)> done) {
    if (!link_ || state() == MemberState::kGone) {
        return done(error(ErrorCode::kUnavailable, "the worker at {} is gone", address_text_));
    }
    auto number = link_->fetch(what);
    if (!number) return done(tl::unexpected(std::move(number.error())));
    fetches_.emplace(*number, std::move(done));
}

void Member::on_fetched(std::uint64_t fetch, Result<std::string> body) {
    const auto found = fetches_.find(fetch);
    if (found == fetches_.end()) return;
    const auto done = std::move(found->second);
    fetches_.erase(found);
    done(std::move(body));
}

void Member::on_step(requests::StreamId stream, const protocol::StepEvent& event,
                     std::span<const protocol::TokenOutput> tokens,
                     std::span<const protocol::TokenLogprob> top) {
    const auto found = streams_.find(stream.value);
    if (found == streams_.end()) return;
    const Stream target = found->second;
    if (event.finish) {
        streams_.erase(found);
        open_count_.store(streams_.size(), std::memory_order_relaxed);
    }
    if (std::ranges::find(touched_, target.events) == touched_.end()) {
        touched_.push_back(target.events);
    }
    target.events->on_step(target.tag, event, tokens, top);
}

void Member::on_turn_end() {
    if (touched_.empty()) return;
    last_progress_ = clock_.now();
    for (StreamEvents* events : touched_) events->on_turn_end();
    touched_.clear();
    close_if_done();
}

void Member::on_lost(const Error& why) {
    link_.reset();
    over(why);
}

void Member::send_away(const Error& why) {
    sent_away_ = true;
    metrics_.refused();
    log_warn("A worker is sent away.", {{"address", address_text_}, {"reason", why.message}});
    // Not from within the link's own call.
    loop_.post([self = shared_from_this(), why] { self->end(why); });
}

void Member::leave() {
    leaving_ = true;
    if (open_streams() == 0) {
        return end(error(ErrorCode::kCancelled, "discovery does not name it any more").value());
    }
    apply(MemberEvent::kGoAway, "discovery does not name it any more");
}

/// A worker that discovery has dropped is kept for its streams alone.
void Member::close_if_done() {
    if (!leaving_ || !streams_.empty() || state() == MemberState::kGone) return;
    loop_.post([self = shared_from_this()] {
        self->end(error(ErrorCode::kCancelled, "discovery does not name it any more").value());
    });
}

void Member::end(const Error& why) {
    if (state() == MemberState::kGone) return;
    if (link_) link_->close();
    link_.reset();
    over(why);
}

void Member::over(const Error& why) {
    if (state() == MemberState::kGone) return;
    const auto self = shared_from_this();
    apply(leaving_ ? MemberEvent::kRemoved : MemberEvent::kLost, why.message);
    lose_streams(why);
    const auto fetches = std::exchange(fetches_, {});
    for (const auto& [number, done] : fetches) done(tl::unexpected(why));
    const auto owner = owner_.lock();
    if (!owner) return;
    if (claimed_) owner->release(info()->incarnation, address());
    owner->gone(self, sent_away_);
}

void Member::lose_streams(const Error& why) {
    canary_.reset();
    const auto streams = std::exchange(streams_, {});
    open_count_.store(0, std::memory_order_relaxed);
    for (auto& rank : ranks_) {
        rank->bookings.clear();
        rank->unseen.store(0, std::memory_order_relaxed);
    }
    std::size_t lost = 0;
    for (const auto& [stream, target] : streams) {
        if (target.events == canary_events_.get()) continue;
        ++lost;
        target.events->on_stream_lost(target.tag, why);
    }
    metrics_.streams_lost(lost);
}

void Member::check_progress() {
    if (!link_ || (streams_.empty() && !stuck_)) return;
    const TimePoint now = clock_.now();
    if (canary_) {
        if (canary_deadline_.reached(now)) canary_ended(false);
        return;
    }
    if (now - last_progress_ >= options_.canary_after) send_canary(now);
}

void Member::send_canary(TimePoint now) {
    canary_deadline_ = Deadline::after(now, options_.canary_within);
    metrics_.canary_sent();
    log_warn("A worker makes no step; it is asked for one token.", {{"address", address_text_}});
    reserve(0, 1);
    auto stream = open(canary_request(canary_deadline_), 0, *canary_events_, 0);
    if (stream) canary_ = *stream;
    last_progress_ = now;
}

void Member::canary_ended(bool got_token) {
    if (!canary_) return;
    const requests::StreamId stream = *canary_;
    canary_.reset();
    stuck_ = !got_token;
    if (got_token) return apply(MemberEvent::kCanaryBack, "its engine gave a token");
    metrics_.canary_lost();
    apply(MemberEvent::kCanaryLost, "its engine gave no token");
    // From within a step the link can't be told to cancel streams that are not the step's.
    loop_.post([self = shared_from_this(), stream] {
        std::vector<requests::StreamId> all{stream};
        for (const auto& [id, target] : self->streams_) all.emplace_back(id);
        if (self->link_) {
            for (const auto id : all) self->link_->cancel(id);
        }
        self->lose_streams(
            error(ErrorCode::kUnavailable, "its engine does not answer any more").value());
    });
}

}  // namespace stator::fleet
