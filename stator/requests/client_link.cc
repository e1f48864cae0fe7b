#include "stator/requests/client_link.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "stator/base/log.h"
#include "stator/requests/handshake.h"
#include "stator/requests/step_codec.h"
#include "stator/requests/stream_table.h"
#include "stator/requests/wire.h"

namespace stator::requests {
namespace {

using protocol::FinishReason;
using protocol::GenerateRequest;
using std::chrono::milliseconds;

constexpr std::size_t kMaxUnsentBytes = 64 * 1024 * 1024;
constexpr std::size_t kMaxInfoBytes = 1024 * 1024;
constexpr std::size_t kMaxFetches = 64;
constexpr std::size_t kWindowBytes = 256 * 1024;  // of a long body, put to a lane before it drains
constexpr milliseconds kLaneIdle{30'000};

struct Stream {
    std::shared_ptr<const GenerateRequest> request;  // until its prompt is sent
    protocol::RequestId id;
    std::uint32_t position = 0;
    std::uint32_t left = 0;  // tokens that may still come
    std::uint32_t credit = 0;
    std::uint32_t uploaded = 0;
    bool uploading = false;
};

struct Lane {
    Lane(LaneId lane, TimePoint now) : id(lane), since(now) {}
    enum class Phase : std::uint8_t { kConnecting, kHello, kReady };
    LaneId id;
    std::string* out = nullptr;
    FrameReader reader{false};
    Phase phase = Phase::kConnecting;
    bool flag = false;
    Hello hello;
    TimePoint since;  // of the last progress
    std::size_t put = 0;
    std::deque<std::uint32_t> uploads;
    [[nodiscard]] bool control() const { return id.value == 0; }
};

struct Fetching {
    std::uint64_t id = 0;
    LaneId lane;
    Fetch what;
    bool sent = false;
    std::string body;
};

tl::unexpected<Error> violation(const Frame& f, std::string_view what) {
    return error(ErrorCode::kDataLoss, "the worker broke the protocol: {} (frame {}, stream {})",
                 what, to_string(f.type), f.stream);
}

}  // namespace

struct ClientLink::Impl {
    Impl(ClientLinkOptions o, LinkId link, std::uint64_t seed, ClientLinkEvents& e, TimePoint now)
        : options(std::move(o)), id(link), random_seed(seed), events(e), started(now), heard(now) {
        lanes.push_back(std::make_unique<Lane>(LaneId(0), now));
    }

    Lane* find(LaneId lane) {
        for (auto& l : lanes) {
            if (l->id == lane) return l.get();
        }
        return nullptr;
    }
    Lane& control() { return *lanes.front(); }
    std::string& out(Lane& lane) {
        lane.flag = true;
        return *lane.out;
    }

    void lose(const Error& why, bool tell);
    Result<void> on_frame(Lane& lane, const Frame& f, TimePoint now);
    Result<void> on_hello(Lane& lane, const Frame& f, TimePoint now);
    Result<void> on_control(const Frame& f, TimePoint now);
    Result<void> on_unknown(const Frame& f);
    Result<void> on_info(std::string_view payload);
    Result<void> on_tokens(const Frame& f);
    Result<void> on_share(const Frame& f);
    Result<void> on_error(Lane& lane, const Frame& f);
    Result<void> on_fetch_data(Lane& lane, const Frame& f, TimePoint now);
    void end_stream(std::uint32_t stream, const Error& why);
    void end_fetch(std::uint64_t fetch, Result<std::string> body);
    void drop_lane(Lane& lane, const Error& why);
    Lane* bulk_lane(TimePoint now);
    bool busy(const Lane& lane) const;
    void pump(Lane& lane, TimePoint now);
    void put_data(Lane& lane, std::uint32_t stream, Stream& s, std::size_t tokens);
    void tick_lanes(TimePoint now);

