#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/protocol/generate.h"
#include "stator/requests/client_link.h"
#include "stator/requests/messages.h"

namespace stator::requests {

struct WorkerSessionOptions {
    std::string secret;  ///< empty = none wanted
    std::chrono::milliseconds ping_every{1'000};
    std::chrono::milliseconds lost_after{10'000};
    std::chrono::milliseconds handshake_within{5'000};
    std::size_t max_streams = 4096;  ///< further opens are refused (kOverloaded)
    std::size_t max_lanes = 8;
    std::size_t max_prompt_tokens = 16 * 1024 * 1024;
    std::size_t max_pixel_bytes = 192 * 1024 * 1024;  ///< of one request
    std::size_t max_uploading_bytes =
        256 * 1024 * 1024;  ///< prompts and pixels in the coming, all streams together
    std::size_t max_backlog_tokens =
        65'536;  ///< of one stream beyond its credit; more: the stream is aborted
    std::size_t max_unsent_bytes =
        16 * 1024 * 1024;  ///< of the control lane; more: the link is lost
};

/// What a WorkerSession tells its owner, from within its inputs.
class WorkerSessionEvents {
  public:
    virtual ~WorkerSessionEvents() = default;
    /// The control lane's handshake is done: this client may send requests from now on.
    virtual void on_ready(const Hello& client) = 0;
    /// A request has arrived whole. request.id is 0: the owner names it. An error refuses it; it is
    /// sent.
    [[nodiscard]] virtual Result<void> on_open(StreamId stream, std::uint32_t rank,
                                               std::uint64_t booking,
                                               protocol::GenerateRequest&& request) = 0;
    /// The client wants no more of this stream; nothing more is sent for it.
    virtual void on_cancel(StreamId stream) = 0;
    /// The same of a stream whose end was on the way to the client then: it has not heard of it. A
    /// handoff that came with the end will not be claimed.
    virtual void on_late_cancel(StreamId /*stream*/) {}
    /// The owner answers with fetched(), now or later.
    virtual void on_fetch(std::uint64_t fetch, const Fetch& what) = 0;
    /// The owner is to close this connection.
    virtual void on_lane_unwanted(LaneId lane, const Error& why) = 0;
    /// The link is over: every open stream is to be cancelled. The last call.
    virtual void on_lost(const Error& why) = 0;
};

/// The worker's side of one link, without sockets, threads or clock. Its lanes are connections that
/// said hello with the same LinkId and passed the secret; see LaneGreeter.
class WorkerSession {
  public:
    WorkerSession(WorkerSessionOptions options, const Hello& client, WorkerSessionEvents& events,
                  TimePoint now);
    ~WorkerSession();
    WorkerSession(const WorkerSession&) = delete;
    WorkerSession& operator=(const WorkerSession&) = delete;

    // From the connections.
    /// Lane 0 first. kOverloaded beyond max_lanes.
    [[nodiscard]] Result<void> add_lane(LaneId lane, std::string* out, TimePoint now);
    void received(LaneId lane, std::string_view bytes, TimePoint now);
    void lane_lost(LaneId lane, const Error& why, TimePoint now);
    void lane_drained(LaneId lane, TimePoint now);
    void tick(TimePoint now);
    [[nodiscard]] Deadline next_timer() const;
    [[nodiscard]] bool take_output_flag(LaneId lane);
    /// How much the control lane's socket has not sent, asked before tokens are put there.
    void set_unsent(std::size_t bytes);

    // From the owner.
    void send_info(const protocol::WorkerInfo& info);
    void send_load(const LoadMessage& load);  ///< booking is filled in here
    void send_go_away(const GoAway& go_away);
    /// What one engine step did. event.id's low 32 bits are the stream; events of streams that are
    /// over are left out. An engine that did not do what the stream's leg asks for (tokens of a leg
    /// that hands off, kHandoff of one that does not or without a sound handoff) ends the stream
    /// with kInternal and on_cancel().
    void send_step(const protocol::StepBatch& batch, TimePoint now);
    /// Ends a stream with an error.
    void send_error(StreamId stream, const Error& error);
    /// What this stream has ended with is lost (protocol::LostHandoff): an error of a stream that
    /// is over. Ends it where it isn't.
    void send_handoff_lost(StreamId stream, const Error& error);
    /// The body is sent piece by piece as the lane drains. Empty shared_ptr with an error refuses.
    void fetched(std::uint64_t fetch, Result<std::shared_ptr<const std::string>> body);

    [[nodiscard]] std::size_t open_streams() const;
    /// Long prompts that wait for memory; at most as many as there are open streams.
    [[nodiscard]] std::size_t waiting_prompts() const;
    [[nodiscard]] std::uint64_t highest_booking() const;
    void close();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// The handshake of one accepted connection, up to the point where it is known to which link it
/// belongs: preface, hello, our hello, proof of the secret. I/O-free too.
class LaneGreeter {
  public:
    struct Greeted {
        Hello client;
        std::string rest;  ///< bytes behind the handshake, for the session
    };
    LaneGreeter(std::string secret, std::uint64_t random_seed, TimePoint now,
                std::chrono::milliseconds within);
    ~LaneGreeter();

    /// nullopt: goes on. `out` gets what is to be sent. An error (kUnauthenticated, kUnsupported,
    /// kDataLoss, kDeadlineExceeded) is to be logged and the connection closed; `out` has the error
    /// frame for the peer.
    [[nodiscard]] Result<std::optional<Greeted>> received(std::string_view bytes, TimePoint now,
                                                          std::string& out);
    [[nodiscard]] Deadline next_timer() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::requests
