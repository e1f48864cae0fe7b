#include "stator/requests/worker_session.h"

#include <algorithm>

#include "stator/requests/handshake.h"
#include "stator/requests/worker_session_impl.h"

namespace stator::requests {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxFetches = 64;
constexpr std::size_t kWindowBytes = 256 * 1024;
constexpr milliseconds kLaneIdle{120'000};

}  // namespace

void WorkerSession::Impl::lose(const Error& why, bool tell) {
    if (dead) return;
    if (std::string* out = tell ? control_out() : nullptr; out != nullptr) put_error(*out, 0, why);
    dead = true;
    events.on_lost(why);
}

/// What a peer that does not read can make us hold.
void WorkerSession::Impl::check_unsent() {
    if (dead || doom || lanes.empty()) return;
    const std::size_t held = std::max(unsent, lanes.front()->out->size());
    if (held <= options.max_unsent_bytes) return;
    doom =
        error(ErrorCode::kExhausted, "the client does not read: {} bytes are unsent", held).value();
}

Result<void> WorkerSession::Impl::on_fetch(Lane& lane, const Frame& f) {
    auto what = read_fetch(f.payload);
    Error refusal;
    if (!what) {
        refusal = std::move(what.error());
    } else if (std::ranges::find(fetches, f.stream, &Fetching::id) != fetches.end() ||
               f.stream == 0) {
        return violation(f, "a fetch number that is in use");
    } else if (fetches.size() >= kMaxFetches) {
        refusal = error(ErrorCode::kOverloaded, "{} fetches are going on", fetches.size()).value();
    } else {
        fetches.push_back({.id = f.stream, .lane = lane.id});
        events.on_fetch(f.stream, *what);
        return {};
    }
    lane.flag = true;
    put_error(*lane.out, f.stream, refusal);
    return {};
}

Result<void> WorkerSession::Impl::on_unknown(const Frame& f) {
    if ((f.flags & kFlagCritical) == 0) return {};
    Error why = error(ErrorCode::kUnsupported, "a frame of type {} is not known here",
                      static_cast<unsigned>(f.type))
                    .value();
    if (f.stream == 0) return tl::unexpected(std::move(why));
    Stream* s = streams.find(f.stream);
    if (s == nullptr) return {};
    const bool opened = !s->upload;
    refuse(f.stream, why);
    if (opened) events.on_cancel(StreamId(f.stream));
    return {};
}

Result<void> WorkerSession::Impl::on_control(const Frame& f, TimePoint now) {
    switch (f.type) {
        case FrameType::kOpen:
            return on_open(f, now);
        case FrameType::kData:
            return on_data(f);
        case FrameType::kCredit:
            return on_credit(f);
        case FrameType::kCancel: {
            if (f.stream > last_stream) return violation(f, "a cancel of no stream");
            Stream* s = streams.find(f.stream);
            if (s == nullptr) {
                if (f.stream != 0) events.on_late_cancel(StreamId(f.stream));
                return {};
            }
            const bool opened = !s->upload;
            stop_waiting(f.stream, *s);
            drop_upload(*s);
            streams.erase(f.stream);
            if (opened) events.on_cancel(StreamId(f.stream));
            grant();
            return {};
        }
        case FrameType::kError: {
            auto why = read_error(f.payload);
            if (!why) return tl::unexpected(std::move(why.error()));
            if (f.stream != 0) return violation(f, "not for a worker");
            return tl::unexpected(std::move(*why));
        }
        case FrameType::kPing:
            if (std::string* out = control_out(); out != nullptr) {
                append_frame(*out, FrameType::kPong, 0, 0, {});
            }
            return {};
        case FrameType::kPong:
            return {};
        case FrameType::kHello:
        case FrameType::kAuth:
        case FrameType::kInfo:
        case FrameType::kTokens:
        case FrameType::kLoad:
        case FrameType::kGoAway:
        case FrameType::kFetch:
        case FrameType::kHandoff:
            return violation(f, "not for a worker's control lane");
    }
    return on_unknown(f);
}

Result<void> WorkerSession::Impl::on_bulk(Lane& lane, const Frame& f) {
    if (f.type == FrameType::kData) return on_data(f);
    if (f.type == FrameType::kFetch) return on_fetch(lane, f);
    if (f.type == FrameType::kPing || f.type == FrameType::kPong) return {};
    if (to_string(f.type) == "unknown") return on_unknown(f);
    return violation(f, "not on a bulk lane");
}

void WorkerSession::Impl::pump(Lane& lane) {
    while (!lane.bodies.empty() && lane.put < kWindowBytes) {
        Body& body = lane.bodies.front();
        const std::size_t n = std::min(kMaxPayloadBytes, body.bytes->size() - body.at);
        const bool more = body.at + n < body.bytes->size();
        append_frame(*lane.out, FrameType::kData,
                     static_cast<std::uint8_t>(kFlagCritical | (more ? kFlagMore : 0)),
                     static_cast<std::uint32_t>(body.fetch),
                     std::string_view(*body.bytes).substr(body.at, n));
        lane.flag = true;
        lane.put += n + kFrameHeaderBytes;
        body.at += n;
        if (more) continue;
        std::erase_if(fetches, [&](const Fetching& x) { return x.id == body.fetch; });
        lane.bodies.pop_front();
    }
}

void WorkerSession::Impl::drop_lane(Lane& lane) {
    const LaneId gone = lane.id;
    std::erase_if(fetches, [&](const Fetching& f) { return f.lane == gone; });
    std::erase_if(lanes, [&](const auto& l) { return l->id == gone; });
}

WorkerSession::WorkerSession(WorkerSessionOptions options, const Hello& client,
                             WorkerSessionEvents& events, TimePoint now)
    : impl_(std::make_unique<Impl>(std::move(options), client, events, now)) {}
WorkerSession::~WorkerSession() = default;

Result<void> WorkerSession::add_lane(LaneId lane, std::string* out, TimePoint now) {
    Impl& m = *impl_;
    if (m.dead) return error(ErrorCode::kUnavailable, "the link is over");
    if (m.lanes.size() >= m.options.max_lanes) {
        return error(ErrorCode::kOverloaded, "the link has {} connections", m.lanes.size());
    }
    m.lanes.push_back(std::make_unique<Impl::Lane>(lane, out, now));
    if (lane.value == 0) m.events.on_ready(m.client);
    return {};
}

void WorkerSession::received(LaneId lane, std::string_view bytes, TimePoint now) {
    Impl& m = *impl_;
    if (m.doom) m.lose(*m.doom, false);
    Impl::Lane* l = m.find(lane);
    if (m.dead || l == nullptr) return;
    const bool control = l->control();
    l->since = now;
    if (control) {
        m.heard = now;
        m.pinged.reset();
    }
    auto ok = l->reader.feed(bytes, [&](const Frame& f) -> Result<void> {
        if (m.dead || m.doom) return {};
        auto taken = control ? m.on_control(f, now) : m.on_bulk(*l, f);
        m.check_unsent();
        return taken;
    });
    if (m.dead) return;
    if (!ok) return m.lose(ok.error(), true);
    if (m.doom) m.lose(*m.doom, false);
}

void WorkerSession::lane_lost(LaneId lane, const Error& why, TimePoint /*now*/) {
    Impl& m = *impl_;
    Impl::Lane* l = m.find(lane);
    if (m.dead || l == nullptr) return;
    if (l->control()) return m.lose(why, false);
    m.drop_lane(*l);
}

void WorkerSession::lane_drained(LaneId lane, TimePoint now) {
    Impl& m = *impl_;
    Impl::Lane* l = m.find(lane);
    if (m.dead || l == nullptr) return;
    if (l->put > 0) l->since = now;
    l->put = 0;
    if (l->control()) m.unsent = 0;
    m.pump(*l);
}

void WorkerSession::tick(TimePoint now) {
    Impl& m = *impl_;
    if (m.dead) return;
    if (m.doom) return m.lose(*m.doom, false);
    if (m.lanes.empty()) return;
    m.expire(now);
    const WorkerSessionOptions& o = m.options;
    if (m.pinged && now - *m.pinged >= o.lost_after - o.ping_every) {
        return m.lose(error(ErrorCode::kUnavailable, "no byte from the client for {} ms",
                            o.lost_after.count())
                          .value(),
                      true);
    }
    if (now - m.heard >= o.ping_every && (!m.pinged || now - m.last_ping >= o.ping_every)) {
        if (std::string* out = m.control_out(); out != nullptr) {
            append_frame(*out, FrameType::kPing, 0, 0, {});
        }
        m.last_ping = now;
        if (!m.pinged) m.pinged = now;
    }
    std::vector<std::pair<LaneId, Error>> over;
    for (const auto& l : m.lanes) {
        if (l->control() || now - l->since < kLaneIdle) continue;
        over.emplace_back(l->id,
                          error(ErrorCode::kDeadlineExceeded, "a bulk lane is idle").value());
    }
    for (const auto& [lane, why] : over) {
        m.drop_lane(*m.find(lane));
        m.events.on_lane_unwanted(lane, why);
    }
}

Deadline WorkerSession::next_timer() const {
    const Impl& m = *impl_;
    if (m.dead || m.lanes.empty()) return Deadline::never();
    if (m.doom) return Deadline::at(m.heard);
    const WorkerSessionOptions& o = m.options;
    Deadline next = Deadline::after(m.pinged ? m.last_ping : m.heard, o.ping_every);
    next = std::min(next, m.next_expiry);
    if (m.pinged) next = std::min(next, Deadline::after(*m.pinged, o.lost_after - o.ping_every));
    for (const auto& l : m.lanes) {
        if (!l->control()) next = std::min(next, Deadline::after(l->since, kLaneIdle));
    }
    return next;
}

bool WorkerSession::take_output_flag(LaneId lane) {
    Impl::Lane* l = impl_->find(lane);
    return l != nullptr && std::exchange(l->flag, false);
}

void WorkerSession::set_unsent(std::size_t bytes) { impl_->unsent = bytes; }

void WorkerSession::send_info(const protocol::WorkerInfo& info) {
    std::string* out = impl_->control_out();
    if (out == nullptr) return;
    std::string payload;
    append_info(payload, info);
    std::string_view left(payload);
    FrameType type = FrameType::kInfo;
    do {
        const auto piece = left.substr(0, kMaxPayloadBytes);
        left.remove_prefix(piece.size());
        append_frame(*out, type,
                     static_cast<std::uint8_t>(kFlagCritical | (left.empty() ? 0 : kFlagMore)), 0,
                     piece);
        type = FrameType::kData;
    } while (!left.empty());
}

void WorkerSession::send_load(const LoadMessage& load) {
    std::string* out = impl_->control_out();
    if (out == nullptr) return;
    LoadMessage full = load;
    full.booking = impl_->booking;
    put_frame(*out, FrameType::kLoad, 0, [&](std::string& to) { append_load(to, full); });
    impl_->check_unsent();
}

void WorkerSession::send_go_away(const GoAway& go_away) {
    std::string* out = impl_->control_out();
    if (out == nullptr) return;
    put_frame(*out, FrameType::kGoAway, 0, [&](std::string& to) { append_go_away(to, go_away); });
}

void WorkerSession::send_error(StreamId stream, const Error& error) {
    if (impl_->streams.find(stream.value) != nullptr) impl_->refuse(stream.value, error);
}

void WorkerSession::send_handoff_lost(StreamId stream, const Error& error) {
    if (impl_->streams.find(stream.value) != nullptr) return send_error(stream, error);
    std::string* out = impl_->control_out();
    if (out == nullptr) return;
    put_error(*out, stream.value, error);
    impl_->check_unsent();
}

void WorkerSession::fetched(std::uint64_t fetch, Result<std::shared_ptr<const std::string>> body) {
    Impl& m = *impl_;
    const auto at = std::ranges::find(m.fetches, fetch, &Impl::Fetching::id);
    if (m.dead || at == m.fetches.end()) return;
    Impl::Lane* lane = m.find(at->lane);
    if (lane == nullptr) return;
    if (body && *body) {
        lane->bodies.push_back({.fetch = fetch, .bytes = std::move(*body), .at = 0});
        m.pump(*lane);
        return;
    }
    m.fetches.erase(at);
    lane->flag = true;
    put_error(*lane->out, static_cast<std::uint32_t>(fetch),
              body ? error(ErrorCode::kNotFound, "there is nothing").value() : body.error());
}

std::size_t WorkerSession::open_streams() const { return impl_->streams.size(); }

std::size_t WorkerSession::waiting_prompts() const { return impl_->waiting.size(); }

std::uint64_t WorkerSession::highest_booking() const { return impl_->booking; }

void WorkerSession::close() { impl_->dead = true; }

}  // namespace stator::requests
