#include "stator/frontend/media_stage.h"

#include <utility>

#include "stator/engine/engine.h"

namespace stator::frontend {

using protocol::FinishReason;

Error media_error(Error error) {
    if (error.retryable) return error;
    switch (error.code) {
        case ErrorCode::kInvalidArgument:
        case ErrorCode::kPermissionDenied:
        case ErrorCode::kNotFound:
        case ErrorCode::kTooLarge:
        case ErrorCode::kUnavailable:
        case ErrorCode::kDeadlineExceeded:
        case ErrorCode::kDataLoss:
            error.code = ErrorCode::kInvalidArgument;
            break;
        case ErrorCode::kUnauthenticated:
        case ErrorCode::kMethodNotAllowed:
        case ErrorCode::kUnsupported:
        case ErrorCode::kOverloaded:
        case ErrorCode::kCancelled:
        case ErrorCode::kAborted:
        case ErrorCode::kExhausted:
        case ErrorCode::kInternal:
        case ErrorCode::kUnknown:
            break;
    }
    if (!error.param.empty()) error.message = error.param + ": " + error.message;
    return error;
}

MediaStage::MediaStage(GenerationHub& hub, runtime::Loop& loop, PreparedRequest request,
                       Deadline deadline, Done done)
    : hub_(hub),
      loop_(loop),
      request_(std::move(request)),
      deadline_(deadline),
      done_(std::move(done)) {
    for (const media::MediaSource& source : request_.media) paths_.push_back(source.path);
}

void MediaStage::start(media::MediaLoader& loader) {
    using Loaded = Result<std::vector<media::LoadedMedia>>;
    auto done = [self = shared_from_this(), &loop = loop_](Loaded items) {
        auto kept = std::make_shared<Loaded>(std::move(items));
        loop.post([self, kept] { self->loaded(std::move(*kept)); });
    };
    load_ = loader.load(std::exchange(request_.media, {}), deadline_, std::move(done));
}

void MediaStage::loaded(Result<std::vector<media::LoadedMedia>> items) {
    load_.reset();
    if (!done_) return;
    if (!items) return finish(tl::unexpected<Error>(media_error(std::move(items.error()))));
    std::vector<EncodedItem> plain;
    for (media::LoadedMedia& item : *items) {
        plain.push_back({item.digest, std::move(item.content), nullptr});
    }
    by_choice_.assign(request_.fields.n, plain);
    legs_.resize(request_.fields.n * plain.size());
    encode(0, 1);
}

void MediaStage::encode(std::uint32_t first, std::uint32_t last) {
    const auto self = shared_from_this();
    const std::size_t items = paths_.size();
    open_legs_ = (last - first) * items;
    for (std::size_t leg = first * items; leg < last * items; ++leg) {
        const EncodedItem& item = by_choice_[leg / items][leg % items];
        protocol::GenerateRequest r;
        r.id = hub_.add(self, static_cast<std::uint32_t>(leg));
        r.leg = protocol::Leg::kEncode;
        r.media.push_back({item.digest, 0, 0, item.content, nullptr, nullptr});
        r.deadline = deadline_;
        r.priority = request_.priority;
        r.tenant = request_.tenant;
        r.cache_salt = request_.cache_salt;
        legs_[leg] = {r.id, true};
        const auto id = r.id;
        auto accepted = request_.entry->model.engine->submit(std::move(r), hub_.sink());
        if (accepted) continue;
        hub_.remove(id);
        legs_[leg].open = false;
        if (accepted.error().code == ErrorCode::kInvalidArgument) {
            accepted.error().param = paths_[leg % items];
        }
        return finish(std::move(accepted));
    }
}

Result<std::shared_ptr<const protocol::Handoff>> MediaStage::handoff_of(
    const protocol::StepEvent& event, TimePoint now) const {
    if (event.finish == FinishReason::kHandoff && event.handoff) return event.handoff;
    if (event.finish == FinishReason::kError && event.error) {
        return tl::unexpected<Error>(*event.error);
    }
    if (event.finish == FinishReason::kCancelled) {
        const bool late = deadline_.reached(now);
        auto e = error(late ? ErrorCode::kDeadlineExceeded : ErrorCode::kUnavailable, "{}",
                       late ? "the request ran out of its time while its media were encoded"
                            : "the server is stopping; the request was ended before it was done");
        e.value().retryable = true;
        return e;
    }
    return error(ErrorCode::kInternal, "the encoder gave no result");
}

void MediaStage::on_event(std::uint32_t leg, const protocol::StepEvent& event,
                          const protocol::StepBatch& batch, TimePoint now) {
    static_cast<void>(batch);
    if (!event.finish) return;
    hub_.remove(legs_[leg].id);
    legs_[leg].open = false;
    if (!done_) {  // cancelled, but it had ended before
        if (event.handoff) request_.entry->model.engine->release(event.handoff);
        return;
    }
    const std::size_t items = paths_.size();
    auto handoff = handoff_of(event, now);
    if (!handoff) {
        const bool about_item = handoff.error().code == ErrorCode::kInvalidArgument ||
                                handoff.error().code == ErrorCode::kUnsupported;
        if (about_item) handoff.error().param = paths_[leg % items];
        return finish(tl::unexpected<Error>(std::move(handoff.error())));
    }
    by_choice_[leg / items][leg % items].embeddings = std::move(*handoff);
    if (--open_legs_ > 0) return;
    if (std::exchange(first_round_, false) && request_.fields.n > 1) {
        return encode(1, request_.fields.n);
    }
    finish({});
}

void MediaStage::finish(Result<void> how) {
    const Done done = std::exchange(done_, nullptr);
    cancel_legs();
    if (how) how = add_media(request_, by_choice_);
    if (how) {
        by_choice_.clear();
        return done(std::move(request_));
    }
    release_embeddings();
    done(tl::unexpected<Error>(std::move(how.error())));
}

void MediaStage::abandon() {
    if (!std::exchange(done_, nullptr)) return;
    if (load_) load_->cancel();
    cancel_legs();
    release_embeddings();
}

void MediaStage::cancel_legs() {
    // They stay with the hub until they have ended.
    for (const Leg& leg : legs_) {
        if (leg.open) request_.entry->model.engine->cancel(leg.id);
    }
}

void MediaStage::release_embeddings() {
    for (const auto& items : by_choice_) {
        for (const EncodedItem& item : items) {
            if (item.embeddings) request_.entry->model.engine->release(item.embeddings);
        }
    }
    by_choice_.clear();
}

}  // namespace stator::frontend
