#include "stator/requests/client_link_impl.h"

#include <algorithm>

#include "stator/requests/handshake.h"

namespace stator::requests {
namespace {

constexpr std::size_t kWindowBytes = 256 * 1024;  // of a long body, put to a lane before it drains

}  // namespace

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
ClientLink::Impl::Lane* ClientLink::Impl::bulk_lane(TimePoint now) {
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

void ClientLink::Impl::put_data(Lane& lane, std::uint32_t stream, Stream& s, std::size_t words) {
    while (words > 0) {
        const std::size_t n = std::min(words, kMaxPayloadBytes / 4);
        const bool more = s.uploaded + n < s.body->words();
        std::string& to = out(lane);
        const std::size_t at = begin_frame(to);
        s.body->append(to, s.uploaded, n);
        end_frame(to, at, FrameType::kData,
                  static_cast<std::uint8_t>(kFlagCritical | (more ? kFlagMore : 0)), stream);
        s.uploaded += static_cast<std::uint32_t>(n);
        lane.put += 4 * n;
        words -= n;
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
            const std::size_t left = s->body->words() - s->uploaded;
            put_data(lane, stream, *s, std::min(left, (kWindowBytes - lane.put + 3) / 4));
            if (s->uploaded < s->body->words()) return;
            s->uploading = false;
            s->body.reset();
        }
        lane.uploads.pop_front();
    }
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

}  // namespace stator::requests
