#include "stator/requests/worker_session.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>

#include "stator/base/check.h"
#include "stator/requests/handshake.h"
#include "stator/requests/step_codec.h"
#include "stator/requests/stream_table.h"

namespace stator::requests {
namespace {

using protocol::GenerateRequest;
using protocol::StepBatch;
using protocol::StepEvent;
using protocol::TokenLogprob;
using protocol::TokenOutput;
using std::chrono::milliseconds;

constexpr std::size_t kMaxFetches = 64;
constexpr std::size_t kWindowBytes = 256 * 1024;
constexpr milliseconds kLaneIdle{120'000};
/// Prompts of up to so many bytes come without having been asked for.
constexpr std::size_t kInlineBytes = 64 * 1024;

/// A prompt in the coming.
struct Upload {
    OpenHead head;
    bool granted = false;
};

/// Tokens beyond the stream's credit.
struct Backlog {
    StepEvent event;
    std::vector<TokenOutput> tokens;
    std::vector<TokenLogprob> top;
    std::size_t sent = 0;
};

struct Stream {
    std::uint32_t position = 0;
    std::uint32_t credit = 0;
    bool logprobs = false;
    std::unique_ptr<Upload> upload;
    std::unique_ptr<Backlog> backlog;
};

struct Body {
    std::uint64_t fetch = 0;
    std::shared_ptr<const std::string> bytes;
    std::size_t at = 0;
};

struct Lane {
    Lane(LaneId lane, std::string* to, TimePoint now) : id(lane), out(to), since(now) {}
    LaneId id;
    std::string* out;
    FrameReader reader{false};
    bool flag = false;
    TimePoint since;
    std::size_t put = 0;
    std::deque<Body> bodies;
    [[nodiscard]] bool control() const { return id.value == 0; }
};

struct Fetching {
    std::uint32_t id = 0;
    LaneId lane;
};

tl::unexpected<Error> violation(const Frame& f, std::string_view what) {
    return error(ErrorCode::kDataLoss, "the client broke the protocol: {} (frame {}, stream {})",
                 what, to_string(f.type), f.stream);
}

}  // namespace

struct WorkerSession::Impl {
    Impl(WorkerSessionOptions o, Hello hello, WorkerSessionEvents& e, TimePoint now)
        : options(std::move(o)), client(std::move(hello)), events(e), heard(now) {}

    Lane* find(LaneId lane) {
        for (auto& l : lanes) {
            if (l->id == lane) return l.get();
        }
        return nullptr;
    }
    /// nullptr before add_lane(0) and once the link is over.
    std::string* control_out() {
        if (dead || doom || lanes.empty()) return nullptr;
        lanes.front()->flag = true;
        return lanes.front()->out;
    }

    void lose(const Error& why, bool tell);
    void check_unsent();
    Result<void> on_control(const Frame& f, TimePoint now);
    Result<void> on_bulk(Lane& lane, const Frame& f);
    Result<void> on_open(const Frame& f, TimePoint now);
    Result<void> on_data(const Frame& f);
    Result<void> on_credit(const Frame& f);
    Result<void> on_fetch(Lane& lane, const Frame& f);
    Result<void> on_unknown(const Frame& f);
    void append_prompt(std::uint32_t stream, Stream& s, std::string_view bytes, bool more);
    void deliver(std::uint32_t stream);
    void refuse(std::uint32_t stream, const Error& why);
    void drop_upload(Stream& s);
    void grant();
    void queue(Stream& s, const StepEvent& e, const StepBatch& batch);
    bool drain(std::uint32_t stream, Stream& s, std::string& out);
    void abort_slow();
    void pump(Lane& lane);
    void drop_lane(Lane& lane);

