#include "stator/engine/llama/encoder_desk.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "stator/base/clock.h"

namespace stator::engine::llama {

EncoderDesk::EncoderDesk(std::unique_ptr<MediaEncoder> encoder,
                         std::shared_ptr<transfer::HandoffStore> store, std::uint64_t cache_bytes,
                         metrics::Registry* registry, Done done)
    : encoder_(std::move(encoder)),
      store_(std::move(store)),
      cache_(cache_bytes),
      metrics_(registry != nullptr ? *registry : unread_),
      done_(std::move(done)) {
    thread_ = std::thread([this] { run(); });
}

EncoderDesk::~EncoderDesk() {
    {
        const std::scoped_lock lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

void EncoderDesk::ask(protocol::RequestId id, protocol::MediaItem item, Deadline deadline) {
    {
        const std::scoped_lock lock(mutex_);
        jobs_.push_back({id, std::move(item), deadline});
        metrics_.waiting(jobs_.size());
    }
    wake_.notify_one();
}

void EncoderDesk::cancel(protocol::RequestId id) {
    const std::scoped_lock lock(mutex_);
    if (current_ == id) current_cancelled_ = true;
    const auto it = std::ranges::find(jobs_, id, &Job::id);
    if (it == jobs_.end()) return;
    it->cancelled = true;
    std::rotate(jobs_.begin(), it, it + 1);
}

std::size_t EncoderDesk::waiting() const {
    const std::scoped_lock lock(mutex_);
    return jobs_.size();
}

bool EncoderDesk::current_is_cancelled() const {
    const std::scoped_lock lock(mutex_);
    return current_cancelled_;
}

void EncoderDesk::run() {
    while (true) {
        Job job;
        {
            std::unique_lock lock(mutex_);
            current_ = {};
            wake_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
            if (stopping_) return;
            job = std::move(jobs_.front());
            jobs_.pop_front();
            metrics_.waiting(jobs_.size());
            current_ = job.id;
            current_cancelled_ = job.cancelled;
        }
        work(job);
    }
}

void EncoderDesk::work(const Job& job) {
    const Clock& clock = Clock::real();
    const auto cancelled = [] { return error(ErrorCode::kCancelled, "It was cancelled."); };
    const TimePoint start = clock.now();
    if (current_is_cancelled()) return end(job, cancelled(), false, 0);
    if (job.deadline.reached(start)) {
        return end(job, error(ErrorCode::kDeadlineExceeded, "The request's time ran out."), false,
                   0);
    }
    auto encoded = cache_.find(job.item.digest);
    const bool cached = encoded != nullptr;
    double seconds = 0.0;
    if (cached) {
        metrics_.found();
    } else {
        metrics_.not_found();
        const std::uint64_t before = frames();
        const auto done = [&](std::uint32_t count) {
            frames_.store(before + count, std::memory_order_relaxed);
            return !current_is_cancelled();
        };
        auto made = encoder_->encode(*job.item.content, job.item.digest, done);
        if (made) done(job.item.content->frames);
        seconds = to_seconds(clock.now() - start);
        metrics_.encoded(seconds, made ? made->count : 0);
        if (!made) return end(job, tl::unexpected<Error>(std::move(made.error())), false, seconds);
        encoded = std::make_shared<const Encoded>(std::move(*made));
        const std::uint64_t evicted = cache_.put(job.item.digest, encoded);
        metrics_.cached(cache_.bytes(), evicted);
    }
    if (current_is_cancelled()) return end(job, cancelled(), cached, seconds);
    end(job, leave(*encoded, job.item.digest), cached, seconds);
}

void EncoderDesk::end(const Job& job, Left left, bool cached, double seconds) {
    if (left) {
        metrics_.left();
    } else {
        metrics_.failed(left.error().code);
    }
    done_(job.id, std::move(left), cached, seconds);
}

EncoderDesk::Left EncoderDesk::leave(const Encoded& encoded, const protocol::Digest& digest) {
    const auto full = [](const Error& why) -> Left {
        auto refused =
            error(ErrorCode::kOverloaded, "The embeddings could not be left: {}", why.message);
        refused.value().retryable = true;
        return refused;
    };
    auto buffer = store_->reserve(encoded.bytes());
    if (!buffer) return full(buffer.error());
    std::memcpy((*buffer)->bytes().data(), encoded.rows.data(), encoded.bytes());
    protocol::Handoff what;
    what.kind = protocol::Handoff::Kind::kEmbeddings;
    what.layout = encoder_->layout();
    what.content = digest;
    what.tokens = encoded.count;
    what.parts = {{0, encoded.count, 0, encoded.bytes()}};
    what.pieces = encoded.pieces;
    auto published = store_->publish(std::move(*buffer), std::move(what));
    if (!published) return full(published.error());
    return published;
}

protocol::StepEvent end_of(protocol::RequestId id, EncoderDesk::Left left) {
    protocol::StepEvent event;
    event.id = id;
    if (left) {
        event.finish = protocol::FinishReason::kHandoff;
        event.handoff = std::move(*left);
        return event;
    }
    const ErrorCode code = left.error().code;
    const bool given_up = code == ErrorCode::kCancelled || code == ErrorCode::kDeadlineExceeded;
    event.finish = given_up ? protocol::FinishReason::kCancelled : protocol::FinishReason::kError;
    if (code != ErrorCode::kCancelled) event.error = std::move(left.error());
    return event;
}

}  // namespace stator::engine::llama
