#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "stator/requests/client_link.h"
#include "stator/requests/worker_session.h"

namespace stator::requests {

/// For tests: a client's link and a worker's session, joined by connections in memory on virtual
/// time. Bytes are cut into random pieces and delayed; every byte that travels is counted.

inline protocol::WorkerInfo test_info() {
    protocol::WorkerInfo info;
    info.name = "w1";
    info.incarnation = protocol::Incarnation(77);
    info.version = "0.1.0";
    info.engine = "echo";
    info.roles = {protocol::Role::kAggregated};
    info.card.name = "tiny";
    info.card.aliases = {"small"};
    info.card.title = "Tiny";
    info.card.weights_digest = "sha256-sample:" + std::string(64, 'a');
    info.card.tokenizer = {.kind = "byte-tokenizer", .sha256 = std::string(64, 'b'), .bytes = 3};
    info.card.chat_template =
        protocol::Artifact{.kind = "chat-template", .sha256 = std::string(64, 'c'), .bytes = 9};
    info.card.vocab_size = 256;
    info.card.context_tokens = 65'536;
    info.card.block_tokens = 16;
    info.card.hash_scheme = "xxh3-64:1337";
    info.card.kv_layout = "echo";
    info.card.max_top_logprobs = 20;
    info.card.sampling.temperature = 0.5F;
    info.card.sampling.top_k = 40;
    info.ranks = {{.rank = 0, .max_running = 8, .max_waiting = 64, .kv_total_tokens = 4096},
                  {.rank = 1, .max_running = 8, .max_waiting = 64, .kv_total_tokens = 4096}};
    info.events =
        protocol::EventEndpoint{.address = "tcp://127.0.0.1:5557", .curve_public_key = {}};
    info.transfer_methods = {"tcp"};
    info.labels = {{"host", "a"}, {"zone", "z1"}};
    return info;
}

/// Remembers what a link said.
struct ClientRecord : ClientLinkEvents {
    struct Stream {
        std::vector<protocol::TokenId> tokens;
        int ends = 0;
        std::optional<protocol::FinishReason> finish;
        std::optional<Error> error;
        std::shared_ptr<const protocol::Handoff> handoff;
        std::uint32_t prompt_tokens = 0;
        std::size_t top = 0;
        float logprob_sum = 0;
    };
    void on_info(const protocol::WorkerInfo& i) override { infos.push_back(i); }
    void on_load(const LoadMessage& l) override { loads.push_back(l); }
    void on_go_away(const GoAway& g) override { go_away = g; }
    void on_silent(bool s) override { silent.push_back(s); }
    void on_step(StreamId id, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> tokens,
                 std::span<const protocol::TokenLogprob> top) override {
        Stream& s = streams[id.value];
        for (const auto& token : tokens) {
            s.tokens.push_back(token.token);
            s.logprob_sum += token.logprob;
        }
        s.top += top.size();
        if (event.prompt_tokens != 0) s.prompt_tokens = event.prompt_tokens;
        if (!event.finish) return;
        s.ends += 1;
        s.finish = event.finish;
        s.error = event.error;
        s.handoff = event.handoff;
    }
    void on_handoff_lost(StreamId id, const Error&) override { lost_handoffs.push_back(id.value); }
    void on_turn_end() override { turns += 1; }
    void on_fetched(std::uint64_t id, Result<std::string> body) override {
        fetched.emplace(id, std::move(body));
    }
    void on_lane_wanted(LaneId lane) override { wanted.push_back(lane); }
    void on_lane_unwanted(LaneId lane) override { unwanted.push_back(lane); }
    void on_lost(const Error& why) override { lost.push_back(why); }

