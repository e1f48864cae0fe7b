// A hostile peer against either side of a link. The first byte says which side, whether the
// handshake is done when the peer turns hostile, whether there is a secret, and whether what
// follows are bytes as they come (a transcript) or a script of frames with right checksums and of
// what the side's owner does meanwhile.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/base/check.h"
#include "stator/requests/client_link.h"
#include "stator/requests/handshake.h"
#include "stator/requests/messages.h"
#include "stator/requests/wire.h"
#include "stator/requests/worker_session.h"

namespace {

using namespace stator;
using namespace stator::requests;

// Seeds and ids are those of the transcripts, so that these are valid input.
constexpr std::size_t kLanes = 3;
constexpr std::size_t kMaxOutput = 4 * 1024 * 1024;

/// Reads the script; zeros behind its end.
class Script {
  public:
    explicit Script(std::string_view bytes) : bytes_(bytes) {}
    [[nodiscard]] bool done() const { return bytes_.empty(); }
    std::uint8_t byte() {
        if (bytes_.empty()) return 0;
        const auto b = static_cast<std::uint8_t>(bytes_.front());
        bytes_.remove_prefix(1);
        return b;
    }
    std::uint32_t number() { return byte() | (static_cast<std::uint32_t>(byte()) << 8U); }
    std::string_view text(std::size_t n) {
        const auto piece = bytes_.substr(0, n);
        bytes_.remove_prefix(piece.size());
        return piece;
    }

  private:
    std::string_view bytes_;
};

struct Client final : ClientLinkEvents {
    void alive() const { STATOR_CHECK(!lost, "nothing is told after on_lost"); }
    void on_info(const protocol::WorkerInfo& info) override {
        alive();
        STATOR_CHECK(!info.ranks.empty(), "a worker has ranks");
    }
    void on_load(const LoadMessage&) override { alive(); }
    void on_go_away(const GoAway&) override { alive(); }
    void on_silent(bool) override { alive(); }
    void on_step(StreamId stream, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> tokens,
                 std::span<const protocol::TokenLogprob> top) override {
        alive();
        STATOR_CHECK(open.contains(stream.value), "only of streams that are open");
        STATOR_CHECK(event.count == tokens.size() || event.error, "the event counts its tokens");
        for (const auto& token : tokens) {
            STATOR_CHECK(token.top_first + token.top_count <= top.size(), "within top");
        }
        STATOR_CHECK(
            (event.finish == protocol::FinishReason::kHandoff) == (event.handoff != nullptr),
            "a handoff comes with its end");
        STATOR_CHECK(!event.handoff || (legs.contains(stream.value) && tokens.empty()),
                     "only legs hand off, and they have no tokens");
        if (event.finish) open.erase(stream.value);
    }
    void on_turn_end() override { alive(); }
    void on_fetched(std::uint64_t fetch, Result<std::string>) override {
        alive();
        STATOR_CHECK(fetches.erase(fetch) == 1, "a fetch is answered once");
    }
    void on_lane_wanted(LaneId lane) override {
        alive();
        wanted.push_back(lane);
    }
    void on_lane_unwanted(LaneId) override { alive(); }
    void on_lost(const Error& why) override {
        alive();
        STATOR_CHECK(!why.message.empty(), "a loss has a reason");
        lost = true;
    }
    std::set<std::uint32_t> open;
    std::set<std::uint32_t> legs;  // that hand off
    std::set<std::uint64_t> fetches;
    std::vector<LaneId> wanted;
    bool lost = false;
};

struct Worker final : WorkerSessionEvents {
    void alive() const { STATOR_CHECK(!lost, "nothing is told after on_lost"); }
    void on_ready(const Hello&) override { alive(); }
    Result<void> on_open(StreamId stream, std::uint32_t, std::uint64_t,
                         protocol::GenerateRequest&& request) override {
        alive();
        const bool encode = request.leg == protocol::Leg::kEncode;
        STATOR_CHECK(request.prompt.empty() == encode && request.max_tokens > 0,
                     "a request has a prompt");
        STATOR_CHECK(!encode || (request.media.size() == 1 && request.media[0].content &&
                                 !request.media[0].content->pixels.empty()),
                     "an encode leg has pixels");
        if (!encode && request.prompt[0] % 5 == 4) return error(ErrorCode::kOverloaded, "not now");
        open.insert(stream.value);
        return {};
    }
    void on_cancel(StreamId stream) override {
        alive();
        STATOR_CHECK(open.erase(stream.value) + finished.erase(stream.value) == 1,
                     "a stream is cancelled once, if it was told of");
    }
    void on_fetch(std::uint64_t fetch, const Fetch&) override {
        alive();
        fetches.push_back(fetch);
    }
    void on_lane_unwanted(LaneId, const Error&) override { alive(); }
    void on_lost(const Error& why) override {
        alive();
        STATOR_CHECK(!why.message.empty(), "a loss has a reason");
        lost = true;
    }
    std::set<std::uint32_t> open;
    std::set<std::uint32_t> finished;  // by the owner; tokens may still wait for credit
    std::vector<std::uint64_t> fetches;
    bool lost = false;
};

/// What a side says must be frames, whatever it was told.
class Output {
  public:
    explicit Output(bool preface) : reader_(preface) {}
    std::string bytes;
    void take() {
        STATOR_CHECK(bytes.size() <= kMaxOutput, "what a peer makes us say is bounded");
        const auto ok = reader_.feed(bytes, [](const Frame&) -> Result<void> { return {}; });
        STATOR_CHECK(ok.has_value(), "we say frames");
        bytes.clear();
    }