    WorkerSessionOptions options;
    Hello client;
    WorkerSessionEvents& events;
    TimePoint heard;
    std::optional<TimePoint> pinged;
    TimePoint last_ping;
    bool dead = false;
    std::optional<Error> doom;
    std::size_t unsent = 0;
    std::vector<std::unique_ptr<Lane>> lanes;
    StreamTable<Stream> streams;
    std::uint32_t last_stream = 0;
    std::uint64_t booking = 0;
    std::size_t uploading_bytes = 0;
    std::deque<std::uint32_t> waiting;  // for leave to upload
    std::vector<Fetching> fetches;
    std::vector<std::uint32_t> too_slow;
    StepWriter writer;
};

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

void WorkerSession::Impl::drop_upload(Stream& s) {
    if (!s.upload) return;
    if (s.upload->granted) uploading_bytes -= std::size_t{4} * s.upload->head.prompt_tokens;
    s.upload.reset();
}

void WorkerSession::Impl::refuse(std::uint32_t stream, const Error& why) {
    if (Stream* s = streams.find(stream); s != nullptr) drop_upload(*s);
    streams.erase(stream);
    if (std::string* out = control_out(); out != nullptr) put_error(*out, stream, why);
}

/// Lets as many waiting uploads begin as there is memory for.
void WorkerSession::Impl::grant() {
    while (!waiting.empty()) {
        const std::uint32_t stream = waiting.front();
        Stream* s = streams.find(stream);
        if (s != nullptr && s->upload) {
            const std::size_t bytes = std::size_t{4} * s->upload->head.prompt_tokens;
            if (uploading_bytes > 0 && uploading_bytes + bytes > options.max_uploading_bytes)
                return;
            uploading_bytes += bytes;
            s->upload->granted = true;
            // Growing on the way would copy megabytes at once, while other streams wait.
            s->upload->head.request.prompt.reserve(s->upload->head.prompt_tokens);
            if (std::string* out = control_out(); out != nullptr) {
                put_credit(*out, stream, "data", s->upload->head.prompt_tokens);
            }
        }
        waiting.pop_front();
    }
}

/// The prompt is whole: the owner decides.
void WorkerSession::Impl::deliver(std::uint32_t stream) {
    Stream* s = streams.find(stream);
    OpenHead head = std::move(s->upload->head);
    drop_upload(*s);
    const auto ok =
        events.on_open(StreamId(stream), head.rank, head.booking, std::move(head.request));
    if (!ok) refuse(stream, ok.error());
    grant();
}

void WorkerSession::Impl::append_prompt(std::uint32_t stream, Stream& s, std::string_view bytes,
                                        bool more) {
    OpenHead& head = s.upload->head;
    auto& prompt = head.request.prompt;
    const std::size_t n = bytes.size() / 4;
    const std::size_t have = prompt.size() + n;
    if (bytes.size() % 4 != 0 || have > head.prompt_tokens ||
        (more ? have == head.prompt_tokens : have < head.prompt_tokens)) {
        return refuse(stream, error(ErrorCode::kInvalidArgument,
                                    "the prompt has {} tokens so far and {} bytes more, {} said",
                                    prompt.size(), bytes.size(), head.prompt_tokens)
                                  .value());
    }
    if (n > 0) {
        const std::size_t at = prompt.size();
        prompt.resize(have);
        std::memcpy(prompt.data() + at, bytes.data(), bytes.size());
    }
    if (!more) deliver(stream);
}

Result<void> WorkerSession::Impl::on_open(const Frame& f, TimePoint now) {
    if (f.stream <= last_stream) return violation(f, "a stream number that was used before");
    last_stream = f.stream;
    std::string_view rest;
    auto head = read_open(f.payload, now, rest);
    if (!head) {
        refuse(f.stream, head.error());
        return {};
    }
    booking = std::max(booking, head->booking);
    const std::size_t bytes = std::size_t{4} * head->prompt_tokens;
    const bool more = (f.flags & kFlagMore) != 0;
    const bool inlined = !more || bytes <= kInlineBytes;
    if (streams.size() >= options.max_streams) {
        refuse(f.stream,
               error(ErrorCode::kOverloaded, "{} requests are open on this link", streams.size())
                   .value());
        return {};
    }
    if (head->prompt_tokens > options.max_prompt_tokens) {
        refuse(f.stream, error(ErrorCode::kTooLarge, "a prompt of {} tokens, at most {}",
                               head->prompt_tokens, options.max_prompt_tokens)
                             .value());
        return {};
    }
    if (inlined && more && uploading_bytes + bytes > options.max_uploading_bytes) {
        refuse(f.stream, error(ErrorCode::kOverloaded, "{} bytes of prompts are in the coming",
                               uploading_bytes)
                             .value());
        return {};
    }
    Stream& s = streams.insert(f.stream);
    s.credit = head->credit;
    s.logprobs = head->request.top_logprobs >= 0;
    s.upload = std::make_unique<Upload>();
    s.upload->head = std::move(*head);
    if (inlined) {
        uploading_bytes += bytes;
        s.upload->granted = true;
        append_prompt(f.stream, s, rest, more);
    } else {
        waiting.push_back(f.stream);
        grant();
    }
    return {};
}

Result<void> WorkerSession::Impl::on_data(const Frame& f) {
    if (f.stream == 0 || f.stream > last_stream) return violation(f, "data of no stream");
    Stream* s = streams.find(f.stream);
    if (s == nullptr) return {};  // cancelled or refused while it was on the way
    if (!s->upload || !s->upload->granted) return violation(f, "data that was not asked for");
    append_prompt(f.stream, *s, f.payload, (f.flags & kFlagMore) != 0);
    return {};
}

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
            if (s == nullptr) return {};
            const bool opened = !s->upload;
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

void WorkerSession::Impl::abort_slow() {
    for (const std::uint32_t stream : std::exchange(too_slow, {})) {
        refuse(stream,
               error(ErrorCode::kOverloaded, "the client gives no credit: over {} tokens wait",
                     options.max_backlog_tokens)
                   .value());
        events.on_cancel(StreamId(stream));
    }
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
    m.lanes.push_back(std::make_unique<Lane>(lane, out, now));
    if (lane.value == 0) m.events.on_ready(m.client);
    return {};
}

void WorkerSession::received(LaneId lane, std::string_view bytes, TimePoint now) {
    Impl& m = *impl_;
    if (m.doom) m.lose(*m.doom, false);
    Lane* l = m.find(lane);
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
    Lane* l = m.find(lane);
    if (m.dead || l == nullptr) return;
    if (l->control()) return m.lose(why, false);
    m.drop_lane(*l);
}

void WorkerSession::lane_drained(LaneId lane, TimePoint now) {
    Impl& m = *impl_;
    Lane* l = m.find(lane);
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
    if (m.pinged) next = std::min(next, Deadline::after(*m.pinged, o.lost_after - o.ping_every));
    for (const auto& l : m.lanes) {
        if (!l->control()) next = std::min(next, Deadline::after(l->since, kLaneIdle));
    }
    return next;
}

bool WorkerSession::take_output_flag(LaneId lane) {
    Lane* l = impl_->find(lane);
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

void WorkerSession::send_step(const StepBatch& batch, TimePoint /*now*/) {
    Impl& m = *impl_;
    std::string* out = m.control_out();
    if (out == nullptr) return;
    for (const StepEvent& e : batch.events) {
        const auto stream = static_cast<std::uint32_t>(e.id.value);
        Stream* s = m.streams.find(stream);
        if (s == nullptr || s->upload) continue;
        bool over = false;
        if (s->backlog || e.count > s->credit) [[unlikely]] {
            if (s->backlog && s->backlog->event.finish) continue;
            m.queue(*s, e, batch);
            over = m.drain(stream, *s, *out);
            if (s->backlog &&
                s->backlog->tokens.size() - s->backlog->sent > m.options.max_backlog_tokens) {
                m.too_slow.push_back(stream);
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
    if (!m.too_slow.empty()) m.abort_slow();
    m.check_unsent();
}

void WorkerSession::send_error(StreamId stream, const Error& error) {
    if (impl_->streams.find(stream.value) != nullptr) impl_->refuse(stream.value, error);
}

void WorkerSession::fetched(std::uint64_t fetch, Result<std::shared_ptr<const std::string>> body) {
    Impl& m = *impl_;
    const auto at = std::ranges::find(m.fetches, fetch, &Fetching::id);
    if (m.dead || at == m.fetches.end()) return;
    Lane* lane = m.find(at->lane);
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
std::uint64_t WorkerSession::highest_booking() const { return impl_->booking; }
void WorkerSession::close() { impl_->dead = true; }

}  // namespace stator::requests
