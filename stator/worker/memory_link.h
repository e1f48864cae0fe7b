#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "stator/requests/link.h"
#include "stator/runtime/loop.h"
#include "stator/worker/recording_client.h"

namespace stator::worker {

/// For tests: both ends of a link on one loop, with strings in the place of sockets. Everything on
/// the loop but for what the recording client says.
class MemoryLink final : public requests::ServerLink,
                         public RecordingClient,
                         public std::enable_shared_from_this<MemoryLink> {
  public:
    MemoryLink(runtime::Loop& loop, requests::ClientLinkOptions options,
               requests::ServerLinkAccept accept)
        : loop_(loop), accept_(std::move(accept)) {
        client_.emplace(std::move(options), requests::LinkId{1, 2}, 7, *this, now());
    }

    void start() {
        on_lane_wanted(requests::LaneId(0));
        pump();
    }
    [[nodiscard]] requests::ClientLink& client() { return *client_; }
    /// As when the connection breaks.
    void cut() {
        Error why;
        why.code = ErrorCode::kUnavailable;
        session_->lane_lost(requests::LaneId(0), why, now());
        cut_ = true;
        events_.reset();
    }

    /// Moves bytes until both ends have nothing more to say.
    void pump() {
        for (bool moved = true; moved && !cut_;) {
            moved = false;
            for (auto& [id, lane] : lanes_) moved |= up(id, lane) || down(id, lane);
            while (!wanted_.empty()) {
                open(wanted_.back());
                wanted_.pop_back();
                moved = true;
            }
        }
    }

    // requests::ServerLink
    [[nodiscard]] requests::WorkerSession& session() override { return *session_; }
    void flush() override {
        if (std::exchange(flushing_, true)) return;
        loop_.at_turn_end([self = shared_from_this()] {
            self->flushing_ = false;
            ++self->sends_;
            self->pump();
        });
    }
    [[nodiscard]] runtime::Loop& loop() override { return loop_; }
    [[nodiscard]] const std::string& peer() const override { return peer_; }
    void close() override {}
    [[nodiscard]] std::uint64_t sends() const override { return sends_; }

    void on_lane_wanted(requests::LaneId lane) override { wanted_.push_back(lane); }

  private:
    struct Lane {
        std::string up;
        std::string down;
        std::unique_ptr<requests::LaneGreeter> greeter;
    };
    static TimePoint now() { return Clock::real().now(); }

    void open(requests::LaneId id) {
        Lane& lane = lanes_[id];
        lane.greeter =
            std::make_unique<requests::LaneGreeter>("", 9, now(), std::chrono::seconds(5));
        client_->set_output(id, &lane.up);
        client_->connected(id, now());
    }
    bool up(requests::LaneId id, Lane& lane) {
        if (lane.up.empty()) return false;
        std::string bytes = std::exchange(lane.up, {});
        if (lane.greeter) {
            auto greeted = lane.greeter->received(bytes, now(), lane.down);
            EXPECT_TRUE(greeted) << greeted.error().message;
            if (!greeted || !*greeted) return true;
            lane.greeter.reset();
            bytes = (*greeted)->rest;
            if (!session_) {
                events_ = accept_(shared_from_this());
                session_.emplace(requests::WorkerSessionOptions{}, (*greeted)->client, *events_,
                                 now());
            }
            EXPECT_TRUE(session_->add_lane(id, &lane.down, now()));
        }
        session_->received(id, bytes, now());
        client_->lane_drained(id, now());
        return true;
    }
    bool down(requests::LaneId id, Lane& lane) {
        if (lane.down.empty()) return false;
        const std::string bytes = std::exchange(lane.down, {});
        client_->received(id, bytes, now());
        if (session_) session_->lane_drained(id, now());
        return true;
    }

    runtime::Loop& loop_;
    requests::ServerLinkAccept accept_;
    std::optional<requests::ClientLink> client_;
    std::shared_ptr<requests::WorkerSessionEvents> events_;
    std::optional<requests::WorkerSession> session_;
    std::map<requests::LaneId, Lane> lanes_;
    std::vector<requests::LaneId> wanted_;
    std::string peer_ = "memory";
    bool flushing_ = false;
    bool cut_ = false;
    std::uint64_t sends_ = 0;
};

}  // namespace stator::worker
