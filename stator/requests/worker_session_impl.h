#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/requests/request_body.h"
#include "stator/requests/step_codec.h"
#include "stator/requests/stream_table.h"
#include "stator/requests/wire.h"
#include "stator/requests/worker_session.h"

// Inside of the worker's side: worker_session.cc (lanes, liveness, what the owner calls),
// worker_prompts.cc (requests and their prompts coming in), worker_steps.cc (tokens going out).
namespace stator::requests {

struct WorkerSession::Impl {
    /// A prompt in the coming.
    struct Upload {
        Upload(OpenHead head, TimePoint now)
            : bytes(std::size_t{4} * head.prompt_tokens), body(std::move(head), now) {}
        std::size_t bytes;
        IncomingBody body;
        bool granted = false;
        [[nodiscard]] Deadline deadline() const { return body.head().request.deadline; }
    };

    /// Tokens beyond the stream's credit.
    struct Backlog {
        protocol::StepEvent event;
        std::vector<protocol::TokenOutput> tokens;
        std::vector<protocol::TokenLogprob> top;
        std::size_t sent = 0;
    };

    struct Stream {
        std::uint32_t position = 0;
        std::uint32_t credit = 0;
        bool logprobs = false;
        bool hands_off = false;  ///< a prefill or encode leg
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

    /// The client broke the protocol: the link is lost.
    static tl::unexpected<Error> violation(const Frame& f, std::string_view what) {
        return error(ErrorCode::kDataLoss,
                     "the client broke the protocol: {} (frame {}, stream {})", what,
                     to_string(f.type), f.stream);
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
    void stop_waiting(std::uint32_t stream, const Stream& s);
    void grant();
    void expire(TimePoint now);
    Result<void> take_in(const Frame& f, const OpenHead& head, bool inlined);
    void put_handoff(std::uint32_t stream, const protocol::Handoff& handoff, TimePoint now,
                     std::string& out);
    [[nodiscard]] static Result<void> check_event(const Stream& s, const protocol::StepEvent& e);
    void queue(Stream& s, const protocol::StepEvent& e, const protocol::StepBatch& batch);
    bool drain(std::uint32_t stream, Stream& s, std::string& out);
    void abort_ended();
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
    Deadline next_expiry;  // no later than the first deadline of a prompt in the coming
    std::deque<std::uint32_t> waiting;  // for leave to upload
    std::vector<Fetching> fetches;
    std::vector<std::pair<std::uint32_t, Error>> to_abort;
    StepWriter writer;
};

}  // namespace stator::requests