    ClientLinkOptions options;
    LinkId id;
    std::uint64_t random_seed;
    ClientLinkEvents& events;
    TimePoint started;
    TimePoint heard;                  // last byte on the control lane
    std::optional<TimePoint> pinged;  // the first ping since then
    TimePoint last_ping;
    bool silent = false;
    bool dead = false;
    bool ready = false;
    bool going = false;
    bool bulk = false;
    std::optional<Error> doom;  // told of in the next input
    std::vector<std::unique_ptr<Lane>> lanes;
    std::uint32_t next_lane = 1;
    StreamTable<Stream> streams;
    std::uint32_t next_stream = 1;
    std::uint64_t next_fetch = 1;
    std::vector<Fetching> fetches;
    std::string info_body;
    bool info_more = false;
    std::size_t ranks = 0;
    protocol::Incarnation incarnation;
    Share share;
    protocol::StepEvent event;
    std::string scratch;
};

void ClientLink::Impl::lose(const Error& why, bool tell) {
    if (dead) return;
    dead = true;
    if (tell && control().out != nullptr && control().phase != Lane::Phase::kConnecting) {
        put_error(out(control()), 0, why);
    }
    events.on_lost(why);
}

void ClientLink::Impl::end_stream(std::uint32_t stream, const Error& why) {
    Stream* s = streams.find(stream);
    if (s == nullptr) return;
    event = {};
    event.id = s->id;
    event.finish = FinishReason::kError;
    event.error = why;
    streams.erase(stream);
    events.on_step(StreamId(stream), event, {}, {});
    event.error.reset();
}

void ClientLink::Impl::end_fetch(std::uint64_t fetch, Result<std::string> body) {
    std::erase_if(fetches, [&](const Fetching& f) { return f.id == fetch; });
    events.on_fetched(fetch, std::move(body));
}

/// A bulk lane is over, with what it carried.
void ClientLink::Impl::drop_lane(Lane& lane, const Error& why) {
    const LaneId gone = lane.id;
    const auto uploads = std::move(lane.uploads);
    std::erase_if(lanes, [&](const auto& l) { return l->id == gone; });
    Error told = why;
    told.code = ErrorCode::kUnavailable;
    told.retryable = true;
    for (const std::uint32_t stream : uploads) {
        if (dead || streams.find(stream) == nullptr) continue;
        append_frame(out(control()), FrameType::kCancel, kFlagCritical, stream, {});
        end_stream(stream, told);
    }
    std::vector<std::uint64_t> ended;
    for (const Fetching& f : fetches) {
        if (f.lane == gone) ended.push_back(f.id);
    }
    for (const std::uint64_t fetch : ended) {
        if (!dead) end_fetch(fetch, tl::unexpected(told));
    }
}

bool ClientLink::Impl::busy(const Lane& lane) const {
    return !lane.uploads.empty() ||
           std::ranges::any_of(fetches, [&](const Fetching& f) { return f.lane == lane.id; });
}

/// The lane for the next long body: an idle one, a new one, or the one with the fewest uploads.
Lane* ClientLink::Impl::bulk_lane(TimePoint now) {
    for (auto& l : lanes) {
        if (!l->control() && !busy(*l)) return l.get();
    }
    if (lanes.size() - 1 < options.max_bulk_lanes) {
        const LaneId lane(next_lane++);
        lanes.push_back(std::make_unique<Lane>(lane, now));
        events.on_lane_wanted(lane);
        return find(lane);
    }
    Lane* best = nullptr;
    for (auto& l : lanes) {
        if (l->control()) continue;
        if (best == nullptr || l->uploads.size() < best->uploads.size()) best = l.get();
    }
    return best;
}

void ClientLink::Impl::put_data(Lane& lane, std::uint32_t stream, Stream& s, std::size_t tokens) {
    const auto& prompt = s.request->prompt;
    while (tokens > 0) {
        const std::size_t n = std::min(tokens, kMaxPayloadBytes / 4);
        const bool more = s.uploaded + n < prompt.size();
        append_frame(
            out(lane), FrameType::kData,
            static_cast<std::uint8_t>(kFlagCritical | (more ? kFlagMore : 0)), stream,
            {reinterpret_cast<const char*>(prompt.data() + s.uploaded), n * sizeof(std::uint32_t)});
        s.uploaded += static_cast<std::uint32_t>(n);
        lane.put += 4 * n;
        tokens -= n;
    }
}

void ClientLink::Impl::pump(Lane& lane, TimePoint now) {
    if (lane.phase != Lane::Phase::kReady || lane.out == nullptr) return;
    if (!lane.control()) {
        for (Fetching& f : fetches) {
            if (f.lane != lane.id || f.sent) continue;
            put_frame(out(lane), FrameType::kFetch, static_cast<std::uint32_t>(f.id),
                      [&](std::string& to) { append_fetch(to, f.what); });
            f.sent = true;
            lane.since = now;
        }
    }
    while (!lane.uploads.empty() && lane.put < kWindowBytes) {
        const std::uint32_t stream = lane.uploads.front();
        Stream* s = streams.find(stream);
        if (s != nullptr) {
            const std::size_t left = s->request->prompt.size() - s->uploaded;
            put_data(lane, stream, *s, std::min(left, (kWindowBytes - lane.put + 3) / 4));
            if (s->uploaded < s->request->prompt.size()) return;
            s->uploading = false;
            s->request.reset();
        }
        lane.uploads.pop_front();
    }
}

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
        streams.erase(share.stream);
    } else if (s->credit < s->left && s->credit <= options.credit_tokens / 2) {
        const std::uint32_t more = options.credit_tokens - s->credit;
        s->credit += more;
        put_credit(out(control()), share.stream, "n", more);
    }
    events.on_step(StreamId(share.stream), event, share.tokens, share.top);
    if (event.error) event.error.reset();
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
        end_stream(f.stream, *why);
        return {};
    }
    const bool there = std::ranges::any_of(
        fetches, [&](const Fetching& x) { return x.id == f.stream && x.lane == lane.id; });
    if (there) end_fetch(f.stream, tl::unexpected(std::move(*why)));
    return {};
}