    std::vector<protocol::WorkerInfo> infos;
    std::vector<LoadMessage> loads;
    std::optional<GoAway> go_away;
    std::vector<bool> silent;
    std::map<std::uint32_t, Stream> streams;
    int turns = 0;
    std::map<std::uint64_t, Result<std::string>> fetched;
    std::vector<LaneId> wanted, unwanted;
    std::vector<std::uint32_t> lost_handoffs;
    std::vector<Error> lost;
};

struct WorkerRecord : WorkerSessionEvents {
    struct Open {
        std::uint32_t rank = 0;
        std::uint64_t booking = 0;
        protocol::GenerateRequest request;
    };
    void on_ready(const Hello& c) override { client = c; }
    Result<void> on_open(StreamId id, std::uint32_t rank, std::uint64_t booking,
                         protocol::GenerateRequest&& request) override {
        if (rank > 1) return error(ErrorCode::kInvalidArgument, "rank {} is not here", rank);
        opens[id.value] = {.rank = rank, .booking = booking, .request = std::move(request)};
        return {};
    }
    void on_cancel(StreamId id) override { cancelled.push_back(id.value); }
    void on_late_cancel(StreamId id) override { late_cancelled.push_back(id.value); }
    void on_fetch(std::uint64_t id, const Fetch& what) override { fetches[id] = what; }
    void on_lane_unwanted(LaneId lane, const Error&) override { unwanted.push_back(lane); }
    void on_lost(const Error& why) override { lost.push_back(why); }

    std::optional<Hello> client;
    std::map<std::uint32_t, Open> opens;
    std::vector<std::uint32_t> cancelled, late_cancelled;
    std::map<std::uint64_t, Fetch> fetches;
    std::vector<LaneId> unwanted;
    std::vector<Error> lost;
};

struct MemoryNet {
    struct Wire {  // one lane
        LaneId lane;
        std::string to_worker, to_client;            // put, not yet taken by the "kernel"
        std::string pipe_to_worker, pipe_to_client;  // on the way
        std::unique_ptr<LaneGreeter> greeter;
        bool joined = false, cut = false;
    };
    explicit MemoryNet(std::uint64_t seed, ClientLinkOptions c = {}, WorkerSessionOptions w = {})
        : client_options(std::move(c)), worker_options(std::move(w)), random(seed) {
        client_options.name = "frontend";
        client_options.incarnation = protocol::Incarnation(5);
        client = std::make_unique<ClientLink>(client_options, LinkId{.high = 1, .low = seed}, seed,
                                              at_client, now);
    }

    void connect(LaneId lane) {
        auto& w = *wires.emplace_back(std::make_unique<Wire>());
        w.lane = lane;
        w.greeter = std::make_unique<LaneGreeter>(worker_options.secret, 99 + lane.value, now,
                                                  worker_options.handshake_within);
        client->set_output(lane, &w.to_worker);
        client->connected(lane, now);
    }

    /// Moves at most one random piece in each direction of each lane. False: nothing moved.
    bool step() {
        bool moved = false;
        for (std::size_t i = 0; i < wires.size(); ++i) {
            Wire& w = *wires[i];
            if (w.cut) continue;
            moved |= take(w.to_worker, w.pipe_to_worker);
            moved |= take(w.to_client, w.pipe_to_client);
            if (std::string piece = cut(w.pipe_to_worker); !piece.empty()) {
                moved = true;
                to_worker_bytes += piece.size();
                if (tap) tap(true, w.lane, piece);
                deliver(w, piece);
            }
            if (w.cut) continue;
            if (std::string piece = cut(w.pipe_to_client); !piece.empty()) {
                moved = true;
                to_client_bytes += piece.size();
                if (tap) tap(false, w.lane, piece);
                client->received(w.lane, piece, now);
            }
            if (w.cut) continue;
            if (w.to_worker.empty()) client->lane_drained(w.lane, now);
            if (session && w.joined && w.to_client.empty()) session->lane_drained(w.lane, now);
        }
        while (!at_client.wanted.empty()) {
            const LaneId lane = at_client.wanted.back();
            at_client.wanted.pop_back();
            connect(lane);
            moved = true;
        }
        for (const LaneId lane : std::exchange(at_client.unwanted, {})) {
            for (auto& w : wires) {
                if (w->lane == lane) w->cut = true;
            }
            if (session) session->lane_lost(lane, gone(), now);
        }
        return moved;
    }
    void run() {
        while (step()) {
        }
    }
    void advance(std::chrono::nanoseconds d) {
        now = now + d;
        client->tick(now);
        if (session) session->tick(now);
        run();
    }
    void cut_all() {
        for (auto& w : wires) {
            if (std::exchange(w->cut, true)) continue;
            client->lane_lost(w->lane, gone(), now);
            if (session && w->joined) session->lane_lost(w->lane, gone(), now);
        }
    }
    void start() {
        connect(LaneId(0));
        run();
        if (session) session->send_info(test_info());
        run();
    }
    static Error gone() { return error(ErrorCode::kUnavailable, "cut").value(); }

