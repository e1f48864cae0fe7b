#include "stator/requests/request_body.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "stator/requests/leg_fields.h"

namespace stator::requests {
namespace {

using protocol::GenerateRequest;
using protocol::MediaContent;
using protocol::OutputConstraint;

/// Appends bytes [from, from + count) of what begins at `at` in the whole.
void append_overlap(std::string& out, std::string_view piece, std::size_t at, std::size_t from,
                    std::size_t count) {
    const std::size_t begin = std::max(from, at);
    const std::size_t end = std::min(from + count, at + piece.size());
    if (begin < end) out.append(piece.substr(begin - at, end - begin));
}

void take_constraint_out(OpenHead& head, const GenerateRequest& request, std::string& behind) {
    if (!request.constraint || request.constraint->text.size() <= kInlineConstraintBytes) return;
    auto shell = std::make_shared<OutputConstraint>();
    shell->kind = request.constraint->kind;
    shell->after = request.constraint->after;
    head.request.constraint = std::move(shell);
    head.behind.constraint = static_cast<std::uint32_t>(request.constraint->text.size());
    behind += request.constraint->text;
}

Result<void> take_legs_out(OpenHead& head, const GenerateRequest& request, TimePoint now,
                           std::string& behind) {
    if (leg_keys(request) == 0) return {};
    std::string map;
    codec::MsgpackWriter w(map);
    w.map(leg_keys(request));
    write_leg_keys(w, request, now);
    if (map.size() <= kInlineLegBytes) return {};
    if (map.size() > kMaxLegBytes) {
        return error(ErrorCode::kTooLarge,
                     "the request has {} bytes of handoffs and media, at most {}", map.size(),
                     kMaxLegBytes);
    }
    head.behind.legs = static_cast<std::uint32_t>(map.size());
    head.request.handoff.reset();
    head.request.media.clear();
    behind += map;
    return {};
}

}  // namespace

Result<OutgoingBody> OutgoingBody::make(std::shared_ptr<const GenerateRequest> request,
                                        OpenHead& head, TimePoint now) {
    OutgoingBody body;
    for (const protocol::MediaItem& item : request->media) {
        if (!sends_pixels(*request, item)) continue;
        body.pixels_.emplace_back(item.content->pixels);
        body.pixel_bytes_ += item.content->pixels.size();
    }
    if (auto ok = check_legs(*request, request->prompt.size(), body.pixel_bytes_); !ok) {
        return tl::unexpected(std::move(ok.error()));
    }
    take_constraint_out(head, *request, body.behind_);
    if (auto ok = take_legs_out(head, *request, now, body.behind_); !ok) {
        return tl::unexpected(std::move(ok.error()));
    }
    constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max() / 8;
    if (body.pixel_bytes_ > kMost || request->prompt.size() > kMost) {
        return error(ErrorCode::kTooLarge, "a prompt of {} tokens with {} bytes of pixels",
                     request->prompt.size(), body.pixel_bytes_);
    }
    head.behind.pixels = static_cast<std::uint32_t>(body.pixel_bytes_);
    head.prompt_tokens = static_cast<std::uint32_t>(request->prompt.size() + head.behind.words());
    body.request_ = std::move(request);
    return body;
}

std::size_t OutgoingBody::words() const {
    if (!request_) return 0;
    return request_->prompt.size() + (behind_.size() + pixel_bytes_ + 3) / 4;
}

void OutgoingBody::append(std::string& out, std::size_t from, std::size_t count) const {
    const auto& prompt = request_->prompt;
    const std::size_t end = out.size() + count * 4;
    std::size_t at = 0;
    const auto add = [&](std::string_view piece) {
        append_overlap(out, piece, at, from * 4, count * 4);
        at += piece.size();
    };
    add({reinterpret_cast<const char*>(prompt.data()), prompt.size() * 4});
    add(behind_);
    for (const std::string_view pixels : pixels_) add(pixels);
    out.resize(end, '\0');
}

std::size_t IncomingBody::prompt_words() const {
    return head_.prompt_tokens - static_cast<std::size_t>(head_.behind.words());
}

void IncomingBody::reserve() {
    head_.request.prompt.reserve(prompt_words());
    rest_.reserve(static_cast<std::size_t>(head_.behind.words()) * 4);
}

/// To each item its own, of what its size asks for: checked before.
void IncomingBody::give_pixels(GenerateRequest& q) {
    std::size_t at = 0;
    for (protocol::MediaItem& item : q.media) {
        if (!sends_pixels(q, item)) continue;
        auto content = std::make_shared<MediaContent>(*item.content);
        const std::size_t bytes = pixels_of(*content);
        if (at == 0 && bytes == rest_.size()) {
            content->pixels = std::move(rest_);
        } else {
            content->pixels = rest_.substr(at, bytes);
        }
        at += bytes;
        item.content = std::move(content);
    }
}

bool IncomingBody::add(std::string_view bytes) {
    if (bytes.size() % 4 != 0 || words() + bytes.size() / 4 > head_.prompt_tokens) return false;
    auto& prompt = head_.request.prompt;
    const std::size_t tokens = std::min(bytes.size() / 4, prompt_words() - prompt.size());
    if (tokens > 0) {
        const std::size_t at = prompt.size();
        prompt.resize(at + tokens);
        std::memcpy(prompt.data() + at, bytes.data(), tokens * 4);
    }
    rest_.append(bytes.substr(tokens * 4));
    return true;
}

Result<OpenHead> IncomingBody::take() {
    GenerateRequest& q = head_.request;
    const BehindPrompt behind = std::exchange(head_.behind, {});
    head_.prompt_tokens = static_cast<std::uint32_t>(q.prompt.size());
    if (behind.bytes() == 0) return std::move(head_);
    const std::string_view rest(rest_);
    if (behind.constraint != 0) {
        auto whole = std::make_shared<OutputConstraint>(*q.constraint);
        whole->text.assign(rest.substr(0, behind.constraint));
        q.constraint = std::move(whole);
    }
    if (behind.legs != 0) {
        if (auto ok = read_leg_map(rest.substr(behind.constraint, behind.legs), q, opened_); !ok) {
            ok.error().message = "open: behind the prompt: " + ok.error().message;
            return tl::unexpected(std::move(ok.error()));
        }
        if (auto ok = check_legs(q, q.prompt.size(), behind.pixels); !ok) {
            return tl::unexpected(std::move(ok.error()));
        }
    }
    if (behind.pixels != 0) {
        rest_.erase(0, std::size_t{behind.constraint} + behind.legs);
        rest_.resize(behind.pixels);
        give_pixels(q);
    }
    return std::move(head_);
}

}  // namespace stator::requests
