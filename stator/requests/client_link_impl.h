#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/requests/client_link.h"
#include "stator/requests/request_body.h"
#include "stator/requests/step_codec.h"
#include "stator/requests/stream_table.h"
#include "stator/requests/wire.h"

// Inside of the client's side: client_link.cc (liveness, what the owner calls), client_frames.cc
// (what the worker says), client_lanes.cc (bulk lanes, and the long bodies that travel there).
namespace stator::requests {

struct ClientLink::Impl {
    /// A bulk lane that carries nothing for so long is given up.
    static constexpr std::chrono::milliseconds kLaneIdle{30'000};

    struct Stream {
        std::unique_ptr<OutgoingBody> body;  // until it is sent
        protocol::RequestId id;
        std::uint32_t position = 0;
        std::uint32_t left = 0;  // tokens that may still come
        std::uint32_t credit = 0;
        std::uint32_t uploaded = 0;  // words
        bool uploading = false;
        bool hands_off = false;  ///< ends with a handoff
        std::uint32_t handoff_bytes = 0;
        std::shared_ptr<const protocol::Handoff> handoff;  ///< that has come
        bool in_a_lane = false;                            ///< of its upload: one lane alone has it
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

    /// The worker broke the protocol: the link is lost.
    static tl::unexpected<Error> violation(const Frame& f, std::string_view what) {
        return error(ErrorCode::kDataLoss,
                     "the worker broke the protocol: {} (frame {}, stream {})", what,
                     to_string(f.type), f.stream);
    }

    void lose(const Error& why, bool tell);
    Result<void> on_frame(Lane& lane, const Frame& f, TimePoint now);
    Result<void> on_hello(Lane& lane, const Frame& f, TimePoint now);
    Result<void> on_control(const Frame& f, TimePoint now);
    Result<void> on_info_frame(const Frame& f);
    Result<void> on_upload_leave(const Frame& f, TimePoint now);
    Result<void> on_unknown(const Frame& f);
    Result<void> on_info(std::string_view payload);
    Result<void> on_tokens(const Frame& f);
    Result<void> on_share(const Frame& f);
    Result<void> check_ending(const Frame& f, const Stream& s) const;
    Result<void> on_handoff_frame(const Frame& f, TimePoint now);
    Result<void> on_handoff(const Frame& f, std::string_view map, TimePoint now);
    Result<void> on_error(Lane& lane, const Frame& f);
    Result<void> on_fetch_data(Lane& lane, const Frame& f, TimePoint now);
    /// False: it was not there.
    bool forget(std::uint32_t stream);
    void end_stream(std::uint32_t stream, const Error& why);
    void end_fetch(std::uint64_t fetch, Result<std::string> body);
    void drop_lane(Lane& lane, const Error& why);
    Lane* bulk_lane(TimePoint now);
    bool busy(const Lane& lane) const;
    void pump(Lane& lane, TimePoint now);
    void put_data(Lane& lane, std::uint32_t stream, Stream& s, std::size_t words);
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
    bool legs = false;
    std::optional<Error> doom;  // told of in the next input
    std::vector<std::unique_ptr<Lane>> lanes;
    std::uint32_t next_lane = 1;
    StreamTable<Stream> streams;
    std::uint32_t next_stream = 1;
    std::uint64_t next_fetch = 1;
    std::vector<Fetching> fetches;
    std::string info_body;
    bool info_more = false;
    std::string handoff_body;
    std::uint32_t handoff_stream = 0;       // that the data to come is of; 0 = none
    std::size_t waiting_handoff_bytes = 0;  // come, and their streams not ended
    std::size_t ranks = 0;
    protocol::Incarnation incarnation;
    Share share;
    protocol::StepEvent event;
    std::string scratch;
};

}  // namespace stator::requests
