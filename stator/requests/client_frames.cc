#include "stator/requests/client_link_impl.h"

#include <algorithm>
#include <utility>

#include "stator/requests/handshake.h"

namespace stator::requests {
namespace {

using protocol::FinishReason;

constexpr std::size_t kMaxInfoBytes = 1024 * 1024;
/// Handoffs whose streams have not ended yet: a worker sends both in one go.
constexpr std::size_t kMaxWaitingHandoffBytes = 16 * 1024 * 1024;

}  // namespace

Result<void> ClientLink::Impl::on_hello(Lane& lane, const Frame& f, TimePoint now) {
    if (f.type == FrameType::kError && f.stream == 0) {
        auto why = read_error(f.payload);
        return tl::unexpected(std::move(why ? *why : why.error()));
    }
    if (f.type != FrameType::kHello) return violation(f, "hello was expected");
    auto hello = read_hello(f.payload);
    if (!hello) return tl::unexpected(std::move(hello.error()));
    if (hello->version != kProtocolVersion) {
        return error(ErrorCode::kUnsupported,
                     "the worker speaks version {} of the protocol, not {}", hello->version,
                     kProtocolVersion);
    }
    if (hello->secret_wanted != !options.secret.empty()) {
        return error(ErrorCode::kUnauthenticated, options.secret.empty()
                                                      ? "the worker wants a shared secret"
                                                      : "the worker has no shared secret");
    }
    if (!options.secret.empty()) {
        const Nonce proof = prove(options.secret, Prover::kWorker, lane.hello, hello->nonce);
        if (!hello->proof || !same_proof(*hello->proof, proof)) {
            return error(ErrorCode::kUnauthenticated, "the worker does not know the shared secret");
        }
        const Nonce own = prove(options.secret, Prover::kClient, lane.hello, hello->nonce);
        append_frame(out(lane), FrameType::kAuth, kFlagCritical, 0,
                     {reinterpret_cast<const char*>(own.data()), own.size()});
    }
    if (lane.control()) {
        const auto common = common_features(hello->features);
        bulk =
            std::ranges::find(common, kFeatureBulk) != common.end() && options.max_bulk_lanes > 0;
        legs = options.legs && std::ranges::find(common, kFeatureLegs) != common.end();
    }
    lane.phase = Lane::Phase::kReady;
    lane.since = now;
    pump(lane, now);
    return {};
}

Result<void> ClientLink::Impl::on_info(std::string_view payload) {
    auto info = read_info(payload);
    if (!info) return tl::unexpected(std::move(info.error()));
    if (ready && info->incarnation != incarnation) {
        return error(ErrorCode::kDataLoss, "the worker has changed its incarnation");
    }
    incarnation = info->incarnation;
    ranks = info->ranks.size();
    ready = true;
    events.on_info(*info);
    return {};
}

/// Of a leg that hands off there are no tokens and one way to end well, and that is of no other
/// leg.
Result<void> ClientLink::Impl::check_ending(const Frame& f, const Stream& s) const {
    if (share.finish == FinishReason::kHandoff) {
        if (!s.hands_off) return violation(f, "a stream that hands off and was not asked to");
        if (!s.handoff) return violation(f, "a stream that hands off without a handoff");
        return {};
    }
    if (s.handoff) return violation(f, "a stream that goes on behind its handoff");
    if (s.hands_off &&
        (share.finish == FinishReason::kStop || share.finish == FinishReason::kLength)) {
        return violation(f, "a stream that was to hand off ends without");
    }
    return {};
}

Result<void> ClientLink::Impl::on_share(const Frame& f) {
    Stream* s = streams.find(share.stream);
    if (s == nullptr) {
        // Of a stream that was cancelled here tokens may still be on the way.
        if (share.stream != 0 && share.stream < next_stream) return {};
        return violation(f, "tokens for a stream that was never opened");
    }
    const auto count = static_cast<std::uint32_t>(share.tokens.size());
    if (share.position != s->position) return violation(f, "a gap in a stream's tokens");
    if (count > s->left) return violation(f, "more tokens than were asked for");
    if (count > s->credit) return violation(f, "more tokens than there is credit for");
    if (count > 0 && s->uploading) return violation(f, "tokens before the prompt was there");
    if (auto ok = check_ending(f, *s); !ok) return ok;
    s->position += count;
    s->left -= count;
    s->credit -= count;
    event.id = s->id;
    event.count = count;
    event.finish = share.finish;
    event.prompt_tokens = share.prompt_tokens;
    event.cached_tokens = share.cached_tokens;
    if (share.finish) {
        if (*share.finish == FinishReason::kError) {
            event.error = share.error.value_or(Error{
                .code = ErrorCode::kInternal, .message = "the worker gave no reason", .param = {}});
        }
        event.handoff = std::move(s->handoff);
        forget(share.stream);
    } else if (s->credit < s->left && s->credit <= options.credit_tokens / 2) {
        const std::uint32_t more = options.credit_tokens - s->credit;
        s->credit += more;
        put_credit(out(control()), share.stream, "n", more);
    }
    events.on_step(StreamId(share.stream), event, share.tokens, share.top);
    if (event.error) event.error.reset();
    event.handoff.reset();
    return {};
}

/// A handoff that does not fit a frame goes on in data frames of its stream, which follow at once.
Result<void> ClientLink::Impl::on_handoff_frame(const Frame& f, TimePoint now) {
    const bool more = (f.flags & kFlagMore) != 0;
    if (f.type == FrameType::kHandoff) {
        if (f.stream == 0 || f.stream >= next_stream) return violation(f, "a handoff of no stream");
        if (!more) return on_handoff(f, f.payload, now);
        handoff_body.assign(f.payload);
        handoff_stream = f.stream;
        return {};
    }
    if (handoff_body.size() + f.payload.size() > kMaxHandoffMapBytes) {
        return violation(f, "a handoff that is too long");
    }
    handoff_body.append(f.payload);
    if (more) return {};
    handoff_stream = 0;
    return on_handoff(f, std::exchange(handoff_body, {}), now);
}

Result<void> ClientLink::Impl::on_handoff(const Frame& f, std::string_view map, TimePoint now) {
    Stream* s = streams.find(f.stream);
    if (s == nullptr) return {};  // cancelled here meanwhile; the worker takes it back
    if (!s->hands_off) return violation(f, "a handoff that was not asked for");
    if (s->handoff) return violation(f, "a second handoff of one stream");
    if (s->uploading) return violation(f, "a handoff before the prompt was there");
    auto handoff = read_handoff(map, now);
    if (!handoff) return tl::unexpected(std::move(handoff.error()));
    s->handoff_bytes = static_cast<std::uint32_t>(map.size());
    waiting_handoff_bytes += map.size();
    if (waiting_handoff_bytes > kMaxWaitingHandoffBytes) {
        return violation(f, "handoffs of streams that do not end");
    }
    s->handoff = std::make_shared<const protocol::Handoff>(std::move(*handoff));
    return {};
}

Result<void> ClientLink::Impl::on_tokens(const Frame& f) {
    StepReader reader(f.payload);
    event.first = 0;
    while (!dead) {
        auto got = reader.next(share);
        if (!got) return tl::unexpected(std::move(got.error()));
        if (!*got) break;
        if (auto ok = on_share(f); !ok) return ok;
    }
    return {};
}

Result<void> ClientLink::Impl::on_error(Lane& lane, const Frame& f) {
    auto why = read_error(f.payload);
    if (!why) return tl::unexpected(std::move(why.error()));
    if (f.stream == 0) return tl::unexpected(std::move(*why));
    if (lane.control()) {
        if (f.stream >= next_stream) return violation(f, "an error for no stream");
        if (streams.find(f.stream) == nullptr) {
            events.on_handoff_lost(StreamId(f.stream), *why);
        } else {
            end_stream(f.stream, *why);
        }
        return {};
    }
    const bool there = std::ranges::any_of(
        fetches, [&](const Fetching& x) { return x.id == f.stream && x.lane == lane.id; });
    if (there) end_fetch(f.stream, tl::unexpected(std::move(*why)));
    return {};
}

Result<void> ClientLink::Impl::on_unknown(const Frame& f) {
    if ((f.flags & kFlagCritical) == 0) return {};
    Error why = error(ErrorCode::kUnsupported, "a frame of type {} is not known here",
                      static_cast<unsigned>(f.type))
                    .value();
    if (f.stream == 0) return tl::unexpected(std::move(why));
    if (streams.find(f.stream) == nullptr) return {};
    append_frame(out(control()), FrameType::kCancel, kFlagCritical, f.stream, {});
    end_stream(f.stream, why);
    return {};
}

/// An info that does not fit a frame goes on in data frames of stream 0.
Result<void> ClientLink::Impl::on_info_frame(const Frame& f) {
    const bool more = (f.flags & kFlagMore) != 0;
    if (f.type == FrameType::kInfo) {
        info_more = more;
        if (!more) return on_info(f.payload);
        info_body.assign(f.payload);
        return {};
    }
    if (!info_more || f.stream != 0) return violation(f, "data of nothing");
    if (info_body.size() + f.payload.size() > kMaxInfoBytes) {
        return violation(f, "an info that is too long");
    }
    info_body.append(f.payload);
    info_more = more;
    return more ? Result<void>{} : on_info(std::exchange(info_body, {}));
}

/// The worker has room for a long prompt.
Result<void> ClientLink::Impl::on_upload_leave(const Frame& f, TimePoint now) {
    auto n = read_credit(f.payload, "data");
    if (!n) return tl::unexpected(std::move(n.error()));
    Stream* s = streams.find(f.stream);
    if (s == nullptr) return {};
    if (!s->uploading || s->uploaded > 0) return violation(f, "nothing is to be uploaded");
    // Said twice, the other lane would send it again.
    if (std::exchange(s->in_a_lane, true)) return {};
    Lane* lane = bulk ? bulk_lane(now) : &control();
    if (!busy(*lane)) lane->since = now;
    lane->uploads.push_back(f.stream);
    pump(*lane, now);
    return {};
}

Result<void> ClientLink::Impl::on_control(const Frame& f, TimePoint now) {
    if (handoff_stream != 0 && (f.type != FrameType::kData || f.stream != handoff_stream)) {
        return violation(f, "a frame in the midst of a handoff");
    }
    switch (f.type) {
        case FrameType::kData:
            if (handoff_stream != 0) return on_handoff_frame(f, now);
            [[fallthrough]];
        case FrameType::kInfo:
            return on_info_frame(f);
        case FrameType::kHandoff:
            return on_handoff_frame(f, now);
        case FrameType::kTokens:
            return on_tokens(f);
        case FrameType::kError:
            return on_error(control(), f);
        case FrameType::kCredit:
            return on_upload_leave(f, now);
        case FrameType::kLoad: {
            auto load = read_load(f.payload);
            if (!load) return tl::unexpected(std::move(load.error()));
            if (ready && load->rank >= ranks) return violation(f, "load of a rank it has not");
            events.on_load(*load);
            return {};
        }
        case FrameType::kGoAway: {
            auto go_away = read_go_away(f.payload);
            if (!go_away) return tl::unexpected(std::move(go_away.error()));
            going = true;
            events.on_go_away(*go_away);
            return {};
        }
        case FrameType::kPing:
            append_frame(out(control()), FrameType::kPong, 0, 0, {});
            return {};
        case FrameType::kPong:
            return {};
        case FrameType::kHello:
        case FrameType::kAuth:
        case FrameType::kOpen:
        case FrameType::kCancel:
        case FrameType::kFetch:
            return violation(f, "not for a client");
    }
    return on_unknown(f);
}

Result<void> ClientLink::Impl::on_frame(Lane& lane, const Frame& f, TimePoint now) {
    if (dead) return {};
    if (lane.phase == Lane::Phase::kHello) return on_hello(lane, f, now);
    if (lane.control()) return on_control(f, now);
    if (f.type == FrameType::kData) return on_fetch_data(lane, f, now);
    if (f.type == FrameType::kError) return on_error(lane, f);
    if (f.type == FrameType::kPing || f.type == FrameType::kPong) return {};
    if (to_string(f.type) == "unknown") return on_unknown(f);
    return violation(f, "not on a bulk lane");
}

}  // namespace stator::requests