  private:
    FrameReader reader_;
};

std::string script_frame(Script& script, std::uint8_t type) {
    const std::uint8_t flags = script.byte();
    const std::uint8_t stream = script.byte();
    const std::size_t n = script.number();
    std::string out;
    append_frame(out, static_cast<FrameType>(type), flags, stream,
                 script.text(std::min(n, kMaxPayloadBytes)));
    return out;
}

protocol::WorkerInfo worker_info() {
    protocol::WorkerInfo info;
    info.name = "w";
    info.incarnation = protocol::Incarnation(1);
    info.roles = {protocol::Role::kAggregated};
    info.card.name = "m";
    info.card.tokenizer.sha256 = std::string(64, 'a');
    info.ranks = {protocol::RankInfo{}};
    return info;
}

// ---- against a client

struct ClientSide {
    explicit ClientSide(bool secret) : link(options(secret), {1, 2}, 2, events, now) {
        for (std::size_t i = 0; i < kLanes; ++i) outputs.emplace_back(true);
        link.set_output(LaneId(0), &outputs[0].bytes);
        link.connected(LaneId(0), now);
    }
    static ClientLinkOptions options(bool secret) {
        ClientLinkOptions o;
        o.name = "frontend";
        if (secret) o.secret = "s3cret";
        o.max_bulk_lanes = kLanes - 1;
        o.max_fetch_bytes = 1024 * 1024;
        return o;
    }
    /// As an honest worker does it.
    void greet(std::uint32_t lane, bool secret) {
        if (outputs[lane].bytes.empty()) return;  // the link is over
        LaneGreeter greeter(secret ? "s3cret" : "", 99, now, std::chrono::seconds(5));
        std::string back;
        auto done = greeter.received(outputs[lane].bytes, now, back);
        outputs[lane].take();
        link.received(LaneId(lane), std::exchange(back, {}), now);
        if (done && !*done) done = greeter.received(outputs[lane].bytes, now, back);
        STATOR_CHECK(done && *done, "an honest handshake succeeds");
        if (lane != 0) return;
        put_frame(back, FrameType::kInfo, 0,
                  [](std::string& to) { append_info(to, worker_info()); });
        link.received(LaneId(0), back, now);
        STATOR_CHECK(link.ready(), "an honest handshake succeeds");
    }
    /// As many pixels as the prompt had tokens.
    static void make_encode(protocol::GenerateRequest& q) {
        q.leg = protocol::Leg::kEncode;
        auto c = std::make_shared<protocol::MediaContent>();
        c->width = static_cast<std::uint32_t>(std::min<std::size_t>(q.prompt.size(), 65'536));
        c->height = 1;
        c->pixels.assign(std::size_t{3} * c->width, 'p');
        q.prompt.clear();
        q.media.emplace_back().content = std::move(c);
    }
    void open(Script& script) {
        auto q = std::make_shared<protocol::GenerateRequest>();
        q->prompt.assign(1 + script.number() * std::size_t{4}, 7);
        const std::uint8_t how = script.byte();
        q->max_tokens = 1 + how * 100U;
        q->top_logprobs = 3;
        if (how % 8 == 7) q->leg = protocol::Leg::kPrefill;
        if (how % 8 == 6) make_encode(*q);
        const bool hands_off = q->leg != protocol::Leg::kWhole;
        const auto id = link.open(std::move(q), 0, 1, now);
        if (!id) return;
        events.open.insert(id->value);
        if (hands_off) events.legs.insert(id->value);
    }
    void act(Script& script, bool secret) {
        const std::uint8_t op = script.byte();
        const std::uint32_t lane = (op >> 6U) % kLanes;
        switch (op % 16) {
            case 0:
                return open(script);
            case 1: {
                const std::uint32_t stream = script.byte();
                events.open.erase(stream);
                return link.cancel(StreamId(stream), now);
            }
            case 2:
                if (const auto id = link.fetch(
                        {.kind = Fetch::Kind::kSnapshot, .sha256 = {}, .topic = "kv"}, now)) {
                    events.fetches.insert(*id);
                }
                return;
            case 3:
                now = now + std::chrono::milliseconds(script.byte() * 50);
                return link.tick(now);
            case 4:
                return link.lane_drained(LaneId(lane), now);
            case 5:
                return link.lane_lost(LaneId(lane), error(ErrorCode::kUnavailable, "cut").value(),
                                      now);
            case 6:
                for (const LaneId wanted : std::exchange(events.wanted, {})) {
                    if (wanted.value >= kLanes) continue;
                    link.set_output(wanted, &outputs[wanted.value].bytes);
                    link.connected(wanted, now);
                    if (script.byte() % 2 == 0) greet(wanted.value, secret);
                }
                return;
            default:
                return link.received(LaneId(lane), script_frame(script, script.byte() % 20), now);
        }
    }
    void take() {
        for (Output& o : outputs) o.take();
        STATOR_CHECK(events.lost || link.open_streams() == events.open.size(),
                     "no stream ends unseen");
        static_cast<void>(link.next_timer());
    }

    TimePoint now{1'000'000'000};
    Client events;
    std::vector<Output> outputs;
    ClientLink link;
};

void against_client(std::string_view bytes, bool greeted, bool secret, bool raw, std::size_t cut) {
    ClientSide side(secret);
    if (greeted) side.greet(0, secret);
    Script script(bytes);
    while (!script.done()) {
        if (raw) {
            side.link.received(LaneId(0), script.text(cut), side.now);
        } else {
            side.act(script, secret);
        }
        side.take();
    }
}

// ---- against a worker

struct WorkerSide {
    explicit WorkerSide(bool secret)
        : options(make_options(secret)), greeter(options.secret, 99, now, std::chrono::seconds(5)) {
        for (std::size_t i = 0; i < kLanes; ++i) outputs.emplace_back(false);
    }
    static WorkerSessionOptions make_options(bool secret) {
        WorkerSessionOptions o;
        if (secret) o.secret = "s3cret";
        o.max_streams = 16;
        o.max_prompt_tokens = 64 * 1024;
        o.max_uploading_bytes = 256 * 1024;
        o.max_backlog_tokens = 8;
        return o;
    }
    void bytes(std::string_view piece) {
        if (refused) return;
        if (session) return session->received(LaneId(0), piece, now);
        auto done = greeter.received(piece, now, outputs[0].bytes);
        if (!done) {
            refused = true;
        } else if (*done) {
            join(**done);
        }
    }
    void join(const LaneGreeter::Greeted& greeted) {
        session = std::make_unique<WorkerSession>(options, greeted.client, events, now);
        for (std::size_t i = 0; i < kLanes; ++i) {
            static_cast<void>(
                session->add_lane(LaneId(static_cast<std::uint32_t>(i)), &outputs[i].bytes, now));
        }
        session->send_info(worker_info());
        session->received(LaneId(0), greeted.rest, now);
    }
    /// As an honest client does it.
    void greet() {
        Hello hello;
        hello.version = kProtocolVersion;
        hello.features = own_features();
        hello.name = "c";
        std::string out(kPreface);
        put_frame(out, FrameType::kHello, 0, [&](std::string& to) { append_hello(to, hello); });
        bytes(out);
        if (options.secret.empty()) return;
        Nonce theirs{};
        FrameReader reader(false);
        const auto ok = reader.feed(outputs[0].bytes, [&](const Frame& f) -> Result<void> {
            theirs = read_hello(f.payload).value().nonce;
            return {};
        });
        STATOR_CHECK(ok.has_value(), "a worker says hello");
        const Nonce proof = prove(options.secret, Prover::kClient, hello, theirs);
        std::string auth;
        append_frame(auth, FrameType::kAuth, kFlagCritical, 0,
                     {reinterpret_cast<const char*>(proof.data()), proof.size()});
        bytes(auth);
    }
    void step(Script& script) {
        protocol::StepBatch batch;
        for (const std::uint32_t stream : events.open) {
            protocol::StepEvent e;
            e.id = protocol::RequestId(stream);
            e.first = static_cast<std::uint32_t>(batch.tokens.size());
            e.count = script.byte() % 8U;
            batch.tokens.resize(batch.tokens.size() + e.count);
            const std::uint8_t how = script.byte();
            if (how % 8 == 0) e.finish = protocol::FinishReason::kStop;
            if (how % 16 == 8) {
                e.finish = protocol::FinishReason::kHandoff;
                e.handoff = std::make_shared<const protocol::Handoff>();
            }
            batch.events.push_back(std::move(e));
        }
        for (const auto& e : batch.events) {
            if (!e.finish) continue;
            const auto stream = static_cast<std::uint32_t>(e.id.value);
            events.open.erase(stream);
            events.finished.insert(stream);
        }
        session->send_step(batch, now);
    }
    void act(Script& script) {
        const std::uint8_t op = script.byte();
        const std::uint32_t lane = (op >> 6U) % kLanes;
        if (session == nullptr || events.lost) {
            return bytes(script_frame(script, script.byte() % 20));
        }
        switch (op % 16) {
            case 0:
                return step(script);
            case 1:
                if (events.open.empty()) return;
                session->send_error(StreamId(*events.open.begin()),
                                    error(ErrorCode::kInternal, "x").value());
                events.open.erase(events.open.begin());
                return;
            case 2:
                for (const std::uint64_t fetch : std::exchange(events.fetches, {})) {
                    session->fetched(fetch, std::make_shared<const std::string>(
                                                script.number() * std::size_t{16}, 'x'));
                }
                return;
            case 3:
                now = now + std::chrono::milliseconds(script.byte() * 50);
                return session->tick(now);
            case 4:
                return session->lane_drained(LaneId(lane), now);
            case 5:
                return session->lane_lost(LaneId(lane),
                                          error(ErrorCode::kUnavailable, "cut").value(), now);
            case 6:
                return session->send_load({});
            default:
                return session->received(LaneId(lane), script_frame(script, script.byte() % 20),
                                         now);
        }
    }
    void take() {
        for (Output& o : outputs) o.take();
        if (session) static_cast<void>(session->next_timer());
    }

    TimePoint now{1'000'000'000};
    WorkerSessionOptions options;
    Worker events;
    std::vector<Output> outputs;
    LaneGreeter greeter;
    std::unique_ptr<WorkerSession> session;
    bool refused = false;
};

void against_worker(std::string_view bytes, bool greeted, bool secret, bool raw, std::size_t cut) {
    WorkerSide side(secret);
    if (greeted) side.greet();
    if (!greeted && !raw) side.bytes(kPreface);
    Script script(bytes);
    while (!script.done()) {
        if (raw) {
            side.bytes(script.text(cut));
        } else {
            side.act(script);
        }
        side.take();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
    const auto bit = [mode = data[0]](unsigned n) { return ((mode >> n) & 1U) != 0; };
    const std::size_t cut = data[1] == 0 ? std::string_view::npos : data[1];
    (bit(0) ? against_worker : against_client)(bytes, bit(1), bit(2), bit(3), cut);
    return 0;
}
