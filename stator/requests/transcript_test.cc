#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "stator/requests/handshake.h"
#include "stator/requests/request_body.h"
#include "stator/requests/transcript_fixture.h"

// Conversations kept as files. Those of the present protocol version are made again by every run
// and must not change; those of every version must be understood by both sides. With
// STATOR_WRITE_TRANSCRIPTS set the present version's files are written instead of compared.
namespace stator::requests {
namespace {

namespace fs = std::filesystem;
using protocol::FinishReason;
using protocol::GenerateRequest;

fs::path root() { return STATOR_SOURCE_DIR; }
fs::path folder() { return root() / "test/transcripts/requests"; }

std::string read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

// ---- making them

struct Scenario {
    const char* name;
    const char* title;
    std::function<void(MemoryNet&)> talk;
    std::string client_secret = {}, worker_secret = {};
    std::uint32_t credit = 4096;
    bool legs = false;  ///< the client knows them; the older conversations are of one that does not
};

std::shared_ptr<GenerateRequest> request(std::size_t prompt, std::uint32_t max) {
    auto q = std::make_shared<GenerateRequest>();
    q->prompt.assign(prompt, 7);
    q->max_tokens = max;
    return q;
}

void open(MemoryNet& net, std::shared_ptr<GenerateRequest> q, std::uint64_t booking,
          std::uint32_t rank = 0) {
    ASSERT_TRUE(net.client->open(std::move(q), rank, booking, net.now));
    net.run();
}

void short_prompt(MemoryNet& net) {
    net.start();
    auto q = request(1, 16);
    q->prompt = {1, 15'043, 3186};
    q->sampling.temperature = 0.5F;
    q->sampling.top_p = 0.9F;
    q->sampling.top_k = 40;
    q->sampling.seed = 42;
    q->sampling.logit_bias = {{11, -1.5F}};
    q->stop_token_ids = {2};
    q->tenant = "acme";
    q->traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    q->priority = -1;
    q->deadline = Deadline::after(net.now, std::chrono::seconds(30));
    open(net, q, 9, 1);
    protocol::StepBatch batch;
    batch.events.push_back(
        {.id = protocol::RequestId(1), .count = 2, .finish = {}, .prompt_tokens = 3, .error = {}});
    batch.tokens = {{.token = 29'892}, {.token = 902}};
    net.session->send_step(batch, net.now);
    net.run();
    net.tokens({{1, 29'991}});
    net.run();
    net.tokens({{1, 2}}, true);
    net.run();
}

void many_streams(MemoryNet& net) {
    net.start();
    for (std::uint64_t i = 1; i <= 3; ++i) open(net, request(2, 4), i);
    net.tokens({{1, 10}, {2, 20}, {3, 30}});
    net.run();
    net.tokens({{3, 31}, {1, 11}}, true);
    net.tokens({{2, 21}}, true);
    net.run();
}

void logprobs(MemoryNet& net) {
    net.start();
    auto q = request(4, 2);
    q->top_logprobs = 2;
    open(net, q, 1);
    protocol::StepBatch batch;
    batch.events.push_back({.id = protocol::RequestId(1),
                            .count = 2,
                            .finish = FinishReason::kLength,
                            .prompt_tokens = 4,
                            .cached_tokens = 3,
                            .error = {}});
    batch.tokens = {{.token = 5, .logprob = -0.25F, .top_first = 0, .top_count = 2},
                    {.token = 6, .logprob = -1.5F, .top_first = 2, .top_count = 1}};
    batch.top = {{.token = 5, .logprob = -0.25F},
                 {.token = 9, .logprob = -2.0F},
                 {.token = 8, .logprob = -0.5F}};
    net.session->send_step(batch, net.now);
    net.run();
}

void long_prompt(MemoryNet& net) {
    net.start();
    open(net, request(10'000, 1), 1);
    net.tokens({{1, 1}}, true);
    open(net, request(30'000, 1), 2);
    net.tokens({{2, 1}}, true);
    net.run();
}

void cancel(MemoryNet& net) {
    net.start();
    open(net, request(2, 100), 1);
    open(net, request(30'000, 100), 2);
    net.tokens({{1, 1}});
    net.run();
    net.client->cancel(StreamId(1), net.now);
    net.client->cancel(StreamId(2), net.now);
    net.run();
}

void errors(MemoryNet& net) {
    net.start();
    open(net, request(2, 1), 1, 7);  // no such rank: refused
    open(net, request(2, 1), 2);
    Error why = error(ErrorCode::kOverloaded, "64 requests wait already").value();
    why.param = "max_tokens";
    why.retryable = true;
    why.retry_after_ms = 250;
    net.session->send_error(StreamId(2), why);
    open(net, request(2, 3), 3);
    protocol::StepBatch batch;
    batch.events.push_back({.id = protocol::RequestId(3),
                            .finish = FinishReason::kError,
                            .error = error(ErrorCode::kInternal, "the engine failed").value()});
    net.session->send_step(batch, net.now);
    net.run();
}

void credit(MemoryNet& net) {
    net.start();
    open(net, request(2, 100), 1);
    for (std::uint32_t i = 0; i < 12; ++i) net.tokens({{1, i}});
    net.run();
}

void load_and_go_away(MemoryNet& net) {
    net.start();
    open(net, request(2, 100), 77);
    net.session->send_load({.rank = 1,
                            .load = {.running = 3,
                                     .waiting = 2,
                                     .running_limit = 8,
                                     .waiting_limit = 64,
                                     .waiting_tokens = 300,
                                     .kv_used_tokens = 1000,
                                     .kv_cached_tokens = 2000,
                                     .kv_total_tokens = 4096},
                            .booking = 0,
                            .steps = 12});
    net.session->send_go_away({.reason = "SIGTERM", .grace_ms = 30'000});
    net.run();
}

void ping(MemoryNet& net) {
    net.start();
    net.advance(std::chrono::milliseconds(1100));
    net.advance(std::chrono::milliseconds(1100));
}

void fetch(MemoryNet& net) {
    net.start();
    const auto ask = [&](const Fetch& what) {
        ASSERT_TRUE(net.client->fetch(what, net.now));
        net.run();
    };
    ask({.kind = Fetch::Kind::kArtifact, .sha256 = std::string(64, 'b'), .topic = {}});
    ask({.kind = Fetch::Kind::kSnapshot, .sha256 = {}, .topic = "kv", .rank = 1, .from = 500});
    ask({.kind = Fetch::Kind::kEventRange, .sha256 = {}, .topic = "kv", .from = 3, .to = 9});
    net.session->fetched(1, std::make_shared<const std::string>("{}\n"));
    net.session->fetched(2, std::make_shared<const std::string>(70'000, 'x'));
    net.session->fetched(3, error(ErrorCode::kNotFound, "the ring begins at 400"));
    net.run();
}

std::shared_ptr<protocol::Handoff> handoff(protocol::Handoff::Kind kind, std::uint32_t tokens) {
    auto h = std::make_shared<protocol::Handoff>();
    h->kind = kind;
    h->id.fill(0xAB);
    h->content.fill(0xCD);
    h->tokens = tokens;
    h->layout = "echo";
    h->parts = {{.first = 0, .tokens = tokens, .offset = 0, .bytes = std::uint64_t{64} * tokens}};
    h->bytes = std::uint64_t{64} * tokens;
    h->shape = "s";
    h->places = {{.method = "shm", .address = "/stator-1"},
                 {.method = "tcp", .address = "127.0.0.1:7001"}};
    return h;
}

void prefill_leg(MemoryNet& net) {
    net.start();
    auto q = request(5, 16);
    q->leg = protocol::Leg::kPrefill;
    open(net, q, 1);
    auto h = handoff(protocol::Handoff::Kind::kKv, 4);
    h->expires = Deadline::after(net.now, std::chrono::seconds(30));
    net.hand_off(1, h);
    net.run();
    // Its shape and places do not fit into a frame.
    q = request(5, 16);
    q->leg = protocol::Leg::kPrefill;
    open(net, q, 2);
    h = handoff(protocol::Handoff::Kind::kKv, 4);
    h->shape.assign(protocol::kMaxShapeBytes, 's');
    h->places.assign(8, {.method = "nixl", .address = std::string(protocol::kMaxPlaceBytes, 'a')});
    net.hand_off(2, h);
    net.run();
    // The client has lost interest while the worker was done.
    q = request(5, 16);
    q->leg = protocol::Leg::kPrefill;
    open(net, q, 3);
    net.hand_off(3, handoff(protocol::Handoff::Kind::kKv, 4));
    net.client->cancel(StreamId(3), net.now);
    net.run();
}

void decode_leg(MemoryNet& net) {
    net.start();
    auto q = request(5, 2);
    q->leg = protocol::Leg::kDecode;
    auto h = handoff(protocol::Handoff::Kind::kKv, 4);
    h->expires = Deadline::after(net.now, std::chrono::seconds(30));
    q->handoff = h;
    open(net, q, 1);
    net.tokens({{1, 8}});
    net.tokens({{1, 9}}, true);
    // A map of more than 8 KiB lies behind the prompt.
    q = request(401, 1);
    q->leg = protocol::Leg::kDecode;
    h = handoff(protocol::Handoff::Kind::kKv, 400);
    h->shape.assign(9000, 's');
    q->handoff = h;
    open(net, q, 2);
    net.tokens({{2, 8}}, true);
    net.run();
}

void encode_leg(MemoryNet& net) {
    net.start();
    auto q = request(0, 16);
    q->leg = protocol::Leg::kEncode;
    q->media.resize(1);
    q->media[0].digest.fill(0xEE);
    auto c = std::make_shared<protocol::MediaContent>();
    c->width = 3;
    c->height = 2;
    c->pixels.assign(18, '\x80');
    q->media[0].content = c;
    open(net, q, 1);
    auto h = handoff(protocol::Handoff::Kind::kEmbeddings, 6);
    h->content.fill(0xEE);
    h->pieces = {{.text = {151'652}, .rows = 0}, {.text = {}, .rows = 6}};
    net.hand_off(1, h);
    net.run();
    // A video over a bulk lane.
    q = std::make_shared<GenerateRequest>(*q);
    c = std::make_shared<protocol::MediaContent>();
    c->kind = protocol::MediaContent::Kind::kVideo;
    c->width = 100;
    c->height = 150;
    c->frames = 2;
    c->frame_ms = {0, 500};
    c->pixels.assign(90'000, '\x80');
    q->media[0].content = c;
    open(net, q, 2);
    net.hand_off(2, h);
    net.run();
    // What becomes of the picture: a request that has it in its prompt.
    q = request(9, 1);
    q->media.resize(1);
    q->media[0].digest.fill(0xEE);
    q->media[0].position = 1;
    q->media[0].tokens = 7;
    q->media[0].embeddings = h;
    open(net, q, 3);
    net.tokens({{3, 8}}, true);
    net.run();
}

void legs_load(MemoryNet& net) {
    net.connect(LaneId(0));
    net.run();
    auto info = test_info();
    info.roles = {protocol::Role::kPrefill, protocol::Role::kEncode};
    info.card.media = {"image"};
    info.card.media_digest = "sha256-sample:" + std::string(64, 'd');
    info.card.media_mark = "<image>";
    net.session->send_info(info);
    net.session->send_load({.rank = 0,
                            .load = {.running = 1,
                                     .running_limit = 8,
                                     .unclaimed_handoffs = 2,
                                     .unclaimed_bytes = 5000,
                                     .unclaimed_limit = 1 << 30},
                            .booking = 0,
                            .steps = 4});
    net.run();
}

std::vector<Scenario> scenarios() {
    const auto start = [](MemoryNet& net) { net.start(); };
    return {
        {"handshake", "A client connects; the worker says who it is.", start},
        {"handshake-secret", "Both sides prove that they know the secret.", start, "s3cret",
         "s3cret"},
        {"secret-missing", "The worker wants a secret, the client has none.", start, "", "s3cret"},
        {"short-prompt", "One request with many options, four tokens in three steps.",
         short_prompt},
        {"many-streams", "One engine step's tokens of three streams in a frame.", many_streams},
        {"logprobs", "Tokens with log-probabilities and alternatives.", logprobs},
        {"long-prompt", "A prompt in data frames, and one over a bulk lane.", long_prompt},
        {"cancel", "Two streams are cancelled, one while it waits for leave to upload.", cancel},
        {"error", "A refusal, an overload, and an engine's failure.", errors},
        {"credit", "The client allows four tokens at a time.", credit, "", "", 4},
        {"load-go-away", "A load report, then the worker is going to stop.", load_and_go_away},
        {"ping", "Nobody has anything to say for two seconds.", ping},
        {"fetch", "An artifact, a snapshot and a range of events over bulk lanes.", fetch},
        {"legs-prefill", "Prefill legs: a handoff, one that is longer than a frame, one too late.",
         prefill_leg, "", "", 4096, true},
        {"legs-decode", "Decode legs, with the handoff in the head and behind the prompt.",
         decode_leg, "", "", 4096, true},
        {"legs-encode", "A picture and a video are encoded; a request has the picture.", encode_leg,
         "", "", 4096, true},
        {"legs-load", "A worker with two roles, and what its legs have left.", legs_load, "", "",
         4096, true},
    };
}

/// Writes down whole frames as they arrive.
class Stenographer {
  public:
    explicit Stenographer(MemoryNet& net) {
        net.tap = [this](bool to_worker, LaneId lane, std::string_view piece) {
            const auto key = std::pair(to_worker, lane);
            const auto [at, fresh] = readers_.try_emplace(key, to_worker);
            if (fresh && to_worker) {
                transcript.lines.push_back(
                    {.to_worker = true, .lane = lane, .bytes = std::string(kPreface)});
            }
            const auto ok = at->second.feed(piece, [&](const Frame& f) -> Result<void> {
                std::string bytes;
                append_frame(bytes, f.type, f.flags, f.stream, f.payload);
                transcript.lines.push_back({to_worker, lane, std::move(bytes)});
                return {};
            });
            EXPECT_TRUE(ok);
        };
    }
    Transcript transcript;

  private:
    std::map<std::pair<bool, LaneId>, FrameReader> readers_;
};

std::string make(const Scenario& s, std::uint64_t seed) {
    ClientLinkOptions c;
    c.secret = s.client_secret;
    c.credit_tokens = s.credit;
    c.legs = s.legs;
    WorkerSessionOptions w;
    w.secret = s.worker_secret;
    MemoryNet net(seed, c, w);
    Stenographer stenographer(net);
    s.talk(net);
    Transcript& t = stenographer.transcript;
    t.settings = {fmt::format("version {}", kProtocolVersion), fmt::format("seed {}", seed),
                  fmt::format("credit {}", s.credit)};
    if (!s.client_secret.empty()) t.settings.push_back("client-secret " + s.client_secret);
    if (!s.worker_secret.empty()) t.settings.push_back("worker-secret " + s.worker_secret);
    t.client = facts(net.at_client);
    t.worker = facts(net.at_worker);
    return print(t, s.title);
}

TEST(TranscriptTest, TheConversationsOfThisVersionHaveNotChanged) {
    const bool write = std::getenv("STATOR_WRITE_TRANSCRIPTS") != nullptr;
    std::uint64_t seed = 0;
    for (const Scenario& s : scenarios()) {
        const fs::path path = folder() / fmt::format("v{}-{}.txt", kProtocolVersion, s.name);
        const std::string text = make(s, ++seed);
        const std::string old = read_file(path);
        if (!write) {
            EXPECT_EQ(text, old) << path << ": the wire has changed. If that is meant, a peer of "
                                 << "the version before can't be broken by it; see "
                                 << "docs/request-plane.md.";
            continue;
        }
        if (!old.empty()) {
            const auto parsed = parse_transcript(old);
            ASSERT_TRUE(parsed && parsed->setting("version") == std::to_string(kProtocolVersion))
                << path << " is of another version of the protocol and stays as it is";
        }
        std::ofstream(path, std::ios::binary) << text;
    }
}

// ---- understanding them

class Transcripts : public ::testing::TestWithParam<fs::path> {
  protected:
    void SetUp() override {
        auto parsed = parse_transcript(read_file(GetParam()));
        ASSERT_TRUE(parsed) << parsed.error().message;
        transcript_ = std::move(*parsed);
        ASSERT_FALSE(transcript_.lines.empty());
    }
    [[nodiscard]] std::uint64_t number(std::string_view setting) const {
        return std::stoull(transcript_.setting(setting));
    }
    Transcript transcript_;
    TimePoint now_;
};

/// A client whose owner does what the recorded client's owner did, which its frames tell.
class ReplayedClient {
  public:
    ReplayedClient(const Transcript& t, std::uint64_t seed, std::uint32_t credit)
        : transcript_(t), link_(options(t, credit), {.high = 1, .low = seed}, seed, record, now_) {}

    void said(const Transcript::Line& line) {
        if (line.bytes == kPreface) {
            want(line.lane);
            link_.set_output(line.lane, &outputs_[line.lane]);
            link_.connected(line.lane, now_);
            return;
        }
        FrameReader reader(false);
        ASSERT_TRUE(reader.feed(line.bytes, [&](const Frame& f) -> Result<void> {
            act(f);
            return {};
        }));
    }
    void hears(const Transcript::Line& line) {
        link_.received(line.lane, line.bytes, now_);
        for (auto& [lane, output] : outputs_) {
            output.clear();
            link_.lane_drained(lane, now_);
        }
    }
    ClientRecord record;

  private:
    static ClientLinkOptions options(const Transcript& t, std::uint32_t credit) {
        ClientLinkOptions o;
        o.name = "frontend";
        o.incarnation = protocol::Incarnation(5);
        o.secret = t.setting("client-secret");
        o.credit_tokens = credit;
        return o;
    }
    void act(const Frame& f) {
        if (f.type == FrameType::kOpen) {
            std::string_view rest;
            auto head = read_open(f.payload, now_, rest);
            ASSERT_TRUE(head) << head.error().message;
            auto q = std::make_shared<GenerateRequest>(whole(f, std::move(*head), rest));
            EXPECT_EQ(link_.open(std::move(q), head->rank, head->booking, now_),
                      StreamId(f.stream));
        } else if (f.type == FrameType::kCancel) {
            link_.cancel(StreamId(f.stream), now_);
        } else if (f.type == FrameType::kFetch && f.stream > fetches_) {
            fetch(f);
        }
    }
    /// With what lies in the frame, and in data frames that may be far behind.
    GenerateRequest whole(const Frame& f, OpenHead head, std::string_view rest) {
        IncomingBody body(std::move(head), now_);
        EXPECT_TRUE(body.add(rest));
        for (const auto& line : transcript_.lines) {
            if (!line.to_worker || line.bytes == kPreface) continue;
            FrameReader reader(false);
            EXPECT_TRUE(reader.feed(line.bytes, [&](const Frame& piece) -> Result<void> {
                if (piece.type == FrameType::kData && piece.stream == f.stream) {
                    EXPECT_TRUE(body.add(piece.payload));
                }
                return {};
            }));
        }
        // Of a request that was cancelled before all of it was sent the rest is anything.
        while (!body.whole()) EXPECT_TRUE(body.add(std::string("\7\0\0\0", 4)));
        auto taken = body.take();
        EXPECT_TRUE(taken) << taken.error().message;
        return taken->request;
    }
    void fetch(const Frame& f) {
        const auto what = read_fetch(f.payload);
        ASSERT_TRUE(what) << what.error().message;
        EXPECT_EQ(link_.fetch(*what, now_), f.stream);
        fetches_ = f.stream;
    }
    /// A lane that no upload has asked for is there for the first fetch on it.
    void want(LaneId lane) {
        if (lane.value == 0 || std::ranges::find(record.wanted, lane) != record.wanted.end())
            return;
        for (const auto& line : transcript_.lines) {
            if (!line.to_worker || line.lane != lane || line.bytes == kPreface) continue;
            FrameReader reader(false);
            ASSERT_TRUE(reader.feed(line.bytes, [&](const Frame& f) -> Result<void> {
                if (f.type == FrameType::kFetch && f.stream > fetches_) fetch(f);
                return {};
            }));
            if (std::ranges::find(record.wanted, lane) != record.wanted.end()) return;
        }
    }
    const Transcript& transcript_;
    std::uint32_t fetches_ = 0;
    TimePoint now_;
    std::map<LaneId, std::string> outputs_;
    ClientLink link_;
};

TEST_P(Transcripts, TheClientUnderstandsTheWorker) {
    ReplayedClient client(transcript_, number("seed"),
                          static_cast<std::uint32_t>(number("credit")));
    for (const auto& line : transcript_.lines) {
        if (line.to_worker) {
            client.said(line);
        } else {
            client.hears(line);
        }
    }
    EXPECT_EQ(facts(client.record), transcript_.client);
}

TEST_P(Transcripts, TheWorkerUnderstandsTheClient) {
    WorkerSessionOptions options;
    options.secret = transcript_.setting("worker-secret");
    WorkerRecord record;
    std::unique_ptr<WorkerSession> session;
    std::map<LaneId, std::unique_ptr<LaneGreeter>> greeters;
    std::map<LaneId, std::string> outputs;
    for (const auto& line : transcript_.lines) {
        if (!line.to_worker) continue;
        auto& greeter = greeters[line.lane];
        const bool fresh = line.bytes == kPreface;
        if (fresh) {
            greeter = std::make_unique<LaneGreeter>(options.secret, 99 + line.lane.value, now_,
                                                    options.handshake_within);
        }
        if (greeter == nullptr) {
            session->received(line.lane, line.bytes, now_);
            continue;
        }
        auto done = greeter->received(line.bytes, now_, outputs[line.lane]);
        if (!done) break;  // a client that is refused
        if (!*done) continue;
        if (!session) {
            session = std::make_unique<WorkerSession>(options, (*done)->client, record, now_);
        }
        ASSERT_TRUE(session->add_lane(line.lane, &outputs[line.lane], now_));
        greeter.reset();
    }
    EXPECT_EQ(facts(record), transcript_.worker);
}

std::vector<fs::path> files() {
    std::vector<fs::path> all;
    for (const auto& entry : fs::directory_iterator(folder())) {
        if (entry.path().extension() == ".txt") all.push_back(entry.path());
    }
    std::ranges::sort(all);
    return all;
}
INSTANTIATE_TEST_SUITE_P(All, Transcripts, ::testing::ValuesIn(files()), [](const auto& file) {
    std::string name = file.param.stem().string();
    std::ranges::replace(name, '-', '_');
    return name;
});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Transcripts);

/// docs/request-plane.md shows a frame of every type; they are frames of the transcripts.
TEST(TranscriptTest, TheExamplesOfTheDocumentAreRealFrames) {
    std::set<std::string> recorded;
    for (const auto& file : files()) {
        const auto t = parse_transcript(read_file(file));
        ASSERT_TRUE(t) << file;
        for (const auto& line : t->lines) recorded.insert(hex(line.bytes));
    }
    std::istringstream document(read_file(root() / "docs/request-plane.md"));
    std::set<std::string> shown;
    std::string line;
    std::string example;
    bool inside = false;
    const auto check = [&] {
        if (example.empty()) return;
        EXPECT_TRUE(recorded.contains(example)) << "no transcript has " << example;
        FrameReader reader(false);
        const auto bytes = unhex(example);
        ASSERT_TRUE(bytes) << example;
        EXPECT_TRUE(reader.feed(*bytes, [&](const Frame& f) -> Result<void> {
            shown.emplace(to_string(f.type));
            return {};
        }));
        example.clear();
    };
    while (std::getline(document, line)) {
        if (line.starts_with("```")) {
            check();
            inside = line == "```hex";
        } else if (inside && line.starts_with("#")) {
            check();
        } else if (inside) {
            std::erase(line, ' ');
            example += line;
        }
    }
    EXPECT_EQ(shown.size(), 15U) << "one of every type";
}

}  // namespace
}  // namespace stator::requests
