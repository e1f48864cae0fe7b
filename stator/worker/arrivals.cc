#include "stator/worker/arrivals.h"

#include <algorithm>
#include <span>
#include <utility>

#include "stator/base/log.h"

namespace stator::worker {
namespace {

using protocol::GenerateRequest;
using protocol::Handoff;
using protocol::HandoffBytes;
using protocol::HandoffPart;
using protocol::Leg;
using protocol::MediaItem;

constexpr std::string_view kKv = "kv";
constexpr std::string_view kEmbeddings = "embeddings";

/// Empty: it is what this engine would have computed.
std::string_view mismatch(const Handoff& h, const GenerateRequest& q, const std::string& layout) {
    if (h.layout != layout || layout.empty()) return "its layout is not this model's";
    if (h.tokens + std::size_t{1} != q.prompt.size()) return "it covers another number of tokens";
    const auto covered = std::span(q.prompt).first(h.tokens);
    if (h.content != protocol::kv_content(covered, q.cache_salt)) return "it is of another prompt";
    return {};
}

std::size_t prompt_tokens_of(const Handoff& embeddings) {
    if (embeddings.pieces.empty()) return embeddings.tokens;
    std::size_t n = 0;
    for (const auto& piece : embeddings.pieces) n += piece.rows + piece.text.size();
    return n;
}

/// The first item with this handoff.
std::size_t first_of(const std::vector<MediaItem>& media, const protocol::HandoffId& id) {
    std::size_t i = 0;
    while (media[i].embeddings->id != id) ++i;
    return i;
}

tl::unexpected<Error> encode_again(std::string_view why) {
    auto e = error(ErrorCode::kUnavailable, "a media item's embeddings are not here: {}", why);
    e.value().param = "media";
    e.value().retryable = true;
    return e;
}

bool is_object(const MediaItem& item) {
    return item.embeddings && !item.embeddings->object.empty();
}

Result<void> check_media(const GenerateRequest& q) {
    for (const MediaItem& item : q.media) {
        if (!item.embeddings) return encode_again("it was not encoded");
        if (item.embeddings->content != item.digest ||
            prompt_tokens_of(*item.embeddings) != item.tokens) {
            return param_error("media",
                               "the embeddings of the item at {} are not this item's in {} tokens",
                               item.position, item.tokens);
        }
    }
    return {};
}

}  // namespace

Arrivals::Arrivals(runtime::Loop& loop, std::shared_ptr<transfer::TransferPlane> transfer,
                   const WorkerMetrics& metrics, const Clock& clock,
                   std::chrono::milliseconds claim_within, Ready ready)
    : transfer_(std::move(transfer)),
      metrics_(metrics),
      clock_(clock),
      claim_within_(claim_within),
      ready_(std::move(ready)),
      // Closed before this is gone.
      mailbox_(std::make_shared<Mailbox>(loop, [this](std::vector<Arrived>&& all) {
          for (Arrived& one : all) arrived(std::move(one));
      })) {}

Arrivals::~Arrivals() { close(); }

bool Arrivals::needed(const GenerateRequest& q) {
    return (q.leg == Leg::kDecode && (q.handoff || !q.media.empty())) ||
           (q.leg != Leg::kEncode && !q.media.empty());
}

Result<bool> Arrivals::begin(std::uint32_t stream, GenerateRequest& request,
                             const ArrivalPlan& plan) {
    if (request.leg == Leg::kEncode) return false;
    if (request.leg == Leg::kDecode && request.handoff && !request.handoff->object.empty()) {
        if (engines_own(request, plan)) return false;
        request.handoff.reset();
        return claim_media(stream, request, plan.media_objects);
    }
    if (request.leg == Leg::kDecode && request.handoff) {
        const std::uint32_t covered = request.handoff->tokens;
        if (claim_kv(stream, request, plan)) return true;
        // The engine's own cache covers what the handoff does, and so any media in it.
        if (covered + std::size_t{1} == request.prompt.size() && plan.cached_tokens >= covered) {
            return false;
        }
    }
    return claim_media(stream, request, plan.media_objects);
}

/// Whether the engine can do something with another engine's object.
bool Arrivals::engines_own(const GenerateRequest& request, const ArrivalPlan& plan) {
    std::string_view why = mismatch(*request.handoff, request, plan.kv_layout);
    if (why.empty() && plan.kv_method.empty()) why = "this engine takes KV another way";
    metrics_.handoff(kKv, why.empty() ? "passed_on" : "mismatch");
    if (why.empty()) return true;
    log_info("A handoff is of no use here; the prompt is computed again.", {{"why", why}});
    return false;
}

/// False: there is nothing to wait for, and the engine computes what it has not.
bool Arrivals::claim_kv(std::uint32_t stream, GenerateRequest& request, const ArrivalPlan& plan) {
    const auto what = request.handoff;
    if (!transfer_) {
        metrics_.handoff(kKv, "no_transfer");
        return false;
    }
    if (const auto why = mismatch(*what, request, plan.kv_layout); !why.empty()) {
        log_info("A handoff is of no use here; the prompt is computed again.", {{"why", why}});
        metrics_.handoff(kKv, "mismatch");
        transfer_->release(what);
        return false;
    }
    std::vector<std::uint32_t> parts;
    for (std::uint32_t i = 0; i < what->parts.size(); ++i) {
        const HandoffPart& part = what->parts[i];
        if (part.first + part.tokens > plan.cached_tokens) parts.push_back(i);
    }
    if (plan.cached_tokens >= what->tokens) {
        metrics_.handoff(kKv, "cached");
        transfer_->release(what);
        return false;
    }
    if (parts.size() == what->parts.size()) parts.clear();  // all
    Waiting& waiting = waiting_[stream];
    waiting.request = std::move(request);
    waiting.kv = true;
    waiting.missing = 1;
    claim(waiting, stream, 0, what, std::move(parts));
    return true;
}

Result<bool> Arrivals::claim_media(std::uint32_t stream, GenerateRequest& request, bool objects) {
    if (request.media.empty()) return false;
    if (objects) {
        // The engine fetches them itself, or makes them again of what travels beside them.
        for (const MediaItem& item : request.media) {
            if (!is_object(item)) return encode_again("this engine takes its own alone");
        }
        if (auto sound = check_media(request); !sound) {
            return tl::unexpected(std::move(sound.error()));
        }
        return false;
    }
    if (std::ranges::any_of(request.media, is_object)) {
        return encode_again("they are another engine's own");
    }
    if (!transfer_) {
        // The fleet's fault, not the client's: another rank may.
        auto refused =
            error(ErrorCode::kUnavailable, "this worker takes no handoffs, and so no media");
        refused.value().retryable = true;
        return refused;
    }
    if (auto sound = check_media(request); !sound) {
        return tl::unexpected(std::move(sound.error()));
    }
    Waiting& waiting = waiting_[stream];
    waiting.request = std::move(request);
    waiting.kv = false;
    const auto& media = waiting.request.media;
    for (std::size_t i = 0; i < media.size(); ++i) {
        // One picture in two places is one handoff, which can be claimed once.
        if (first_of(media, media[i].embeddings->id) < i) continue;
        ++waiting.missing;
        claim(waiting, stream, i, media[i].embeddings, {});
    }
    return true;
}

void Arrivals::claim(Waiting& waiting, std::uint32_t stream, std::size_t item,
                     std::shared_ptr<const Handoff> what, std::vector<std::uint32_t> parts) {
    transfer::ClaimOptions options;
    options.parts = std::move(parts);
    options.deadline =
        std::min(waiting.request.deadline, Deadline::after(clock_.now(), claim_within_));
    waiting.claims.push_back(transfer_->claim(
        std::move(what), std::move(options),
        [mailbox = mailbox_, stream, item,
         kv = waiting.kv](Result<std::shared_ptr<const HandoffBytes>> bytes) {
            mailbox->push({.stream = stream, .item = item, .kv = kv, .bytes = std::move(bytes)});
        }));
}

void Arrivals::arrived(Arrived&& what) {
    metrics_.handoff(what.kv ? kKv : kEmbeddings,
                     what.bytes ? "claimed" : to_string(what.bytes.error().code));
    const auto it = waiting_.find(what.stream);
    if (it == waiting_.end() || it->second.kv != what.kv) return;  // cancelled meanwhile
    Waiting& waiting = it->second;
    if (what.kv) {
        Waiting taken = std::move(waiting);
        waiting_.erase(it);
        return kv_arrived(what.stream, std::move(taken), std::move(what));
    }
    if (!what.bytes) {
        log_info("A media item's embeddings did not come.",
                 {{"item", what.item}, {"why", what.bytes.error().message}});
        const bool late = waiting.request.deadline.reached(clock_.now());
        cancel(what.stream);
        if (!late) return finish(what.stream, encode_again(what.bytes.error().message));
        return finish(what.stream, error(ErrorCode::kDeadlineExceeded,
                                         "the deadline passed before its media were there"));
    }
    auto& media = waiting.request.media;
    const protocol::HandoffId id = media[what.item].embeddings->id;
    for (MediaItem& item : media) {
        if (item.embeddings->id == id) item.arrived = *what.bytes;
    }
    if (--waiting.missing > 0) return;
    GenerateRequest request = std::move(waiting.request);
    waiting_.erase(it);
    finish(what.stream, std::move(request));
}

void Arrivals::kv_arrived(std::uint32_t stream, Waiting waiting, Arrived&& what) {
    GenerateRequest& request = waiting.request;
    if (what.bytes) {
        request.kv = std::move(*what.bytes);
        return finish(stream, std::move(request));
    }
    log_info("A handoff did not come; the prompt is computed again.",
             {{"tokens", request.prompt.size()}, {"why", what.bytes.error().message}});
    auto claiming = claim_media(stream, request, false);
    if (!claiming) return finish(stream, tl::unexpected(std::move(claiming.error())));
    if (!*claiming) finish(stream, std::move(request));
}

void Arrivals::finish(std::uint32_t stream, Result<GenerateRequest> outcome) {
    ready_(stream, std::move(outcome));
}

void Arrivals::cancel(std::uint32_t stream) {
    const auto it = waiting_.find(stream);
    if (it == waiting_.end()) return;
    const std::vector<transfer::ClaimId> claims = std::move(it->second.claims);
    waiting_.erase(it);
    for (const transfer::ClaimId id : claims) transfer_->cancel(id);
}

void Arrivals::close() {
    mailbox_->close();
    for (const auto& [stream, waiting] : std::exchange(waiting_, {})) {
        for (const transfer::ClaimId id : waiting.claims) transfer_->cancel(id);
    }
}

}  // namespace stator::worker
