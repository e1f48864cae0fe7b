#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/protocol/generate.h"
#include "stator/requests/messages.h"

namespace stator::requests {

/// A request on a link; 1, 2, … in order of opening, never reused within the link.
using StreamId = Strong<std::uint32_t, struct StreamIdTag>;
/// A connection of a link: 0 is the control lane, others are bulk lanes; never reused within the
/// link.
using LaneId = Strong<std::uint32_t, struct LaneIdTag>;

struct ClientLinkOptions {
    std::string name;  ///< of this process
    protocol::Incarnation incarnation;
    std::string
        secret;  ///< empty = none; then a worker that wants one is refused, and the other way round
    std::chrono::milliseconds ping_every{1'000};  ///< without a byte in either direction
    std::chrono::milliseconds silent_after{
        3'000};  ///< without a byte from the worker: on_silent(true)
    std::chrono::milliseconds lost_after{10'000};  ///< …: the link is lost
    std::chrono::milliseconds handshake_within{5'000};
    std::size_t max_streams = 65'536;
    std::size_t max_bulk_lanes = 4;
    std::size_t inline_prompt_bytes = 64 * 1024;  ///< longer prompts go over a bulk lane
    std::size_t max_fetch_bytes = 256 * 1024 * 1024;
    bool legs = true;  ///< offer to send legs; without it this is a client that does not know them
    std::uint32_t credit_tokens = 4096;  ///< that a worker may send ahead of on_step's being taken
};

/// What a ClientLink tells its owner, from within its inputs. Must not call back into the link, but
/// for what is said.
class ClientLinkEvents {
  public:
    virtual ~ClientLinkEvents() = default;
    /// First: the handshake is done. Later: the worker's words about itself have changed.
    virtual void on_info(const protocol::WorkerInfo& info) = 0;
    virtual void on_load(const LoadMessage& load) = 0;
    virtual void on_go_away(const GoAway& go_away) = 0;
    /// No byte for silent_after (true), heard again (false).
    virtual void on_silent(bool silent) = 0;
    /// One stream's share of an engine step: `tokens` and `top` belong to `event` alone
    /// (event.first = 0, TokenOutput::top_first counts from top's beginning); event.id is what the
    /// request said. With event.finish the stream is over. A refusal is kError with the worker's
    /// error and no tokens. kHandoff always comes with event.handoff, and only of prefill and
    /// encode legs.
    virtual void on_step(StreamId stream, const protocol::StepEvent& event,
                         std::span<const protocol::TokenOutput> tokens,
                         std::span<const protocol::TokenLogprob> top) = 0;
    /// A stream that is over has left an early handoff (protocol::LostHandoff), or was cancelled
    /// here: it has failed since.
    virtual void on_handoff_lost(StreamId /*stream*/, const Error& /*why*/) {}
    /// Everything in the bytes given to received() has been told.
    virtual void on_turn_end() = 0;
    virtual void on_fetched(std::uint64_t fetch, Result<std::string> body) = 0;
    /// The owner is to make this bulk connection and report connected() or lane_lost().
    virtual void on_lane_wanted(LaneId lane) = 0;
    /// The owner is to close this bulk connection (idle for long, or out of order).
    virtual void on_lane_unwanted(LaneId lane) = 0;
    /// The link is over, with every stream and fetch on it: none of them is told of one by one. The
    /// last call; the owner closes the connections.
    virtual void on_lost(const Error& why) = 0;
};

/// The client's side of a link, without sockets, threads or clock: bytes and time in, bytes and
/// timers out. The same code runs on sockets, in memory and on virtual time.
///
///   connected(0) ─► hello ─► (auth) ─► info: ready ──► lost
///
/// A worker that breaks the protocol (bad frame, stream it does not own, more tokens than asked for
/// or credited, a gap in a stream's positions, a handoff nobody asked for or none where one was to
/// come) loses the link; the reason is in on_lost. Not
/// thread-safe.
class ClientLink {
  public:
    ClientLink(ClientLinkOptions options, LinkId id, std::uint64_t random_seed,
               ClientLinkEvents& events, TimePoint now);
    ~ClientLink();
    ClientLink(const ClientLink&) = delete;
    ClientLink& operator=(const ClientLink&) = delete;

    // From the connections.
    void connected(LaneId lane, TimePoint now);
    void received(LaneId lane, std::string_view bytes, TimePoint now);
    void lane_lost(LaneId lane, const Error& why, TimePoint now);
    /// The lane's out() has been taken by the kernel: more of a long body may be put there.
    void lane_drained(LaneId lane, TimePoint now);
    /// Whenever next_timer() is reached; early and late calls do no harm.
    void tick(TimePoint now);
    [[nodiscard]] Deadline next_timer() const;
    /// Where the lane's bytes are to be appended: the socket's buffer. Valid until lane_lost().
    void set_output(LaneId lane, std::string* out);
    /// True (once) after something was put into that lane's buffer.
    [[nodiscard]] bool take_output_flag(LaneId lane);

    /// Opens a stream; `request` is kept until its prompt and its pixels are sent. kUnavailable
    /// before ready and after the worker said go-away, kOverloaded at max_streams, kUnsupported
    /// where it is a leg or has media and the worker does not know legs, kInvalidArgument where
    /// leg, handoff and media don't go together.
    [[nodiscard]] Result<StreamId> open(std::shared_ptr<const protocol::GenerateRequest> request,
                                        std::uint32_t rank, std::uint64_t booking, TimePoint now);
    /// The stream is over here at once, nothing more is told of it; the worker is told. Unknown:
    /// ignored. May be called from on_step.
    void cancel(StreamId stream, TimePoint now);
    /// The handoff that this stream has ended with will not be used: the worker is told, as by a
    /// cancel that comes late. Nothing where the stream is still open.
    void release(StreamId stream, TimePoint now);
    /// The answer comes by on_fetched with the number returned.
    [[nodiscard]] Result<std::uint64_t> fetch(const Fetch& fetch, TimePoint now);

    [[nodiscard]] bool ready() const;
    [[nodiscard]] std::size_t open_streams() const;
    /// Ends everything without a word to the owner.
    void close();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::requests