Result<void> ClientLink::Impl::on_fetch_data(Lane& lane, const Frame& f, TimePoint now) {
    const auto at = std::ranges::find(fetches, f.stream, &Fetching::id);
    if (at == fetches.end()) {
        return f.stream < next_fetch ? Result<void>{} : violation(f, "a body nobody asked for");
    }
    if (at->lane != lane.id || !at->sent) return violation(f, "a body on the wrong lane");
    lane.since = now;
    if (at->body.size() + f.payload.size() > options.max_fetch_bytes) {
        return violation(f, "a fetched body is too long");
    }
    at->body.append(f.payload);
    if ((f.flags & kFlagMore) == 0) {
        std::string body = std::move(at->body);
        end_fetch(f.stream, std::move(body));
    }
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

Result<void> ClientLink::Impl::on_control(const Frame& f, TimePoint now) {
    switch (f.type) {
        case FrameType::kInfo:
            if ((f.flags & kFlagMore) == 0) return on_info(f.payload);
            info_body.assign(f.payload);
            info_more = true;
            return {};
        case FrameType::kData: {
            if (!info_more || f.stream != 0) return violation(f, "data of nothing");
            if (info_body.size() + f.payload.size() > kMaxInfoBytes) {
                return violation(f, "an info that is too long");
            }
            info_body.append(f.payload);
            if ((f.flags & kFlagMore) != 0) return {};
            info_more = false;
            return on_info(std::exchange(info_body, {}));
        }
        case FrameType::kTokens:
            return on_tokens(f);
        case FrameType::kError:
            return on_error(control(), f);
        case FrameType::kCredit: {
            auto n = read_credit(f.payload, "data");
            if (!n) return tl::unexpected(std::move(n.error()));
            Stream* s = streams.find(f.stream);
            if (s == nullptr) return {};
            if (!s->uploading || s->uploaded > 0) return violation(f, "nothing is to be uploaded");
            s->uploaded = 0;
            Lane* lane = bulk ? bulk_lane(now) : &control();
            if (!busy(*lane)) lane->since = now;
            if (std::ranges::find(lane->uploads, f.stream) == lane->uploads.end()) {
                lane->uploads.push_back(f.stream);
            }
            pump(*lane, now);
            return {};
        }
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

void ClientLink::Impl::tick_lanes(TimePoint now) {
    std::vector<std::pair<LaneId, Error>> over;
    for (const auto& l : lanes) {
        if (l->control()) continue;
        const auto quiet = now - l->since;
        const auto late = [&](const char* what) {
            over.emplace_back(l->id,
                              error(ErrorCode::kDeadlineExceeded, "a bulk lane {}", what).value());
        };
        if (l->phase != Lane::Phase::kReady) {
            if (quiet >= options.handshake_within) late("was not there in time");
        } else if (busy(*l)) {
            if (quiet >= options.lost_after) late("does not get on");
        } else if (quiet >= kLaneIdle) {
            late("is idle");
        }
    }
    for (const auto& [lane, why] : over) {
        if (dead) return;
        events.on_lane_unwanted(lane);
        if (Lane* l = find(lane); l != nullptr) drop_lane(*l, why);
    }
}

ClientLink::ClientLink(ClientLinkOptions options, LinkId id, std::uint64_t random_seed,
                       ClientLinkEvents& events, TimePoint now)
    : impl_(std::make_unique<Impl>(std::move(options), id, random_seed, events, now)) {}
ClientLink::~ClientLink() = default;

void ClientLink::connected(LaneId lane, TimePoint now) {
    Impl& m = *impl_;
    Lane* l = m.find(lane);
    if (m.dead || l == nullptr || l->phase != Lane::Phase::kConnecting) return;
    l->phase = Lane::Phase::kHello;
    l->since = now;
    if (l->control()) m.heard = now;
    l->hello.version = kProtocolVersion;
    l->hello.features = own_features();
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
    Lane* l = m.find(lane);
    if (m.dead || l == nullptr || l->phase == Lane::Phase::kConnecting) return;
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
    Lane* l = m.find(lane);
    if (m.dead || l == nullptr) return;
    if (!l->control()) return m.drop_lane(*l, why);
    l->phase = Lane::Phase::kConnecting;
    m.lose(why, false);
}

void ClientLink::lane_drained(LaneId lane, TimePoint now) {
    Impl& m = *impl_;
    Lane* l = m.find(lane);
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
        const auto within = l->phase != Lane::Phase::kReady ? o.handshake_within
                            : m.busy(*l)                    ? o.lost_after
                                                            : kLaneIdle;
        next = std::min(next, Deadline::after(l->since, within));
    }
    return next;
}

void ClientLink::set_output(LaneId lane, std::string* out) {
    if (Lane* l = impl_->find(lane); l != nullptr) l->out = out;
}

bool ClientLink::take_output_flag(LaneId lane) {
    Lane* l = impl_->find(lane);
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
    const std::size_t prompt_bytes = request->prompt.size() * 4;
    OpenHead head;
    head.request.sampling = request->sampling;
    head.request.max_tokens = request->max_tokens;
    head.request.min_tokens = request->min_tokens;
    head.request.ignore_eos = request->ignore_eos;
    head.request.stop_token_ids = request->stop_token_ids;
    head.request.top_logprobs = request->top_logprobs;
    head.request.cache_salt = request->cache_salt;
    head.request.resumed_tokens = request->resumed_tokens;
    head.request.priority = request->priority;
    head.request.tenant = request->tenant;
    head.request.traceparent = request->traceparent;
    head.request.deadline = request->deadline;
    head.booking = booking;
    head.rank = rank;
    head.credit = m.options.credit_tokens;
    head.prompt_tokens = static_cast<std::uint32_t>(request->prompt.size());
    m.scratch.clear();
    append_open(m.scratch, head, now);
    if (m.scratch.size() > kMaxPayloadBytes) {
        return error(ErrorCode::kTooLarge,
                     "the request has {} bytes besides its prompt, at most {}", m.scratch.size(),
                     kMaxPayloadBytes);
    }
    const std::uint32_t id = m.next_stream++;
    Stream& s = m.streams.insert(id);
    s.id = request->id;
    s.left = request->max_tokens;
    s.credit = head.credit;
    const bool whole = m.scratch.size() + prompt_bytes <= kMaxPayloadBytes;
    if (whole) {
        m.scratch.append(reinterpret_cast<const char*>(request->prompt.data()), prompt_bytes);
    } else {
        s.request = std::move(request);
    }
    Lane& control = m.control();
    append_frame(m.out(control), FrameType::kOpen,
                 static_cast<std::uint8_t>(kFlagCritical | (whole ? 0 : kFlagMore)), id, m.scratch);
    if (whole) return StreamId(id);
    if (prompt_bytes <= m.options.inline_prompt_bytes) {
        m.put_data(control, id, s, s.request->prompt.size());
        control.put = 0;
        s.request.reset();
    } else {
        s.uploading = true;
    }
    return StreamId(id);
}

void ClientLink::cancel(StreamId stream, TimePoint /*now*/) {
    Impl& m = *impl_;
    if (m.dead || !m.streams.erase(stream.value)) return;
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
    Lane* lane = m.bulk_lane(now);
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