    Result<StreamId> open(std::size_t prompt, std::uint32_t max, std::uint64_t booking = 0,
                          std::uint32_t rank = 0) {
        auto q = std::make_shared<protocol::GenerateRequest>();
        q->id = protocol::RequestId(1000 + booking);
        for (std::size_t i = 0; i < prompt; ++i) {
            q->prompt.push_back(static_cast<protocol::TokenId>(i * 7));
        }
        q->max_tokens = max;
        return client->open(std::move(q), rank, booking, now);
    }
    /// One token (its number in the stream) for each of these streams.
    void tokens(const std::vector<std::pair<std::uint32_t, std::uint32_t>>& stream_and_token,
                bool last = false) {
        protocol::StepBatch batch;
        for (const auto& [stream, token] : stream_and_token) {
            protocol::StepEvent e;
            e.id = protocol::RequestId((std::uint64_t{9} << 32) | stream);
            e.first = static_cast<std::uint32_t>(batch.tokens.size());
            e.count = 1;
            if (last) e.finish = protocol::FinishReason::kLength;
            batch.events.push_back(std::move(e));
            batch.tokens.push_back({.token = token});
        }
        session->send_step(batch, now);
    }

    /// What an engine that hands off says.
    void hand_off(std::uint32_t stream, std::shared_ptr<const protocol::Handoff> handoff) {
        protocol::StepBatch batch;
        protocol::StepEvent e;
        e.id = protocol::RequestId((std::uint64_t{9} << 32) | stream);
        e.finish = protocol::FinishReason::kHandoff;
        e.prompt_tokens = 1;
        e.handoff = std::move(handoff);
        batch.events.push_back(std::move(e));
        session->send_step(batch, now);
    }

    ClientLinkOptions client_options;
    WorkerSessionOptions worker_options;
    std::mt19937_64 random;
    TimePoint now;
    ClientRecord at_client;
    WorkerRecord at_worker;
    std::unique_ptr<ClientLink> client;
    std::unique_ptr<WorkerSession> session;
    std::vector<std::unique_ptr<Wire>> wires;
    std::vector<Error> refused;
    std::size_t to_worker_bytes = 0, to_client_bytes = 0;
    std::function<void(bool to_worker, LaneId lane, std::string_view piece)> tap;  // listens in
    std::size_t max_piece = 100'000;
    std::size_t kernel_bytes = 64 * 1024;  // what a lane's pipe takes

  private:
    bool take(std::string& from, std::string& pipe) {
        if (from.empty() || pipe.size() >= kernel_bytes) return false;
        const std::size_t n = std::min(from.size(), kernel_bytes - pipe.size());
        pipe.append(from, 0, n);
        from.erase(0, n);
        return true;
    }
    std::string cut(std::string& pipe) {
        if (pipe.empty()) return {};
        const std::size_t n = std::min(pipe.size(), 1 + random() % max_piece);
        std::string piece = pipe.substr(0, n);
        pipe.erase(0, n);
        return piece;
    }
    void deliver(Wire& w, const std::string& piece) {
        if (w.joined) return session->received(w.lane, piece, now);
        auto done = w.greeter->received(piece, now, w.to_client);
        if (!done) {
            refused.push_back(done.error());
            if (tap) tap(false, w.lane, w.to_client);
            client->received(w.lane, std::exchange(w.to_client, {}), now);
            client->lane_lost(w.lane, gone(), now);
            w.cut = true;
            return;
        }
        if (!*done) return;
        if (w.lane.value == 0) {
            session =
                std::make_unique<WorkerSession>(worker_options, (*done)->client, at_worker, now);
        }
        w.joined = session && session->add_lane(w.lane, &w.to_client, now).has_value();
        if (w.joined && !(*done)->rest.empty()) session->received(w.lane, (*done)->rest, now);
    }
};

}  // namespace stator::requests
