#include "stator/transfer/claims.h"

#include <algorithm>
#include <utility>

#include "stator/runtime/asio.h"
#include "stator/transfer/random.h"

namespace stator::transfer {
namespace {

constexpr std::size_t kMaxClaims = 8192;  // waiting ones too

/// No other way would bring what this one did not.
bool is_final(ErrorCode code) {
    return code == ErrorCode::kNotFound || code == ErrorCode::kDataLoss ||
           code == ErrorCode::kCancelled || code == ErrorCode::kDeadlineExceeded ||
           code == ErrorCode::kInvalidArgument;
}

Error cancelled() { return error(ErrorCode::kCancelled, "the claim was cancelled").value(); }

}  // namespace

/// One claim.
struct Claims::Work {
    ClaimId id;
    std::shared_ptr<const protocol::Handoff> what;
    std::vector<std::uint32_t> parts;
    std::uint64_t bytes = 0;
    Callback done;
    ClaimKey key{};
    std::vector<Way> ways;
    std::size_t next_way = 0;
    bool counted = false;  ///< in incoming_
    std::shared_ptr<Attempt> attempt;
    TimePoint attempt_start;
    Error last;
    std::optional<boost::asio::steady_timer> timer;
};

Claims::Claims(std::shared_ptr<runtime::Loop> loop, std::shared_ptr<Store> store,
               std::shared_ptr<TransferMetrics> metrics, const Clock& clock)
    : loop_(std::move(loop)),
      store_(std::move(store)),
      metrics_(std::move(metrics)),
      clock_(clock) {}

Result<Claims::WorkPtr> Claims::accept(std::shared_ptr<const protocol::Handoff> what,
                                       const ClaimOptions& options) const {
    if (stopped_) return tl::unexpected<Error>(cancelled());
    if (!what || what->parts.size() > protocol::kMaxHandoffParts ||
        what->places.size() > protocol::kMaxPlaces) {
        return error(ErrorCode::kInvalidArgument, "no handoff, or one with too many parts");
    }
    std::uint64_t at = 0;
    for (const protocol::HandoffPart& part : what->parts) {
        if (part.offset != at || part.bytes > what->bytes - at) {
            return error(ErrorCode::kInvalidArgument,
                         "a handoff whose parts do not follow each other within its bytes");
        }
        at += part.bytes;
    }
    auto work = std::make_shared<Work>();
    work->parts = options.parts;
    if (work->parts.empty()) {
        for (std::uint32_t i = 0; i < what->parts.size(); ++i) work->parts.push_back(i);
    }
    for (std::size_t i = 0; i < work->parts.size(); ++i) {
        if (work->parts[i] >= what->parts.size() ||
            (i > 0 && work->parts[i] <= work->parts[i - 1])) {
            return error(ErrorCode::kInvalidArgument,
                         "the wanted parts must be indexes in ascending order");
        }
        work->bytes += what->parts[work->parts[i]].bytes;
    }
    work->what = std::move(what);
    work->key = random_bytes<std::tuple_size_v<ClaimKey>>();
    return work;
}

bool Claims::is_own(const protocol::Handoff& what) const {
    return std::ranges::any_of(what.places, [this](const protocol::TransferPlace& place) {
        return std::ranges::find(options_.own, place) != options_.own.end();
    });
}

void Claims::claim(ClaimId id, std::shared_ptr<const protocol::Handoff> what, ClaimOptions options,
                   Callback done) {
    auto accepted = accept(std::move(what), options);
    if (!accepted) {
        metrics_->failed("none", accepted.error().code);
        done(tl::unexpected<Error>(std::move(accepted.error())));
        return;
    }
    const WorkPtr work = std::move(*accepted);
    work->id = id;
    work->done = std::move(done);
    if (options.deadline.reached(clock_.now())) {
        release(*work->what);
        end(work, error(ErrorCode::kDeadlineExceeded, "there was no time left for the claim"));
        return;
    }
    if (is_own(*work->what)) {
        claim_own(work);
        return;
    }
    for (std::size_t b = 0; b < options_.ways.size(); ++b) {
        for (std::size_t p = 0; p < work->what->places.size(); ++p) {
            if (work->what->places[p].method == options_.ways[b].first) {
                work->ways.push_back({.backend = b, .place = p});
            }
        }
    }
    std::optional<Error> refused;
    if (work->ways.empty()) {
        refused = error(ErrorCode::kUnavailable, "the handoff can be had in no way that works here")
                      .value();
    } else if (work->bytes > options_.incoming_bytes) {
        refused =
            error(ErrorCode::kExhausted, "a claim of {} bytes is more than may come in at once, {}",
                  work->bytes, options_.incoming_bytes)
                .value();
    } else if (works_.size() >= kMaxClaims) {
        refused =
            error(ErrorCode::kExhausted, "more than {} claims are under way", kMaxClaims).value();
    }
    if (refused) {
        release(*work->what);
        metrics_->failed("none", refused->code);
        end(work, tl::unexpected<Error>(std::move(*refused)));
        return;
    }
    works_.emplace(id, work);
    arm(work, options.deadline);
    waiting_.push_back(work);
    start_waiting();
}

void Claims::claim_own(const WorkPtr& work) {
    auto granted = store_->claim(work->what->id, work->key, 0);
    if (!granted) {
        metrics_->failed(TransferMetrics::kLocal, granted.error().code);
        end(work, tl::unexpected<Error>(std::move(granted.error())));
        return;
    }
    Attempt attempt{.what = work->what,
                    .parts = work->parts,
                    .bytes = work->bytes,
                    .key = work->key,
                    .finish = nullptr};
    const std::byte* begin = (*granted)->bytes().data();
    const void* const held = granted->get();
    std::shared_ptr<const void> keep(
        held, [kept = std::move(*granted), weak = std::weak_ptr(store_)](const void*) mutable {
            const std::uint64_t number = kept->number;
            kept.reset();
            if (const auto store = weak.lock()) store->finish(number);
        });
    metrics_->claimed(TransferMetrics::kLocal, work->bytes, 0);
    end(work, arrived(attempt, std::move(keep),
                      [&](std::uint32_t part) { return begin + work->what->parts[part].offset; }));
}

void Claims::arm(const WorkPtr& work, Deadline deadline) {
    const auto left = deadline.left(clock_.now());
    work->timer.emplace(runtime::asio_context(*loop_));
    work->timer->expires_after(std::min<std::chrono::nanoseconds>(left, options_.longest));
    work->timer->async_wait([weak = weak_from_this(), work](const boost::system::error_code& ec) {
        const auto self = weak.lock();
        if (ec || !self || !self->works_.contains(work->id)) return;
        const std::string& last = work->last.message;
        self->give_up(work,
                      error(ErrorCode::kDeadlineExceeded, "the handoff did not arrive in time{}{}",
                            last.empty() ? "" : "; before: ", last)
                          .value());
    });
}

void Claims::start_waiting() {
    while (!waiting_.empty()) {
        const WorkPtr work = waiting_.front();
        if (incoming_ > 0 && work->bytes > options_.incoming_bytes - incoming_) return;
        waiting_.pop_front();
        work->counted = true;
        incoming_ += work->bytes;
        work->next_way = 0;
        try_next(work);
    }
}

void Claims::try_next(const WorkPtr& work) {
    const Way way = work->ways[work->next_way++];
    auto attempt = std::make_shared<Attempt>();
    attempt->what = work->what;
    attempt->parts = work->parts;
    attempt->bytes = work->bytes;
    attempt->key = work->key;
    attempt->last = work->next_way == work->ways.size();
    attempt->finish = [weak = weak_from_this(), loop = std::weak_ptr(loop_), work,
                       raw = std::weak_ptr(attempt)](auto result) {
        const auto alive = loop.lock();
        const auto of = raw.lock();
        if (!alive || !of) return;
        // In a later turn, also when it is called on the loop.
        alive->post([weak, work, of, result = std::move(result)]() mutable {
            if (const auto self = weak.lock()) self->on_attempt_end(work, of, std::move(result));
        });
    };
    work->attempt = attempt;
    work->attempt_start = clock_.now();
    options_.ways[way.backend].second->claim(work->what->places[way.place], std::move(attempt));
}

void Claims::on_attempt_end(const WorkPtr& work, const std::shared_ptr<Attempt>& attempt,
                            Result<std::shared_ptr<const protocol::HandoffBytes>> result) {
    if (work->attempt != attempt || !works_.contains(work->id)) return;  // given up meanwhile
    work->attempt = nullptr;
    const std::string& method = options_.ways[work->ways[work->next_way - 1].backend].first;
    if (result) {
        metrics_->claimed(method, work->bytes, to_seconds(clock_.now() - work->attempt_start));
        end(work, std::move(result));
        return;
    }
    metrics_->failed(method, result.error().code);
    work->last = std::move(result.error());
    if (is_final(work->last.code)) {
        end(work, tl::unexpected<Error>(work->last));
    } else if (work->next_way < work->ways.size()) {
        try_next(work);
    } else if (work->last.code == ErrorCode::kExhausted && options_.memory->taken_bytes() > 0) {
        // Comes back when something that arrived is let go.
        work->counted = false;
        incoming_ -= work->bytes;
        waiting_.push_front(work);
    } else {
        if (work->last.code != ErrorCode::kExhausted) work->last.code = ErrorCode::kUnavailable;
        end(work, tl::unexpected<Error>(work->last));
    }
}

void Claims::memory_freed() { start_waiting(); }

void Claims::cancel(ClaimId id) {
    if (const auto found = works_.find(id); found != works_.end()) {
        give_up(WorkPtr(found->second), cancelled());
    }
}

void Claims::give_up(const WorkPtr& work, Error why) {
    if (work->attempt) {
        work->attempt->cancelled = true;  // the backend lets go of what it is granted
    } else {
        release(*work->what);
    }
    metrics_->failed("none", why.code);
    end(work, tl::unexpected<Error>(std::move(why)));
}

void Claims::end(const WorkPtr& work,
                 Result<std::shared_ptr<const protocol::HandoffBytes>> result) {
    if (work->timer) work->timer->cancel();
    work->attempt = nullptr;  // which knows the work
    if (std::exchange(work->counted, false)) incoming_ -= work->bytes;
    std::erase(waiting_, work);
    works_.erase(work->id);
    const auto done = std::exchange(work->done, nullptr);
    done(std::move(result));
    if (!stopped_) start_waiting();
}

void Claims::release(const protocol::Handoff& what) {
    if (is_own(what)) {
        store_->release(what.id);
        return;
    }
    for (const auto& [method, backend] : options_.ways) {
        for (const protocol::TransferPlace& place : what.places) {
            if (place.method != method) continue;
            backend->release(place, what.id);
            if (method != "shm") return;  // "shm" finds only processes of this machine
        }
    }
}

void Claims::stop() {
    stopped_ = true;
    while (!works_.empty()) give_up(WorkPtr(works_.begin()->second), cancelled());
}

}  // namespace stator::transfer
