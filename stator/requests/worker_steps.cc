#include "stator/requests/worker_session_impl.h"

#include <algorithm>
#include <span>

#include "stator/requests/handshake.h"

namespace stator::requests {
namespace {

constexpr std::size_t kHandoffsAtOnce = 1024 * 1024;

using protocol::FinishReason;
using protocol::StepBatch;
using protocol::StepEvent;
using protocol::TokenOutput;

}  // namespace

Result<void> WorkerSession::Impl::on_credit(const Frame& f) {
    auto n = read_credit(f.payload, "n");
    if (!n) return tl::unexpected(std::move(n.error()));
    if (f.stream > last_stream) return violation(f, "credit for no stream");
    Stream* s = streams.find(f.stream);
    if (s == nullptr) return {};
    s->credit = *n > 0xFFFF'FFFFU - s->credit ? 0xFFFF'FFFFU : s->credit + *n;
    if (!s->backlog) return {};
    if (std::string* out = control_out(); out != nullptr) {
        const bool over = drain(f.stream, *s, *out);
        writer.finish(*out);
        if (over) streams.erase(f.stream);
    }
    return {};
}

void WorkerSession::Impl::queue(Stream& s, const StepEvent& e, const StepBatch& batch) {
    if (!s.backlog) s.backlog = std::make_unique<Backlog>();
    Backlog& b = *s.backlog;
    for (const TokenOutput& token : std::span(batch.tokens).subspan(e.first, e.count)) {
        TokenOutput& copy = b.tokens.emplace_back(token);
        copy.top_first = static_cast<std::uint32_t>(b.top.size());
        const auto top = std::span(batch.top).subspan(token.top_first, token.top_count);
        b.top.insert(b.top.end(), top.begin(), top.end());
    }
    if (e.prompt_tokens != 0) {
        b.event.prompt_tokens = e.prompt_tokens;
        b.event.cached_tokens = e.cached_tokens;
    }
    b.event.finish = e.finish;
    b.event.error = e.error;
}

/// An engine that does not know legs must not cost the link.
Result<void> WorkerSession::Impl::check_event(const Stream& s, const StepEvent& e) {
    if (e.finish == FinishReason::kHandoff) {
        if (!s.hands_off) return error(ErrorCode::kInternal, "the engine handed off unasked");
        if (!e.handoff) return error(ErrorCode::kInternal, "the engine handed nothing off");
        auto sound = check_handoff(*e.handoff);
        if (!sound) sound.error().code = ErrorCode::kInternal;
        return sound;
    }
    if (s.hands_off &&
        (e.count > 0 || e.finish == FinishReason::kStop || e.finish == FinishReason::kLength)) {
        return error(ErrorCode::kInternal, "the engine generated where it was to hand off");
    }
    return {};
}

/// What does not fit a frame goes on in data frames of the stream, one right behind the other.
void WorkerSession::Impl::put_handoff(std::uint32_t stream, const protocol::Handoff& handoff,
                                      TimePoint now, std::string& out) {
    std::string map;
    append_handoff(map, handoff, now);
    std::string_view left(map);
    FrameType type = FrameType::kHandoff;
    do {
        const auto piece = left.substr(0, kMaxPayloadBytes);
        left.remove_prefix(piece.size());
        append_frame(out, type,
                     static_cast<std::uint8_t>(kFlagCritical | (left.empty() ? 0 : kFlagMore)),
                     stream, piece);
        type = FrameType::kData;
    } while (!left.empty());
}

/// Sends of the backlog what there is credit for. True: that was the stream's end.
bool WorkerSession::Impl::drain(std::uint32_t stream, Stream& s, std::string& out) {
    Backlog& b = *s.backlog;
    const std::size_t n = std::min<std::size_t>(s.credit, b.tokens.size() - b.sent);
    const bool all = b.sent + n == b.tokens.size();
    if (n == 0 && !all) return false;
    StepEvent piece;
    piece.prompt_tokens = b.event.prompt_tokens;
    piece.cached_tokens = b.event.cached_tokens;
    if (all) {
        piece.finish = b.event.finish;
        piece.error = b.event.error;
    }
    writer.add(out, stream, s.position, s.logprobs, piece, std::span(b.tokens).subspan(b.sent, n),
               b.top);
    s.position += static_cast<std::uint32_t>(n);
    s.credit -= static_cast<std::uint32_t>(n);
    b.sent += n;
    if (!all) return false;
    const bool over = b.event.finish.has_value();
    s.backlog.reset();
    return over;
}

void WorkerSession::Impl::abort_ended() {
    for (const auto& [stream, why] : std::exchange(to_abort, {})) {
        refuse(stream, why);
        events.on_cancel(StreamId(stream));
    }
}

void WorkerSession::send_step(const StepBatch& batch, TimePoint now) {
    Impl& m = *impl_;
    std::string* out = m.control_out();
    if (out == nullptr) return;
    std::size_t flushed = out->size();
    for (const StepEvent& e : batch.events) {
        const auto stream = static_cast<std::uint32_t>(e.id.value);
        Impl::Stream* s = m.streams.find(stream);
        if (s == nullptr || s->upload) continue;
        if (s->hands_off || e.finish == FinishReason::kHandoff) [[unlikely]] {
            if (auto ok = Impl::check_event(*s, e); !ok) {
                m.to_abort.emplace_back(stream, std::move(ok.error()));
                continue;
            }
            if (e.finish == FinishReason::kHandoff) {
                // A client bounds what has come without its stream's end: ends are not kept back.
                if (out->size() - flushed > kHandoffsAtOnce) {
                    m.writer.finish(*out);
                    flushed = out->size();
                }
                m.put_handoff(stream, *e.handoff, now, *out);
            }
        }
        bool over = false;
        if (s->backlog || e.count > s->credit) [[unlikely]] {
            if (s->backlog && s->backlog->event.finish) continue;
            m.queue(*s, e, batch);
            over = m.drain(stream, *s, *out);
            if (s->backlog &&
                s->backlog->tokens.size() - s->backlog->sent > m.options.max_backlog_tokens) {
                m.to_abort.emplace_back(
                    stream,
                    error(ErrorCode::kOverloaded, "the client gives no credit: over {} tokens wait",
                          m.options.max_backlog_tokens)
                        .value());
            }
        } else if (e.count > 0 || e.finish) {
            m.writer.add(*out, stream, s->position, s->logprobs, e,
                         std::span(batch.tokens).subspan(e.first, e.count), batch.top);
            s->position += e.count;
            s->credit -= e.count;
            over = e.finish.has_value();
        }
        if (over) m.streams.erase(stream);
    }
    m.writer.finish(*out);
    if (!m.to_abort.empty()) m.abort_ended();
    m.check_unsent();
}

}  // namespace stator::requests
