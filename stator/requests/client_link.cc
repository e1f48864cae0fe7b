#include "stator/requests/client_link.h"

#include <algorithm>

#include "stator/requests/client_link_impl.h"
#include "stator/requests/handshake.h"
#include "stator/requests/leg_fields.h"

namespace stator::requests {
namespace {

using protocol::FinishReason;
using protocol::GenerateRequest;

constexpr std::size_t kMaxUnsentBytes = 64 * 1024 * 1024;
constexpr std::size_t kMaxFetches = 64;

OpenHead head_of(const GenerateRequest& request, std::uint32_t rank, std::uint64_t booking,
                 std::uint32_t credit) {
    OpenHead head;
    // Everything but the prompt, which may be megabytes and travels on its own.
    head.request.sampling = request.sampling;
    head.request.max_tokens = request.max_tokens;
    head.request.min_tokens = request.min_tokens;
    head.request.ignore_eos = request.ignore_eos;
    head.request.stop_token_ids = request.stop_token_ids;
    head.request.top_logprobs = request.top_logprobs;
    head.request.cache_salt = request.cache_salt;
    head.request.resumed_tokens = request.resumed_tokens;
    head.request.priority = request.priority;
    head.request.tenant = request.tenant;
    head.request.traceparent = request.traceparent;
    head.request.deadline = request.deadline;
    head.request.constraint = request.constraint;
    head.request.leg = request.leg;
    head.request.handoff = request.handoff;
    head.request.media = request.media;
    head.request.adapter = request.adapter;
    head.booking = booking;
    head.rank = rank;
    head.credit = credit;
    return head;
}

}  // namespace

void ClientLink::Impl::lose(const Error& why, bool tell) {
    if (dead) return;
    dead = true;
    if (tell && control().out != nullptr && control().phase != Lane::Phase::kConnecting) {
        put_error(out(control()), 0, why);
    }
    events.on_lost(why);
}

bool ClientLink::Impl::forget(std::uint32_t stream) {
    Stream* s = streams.find(stream);
    if (s == nullptr) return false;
    waiting_handoff_bytes -= s->handoff_bytes;
    return streams.erase(stream);
}

void ClientLink::Impl::end_stream(std::uint32_t stream, const Error& why) {
    Stream* s = streams.find(stream);
    if (s == nullptr) return;
    event = {};
    event.id = s->id;
    event.finish = FinishReason::kError;
    event.error = why;
    forget(stream);
    events.on_step(StreamId(stream), event, {}, {});
    event.error.reset();
}

ClientLink::ClientLink(ClientLinkOptions options, LinkId id, std::uint64_t random_seed,
                       ClientLinkEvents& events, TimePoint now)
    : impl_(std::make_unique<Impl>(std::move(options), id, random_seed, events, now)) {}
ClientLink::~ClientLink() = default;

void ClientLink::connected(LaneId lane, TimePoint now) {
    Impl& m = *impl_;
    Impl::Lane* l = m.find(lane);
    if (m.dead || l == nullptr || l->phase != Impl::Lane::Phase::kConnecting) return;
    l->phase = Impl::Lane::Phase::kHello;
    l->since = now;
    if (l->control()) m.heard = now;
    l->hello.version = kProtocolVersion;
    l->hello.features = own_features(m.options.legs);
    l->hello.nonce = make_nonce(m.random_seed, lane.value, m.id);
    l->hello.name = m.options.name;
    l->hello.incarnation = m.options.incarnation;
    l->hello.lane = l->control() ? LaneKind::kControl : LaneKind::kBulk;
    l->hello.link = m.id;
    std::string& out = m.out(*l);
    out.append(kPreface);
    put_frame(out, FrameType::kHello, 0, [&](std::string& to) { append_hello(to, l->hello); });
}

void ClientLink::received(LaneId lane, std::string_view bytes, TimePoint now) {
    Impl& m = *impl_;
    if (m.doom) m.lose(*m.doom, false);
    Impl::Lane* l = m.find(lane);
    if (m.dead || l == nullptr || l->phase == Impl::Lane::Phase::kConnecting) return;
    const bool control = l->control();
    if (control) {
        m.heard = now;
        m.pinged.reset();
        if (std::exchange(m.silent, false)) m.events.on_silent(false);
    }
    auto ok = l->reader.feed(bytes, [&](const Frame& f) { return m.on_frame(*l, f, now); });
    if (m.dead) return;
    if (!ok && !control && ok.error().code != ErrorCode::kDataLoss) {
        m.events.on_lane_unwanted(lane);
        m.drop_lane(*l, ok.error());
        ok = {};
    }
    if (!ok) return m.lose(ok.error(), true);
    if (control) m.events.on_turn_end();
    if (!m.dead && m.control().out->size() > kMaxUnsentBytes) {
        m.lose(error(ErrorCode::kExhausted, "the worker does not read").value(), false);
    }
}

void ClientLink::lane_lost(LaneId lane, const Error& why, TimePoint /*now*/) {
    Impl& m = *impl_;
    Impl::Lane* l = m.find(lane);
    if (m.dead || l == nullptr) return;
    if (!l->control()) return m.drop_lane(*l, why);
    l->phase = Impl::Lane::Phase::kConnecting;
    m.lose(why, false);
}

void ClientLink::lane_drained(LaneId lane, TimePoint now) {
    Impl& m = *impl_;
    Impl::Lane* l = m.find(lane);
    if (m.dead || l == nullptr) return;
    if (l->put > 0) l->since = now;
    l->put = 0;
    m.pump(*l, now);
}

void ClientLink::tick(TimePoint now) {
    Impl& m = *impl_;
    if (m.dead) return;
    if (m.doom) return m.lose(*m.doom, false);
    const ClientLinkOptions& o = m.options;
    if (!m.ready) {
        if (now - m.started >= o.handshake_within) {
            m.lose(error(ErrorCode::kDeadlineExceeded, "no answer to the handshake within {} ms",
                         o.handshake_within.count())
                       .value(),
                   true);
        }
        return;
    }
    // Silence counts from a ping that was really sent: a client that was stopped for a while must
    // not take its own sleep for the worker's.
    if (m.pinged && now - *m.pinged >= o.lost_after - o.ping_every) {
        return m.lose(error(ErrorCode::kUnavailable, "no byte from the worker for {} ms",
                            o.lost_after.count())
                          .value(),
                      true);
    }
    if (m.pinged && !m.silent && now - *m.pinged >= o.silent_after - o.ping_every) {
        m.silent = true;
        m.events.on_silent(true);
    }
    if (now - m.heard >= o.ping_every && (!m.pinged || now - m.last_ping >= o.ping_every)) {
        append_frame(m.out(m.control()), FrameType::kPing, 0, 0, {});
        m.last_ping = now;
        if (!m.pinged) m.pinged = now;
    }
    m.tick_lanes(now);
}

Deadline ClientLink::next_timer() const {
    const Impl& m = *impl_;
    if (m.dead) return Deadline::never();
    if (m.doom) return Deadline::at(m.heard);
    const ClientLinkOptions& o = m.options;
    if (!m.ready) return Deadline::after(m.started, o.handshake_within);
    Deadline next = Deadline::after(m.pinged ? m.last_ping : m.heard, o.ping_every);
    if (m.pinged) {
        next = std::min(next, Deadline::after(*m.pinged, o.lost_after - o.ping_every));
        if (!m.silent) {
            next = std::min(next, Deadline::after(*m.pinged, o.silent_after - o.ping_every));
        }
    }
    for (const auto& l : m.lanes) {
        if (l->control()) continue;
        const auto within = l->phase != Impl::Lane::Phase::kReady ? o.handshake_within
                            : m.busy(*l)                          ? o.lost_after
                                                                  : Impl::kLaneIdle;
        next = std::min(next, Deadline::after(l->since, within));
    }
    return next;
}

void ClientLink::set_output(LaneId lane, std::string* out) {
    if (Impl::Lane* l = impl_->find(lane); l != nullptr) l->out = out;
}

bool ClientLink::take_output_flag(LaneId lane) {
    Impl::Lane* l = impl_->find(lane);
    return l != nullptr && std::exchange(l->flag, false);
}

Result<StreamId> ClientLink::open(std::shared_ptr<const GenerateRequest> request,
                                  std::uint32_t rank, std::uint64_t booking, TimePoint now) {
    Impl& m = *impl_;
    if (m.dead || m.doom || !m.ready) {
        return error(ErrorCode::kUnavailable, "the link is not there");
    }
    if (m.going) return error(ErrorCode::kUnavailable, "the worker takes no new work");
    if (m.streams.size() >= m.options.max_streams) {
        return error(ErrorCode::kOverloaded, "{} requests are open on the link", m.streams.size());
    }
    if (m.next_stream == 0xFFFF'FFFFU) {
        if (m.streams.size() == 0) {
            m.doom =
                error(ErrorCode::kUnavailable, "the link's stream numbers are used up").value();
        }
        return error(ErrorCode::kUnavailable, "the link's stream numbers are used up");
    }
    if (!m.legs && uses_legs(*request)) {
        return error(ErrorCode::kUnsupported, "the worker does not know legs of requests");
    }
    OpenHead head = head_of(*request, rank, booking, m.options.credit_tokens);
    auto body = OutgoingBody::make(request, head, now);
    if (!body) return tl::unexpected(std::move(body.error()));
    const std::size_t body_bytes = body->words() * 4;
    m.scratch.clear();
    append_open(m.scratch, head, now);
    if (m.scratch.size() > kMaxPayloadBytes) {
        return error(ErrorCode::kTooLarge,
                     "the request has {} bytes besides its prompt, at most {}", m.scratch.size(),
                     kMaxPayloadBytes);
    }
    const std::uint32_t id = m.next_stream++;
    Impl::Stream& s = m.streams.insert(id);
    s.id = request->id;
    s.hands_off = hands_off(request->leg);
    s.left = s.hands_off ? 0 : request->max_tokens;
    s.credit = head.credit;
    const bool whole = m.scratch.size() + body_bytes <= kMaxPayloadBytes;
    if (whole) {
        body->append(m.scratch, 0, body->words());
    } else {
        s.body = std::make_unique<OutgoingBody>(std::move(*body));
    }
    Impl::Lane& control = m.control();
    append_frame(m.out(control), FrameType::kOpen,
                 static_cast<std::uint8_t>(kFlagCritical | (whole ? 0 : kFlagMore)), id, m.scratch);
    if (whole) return StreamId(id);
    if (body_bytes <= m.options.inline_prompt_bytes) {
        m.put_data(control, id, s, s.body->words());
        control.put = 0;
        s.body.reset();
    } else {
        s.uploading = true;
    }
    return StreamId(id);
}

void ClientLink::cancel(StreamId stream, TimePoint /*now*/) {
    Impl& m = *impl_;
    if (m.dead || !m.forget(stream.value)) return;
    append_frame(m.out(m.control()), FrameType::kCancel, kFlagCritical, stream.value, {});
}

void ClientLink::release(StreamId stream, TimePoint /*now*/) {
    Impl& m = *impl_;
    if (m.dead || !m.ready || stream.value == 0 || stream.value >= m.next_stream ||
        m.streams.find(stream.value) != nullptr) {
        return;
    }
    append_frame(m.out(m.control()), FrameType::kCancel, kFlagCritical, stream.value, {});
}

Result<std::uint64_t> ClientLink::fetch(const Fetch& fetch, TimePoint now) {
    Impl& m = *impl_;
    if (m.dead || m.doom || !m.ready) {
        return error(ErrorCode::kUnavailable, "the link is not there");
    }
    if (!m.bulk) return error(ErrorCode::kUnsupported, "the worker has no bulk lanes");
    if (m.fetches.size() >= kMaxFetches) {
        return error(ErrorCode::kOverloaded, "{} fetches are going on", m.fetches.size());
    }
    Impl::Lane* lane = m.bulk_lane(now);
    if (!m.busy(*lane)) lane->since = now;
    const std::uint64_t id = m.next_fetch++;
    m.fetches.push_back({.id = id, .lane = lane->id, .what = fetch, .sent = false, .body = {}});
    m.pump(*lane, now);
    return id;
}

bool ClientLink::ready() const { return impl_->ready && !impl_->dead; }

std::size_t ClientLink::open_streams() const { return impl_->streams.size(); }

void ClientLink::close() { impl_->dead = true; }

}  // namespace stator::requests
