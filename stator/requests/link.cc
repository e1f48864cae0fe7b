#include "stator/requests/link.h"

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "stator/requests/link_timer.h"

namespace stator::requests {
namespace {

std::uint64_t random_number() {
    std::random_device device;
    return (std::uint64_t{device()} << 32) | device();
}

class SocketLink;

/// One connection of a client's link.
class ClientLane final : public net::StreamHandler {
  public:
    ClientLane(std::shared_ptr<SocketLink> owner, LaneId id) : link(std::move(owner)), lane(id) {}
    void on_open() override;
    void on_bytes(std::string_view bytes) override;
    void on_drained() override;
    void on_closed(const Error& why) override;

    std::shared_ptr<SocketLink> link;
    LaneId lane;
    std::shared_ptr<net::StreamSocket> socket;
    bool flushed = false;
};

class SocketLink final : public Link,
                         public ClientLinkEvents,
                         public std::enable_shared_from_this<SocketLink> {
  public:
    SocketLink(runtime::Loop& loop, LinkOptions options, ClientLinkEvents& events,
               const Clock& clock)
        : loop_(loop),
          options_(std::move(options)),
          events_(events),
          clock_(clock),
          timer_(loop, clock),
          link_(options_.link, LinkId{.high = random_number(), .low = random_number()},
                random_number(), *this, clock.now()) {}

    void start() {
        dial(LaneId(0));
        after_input();
    }

    // Link
    Result<StreamId> open(std::shared_ptr<const protocol::GenerateRequest> request,
                          std::uint32_t rank, std::uint64_t booking) override {
        auto id = link_.open(std::move(request), rank, booking, clock_.now());
        after_input();
        return id;
    }
    void cancel(StreamId stream) override {
        link_.cancel(stream, clock_.now());
        after_input();
    }
    void release(StreamId stream) override {
        link_.release(stream, clock_.now());
        after_input();
    }
    Result<std::uint64_t> fetch(const Fetch& fetch) override {
        auto id = link_.fetch(fetch, clock_.now());
        after_input();
        return id;
    }
    [[nodiscard]] std::size_t open_streams() const override { return link_.open_streams(); }
    void close() override {
        link_.close();
        end();
    }
    [[nodiscard]] std::uint64_t sends() const override {
        std::uint64_t n = sends_of_gone_;
        for (const auto& l : lanes_) n += l->socket->sends();
        return n;
    }

    // From the machine.
    void on_info(const protocol::WorkerInfo& info) override { events_.on_info(info); }
    void on_load(const LoadMessage& load) override { events_.on_load(load); }
    void on_go_away(const GoAway& go_away) override { events_.on_go_away(go_away); }
    void on_silent(bool silent) override { events_.on_silent(silent); }
    void on_step(StreamId stream, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> tokens,
                 std::span<const protocol::TokenLogprob> top) override {
        events_.on_step(stream, event, tokens, top);
    }
    void on_handoff_lost(StreamId stream, const Error& why) override {
        events_.on_handoff_lost(stream, why);
    }
    void on_turn_end() override { events_.on_turn_end(); }
    void on_fetched(std::uint64_t fetch, Result<std::string> body) override {
        events_.on_fetched(fetch, std::move(body));
    }
    void on_lane_wanted(LaneId lane) override { dial(lane); }
    void on_lane_unwanted(LaneId lane) override {
        for (const auto& l : lanes_) {
            if (l->lane == lane) l->socket->close();
        }
    }
    void on_lost(const Error& why) override {
        end();
        events_.on_lost(why);
    }

    // From the sockets and the timer.
    void opened(const ClientLane& lane) {
        link_.set_output(lane.lane, &lane.socket->out());
        link_.connected(lane.lane, clock_.now());
        after_input();
    }
    void bytes(const ClientLane& lane, std::string_view bytes) {
        link_.received(lane.lane, bytes, clock_.now());
        after_input();
    }
    void drained(LaneId lane) {
        link_.lane_drained(lane, clock_.now());
        after_input();
    }
    void closed(const ClientLane& lane, const Error& why) {
        if (over_) return;
        link_.lane_lost(lane.lane, why, clock_.now());
        if (over_) return;
        sends_of_gone_ += lane.socket->sends();
        std::erase_if(lanes_, [&](const auto& l) { return l.get() == &lane; });
        after_input();
    }
    void on_timer() {
        link_.tick(clock_.now());
        after_input();
    }

  private:
    void dial(LaneId lane) {
        auto handler = std::make_shared<ClientLane>(shared_from_this(), lane);
        handler->socket = net::connect_stream(loop_, options_.address, options_.stream, handler);
        lanes_.push_back(std::move(handler));
    }

    void end() {
        if (std::exchange(over_, true)) return;
        timer_.cancel();
        // From here on their sockets alone keep the lanes, and with them this link: a loop that
        // ends before the last word is sent lets go of all.
        for (const auto& l : std::exchange(lanes_, {})) {
            sends_of_gone_ += l->socket->sends();
            l->socket->close();
        }
    }

    void after_input() {
        if (over_) return;
        bool sent = false;
        for (const auto& l : lanes_) {
            if (!link_.take_output_flag(l->lane)) continue;
            l->socket->flush_later();
            l->flushed = true;
            sent = true;
        }
        // A lane that took everything at once says nothing, but it may have more now.
        if (sent) {
            loop_.at_turn_end([self = shared_from_this()] { self->after_flush(); });
        }
        timer_.want(link_.next_timer(), shared_from_this());
    }

    void after_flush() {
        std::vector<LaneId> drained_lanes;
        for (const auto& l : lanes_) {
            // Not sent yet: it is of the next flush, which is followed by another look, or the
            // kernel has not taken it, which ends in on_drained().
            if (!l->flushed || l->socket->unsent() != 0) continue;
            l->flushed = false;
            drained_lanes.push_back(l->lane);
        }
        for (const LaneId lane : drained_lanes) drained(lane);
    }

    runtime::Loop& loop_;
    LinkOptions options_;
    ClientLinkEvents& events_;
    const Clock& clock_;
    LinkTimer timer_;
    ClientLink link_;
    std::vector<std::shared_ptr<ClientLane>> lanes_;
    std::uint64_t sends_of_gone_ = 0;
    bool over_ = false;
};

void ClientLane::on_open() { link->opened(*this); }
void ClientLane::on_bytes(std::string_view bytes) { link->bytes(*this, bytes); }
void ClientLane::on_drained() { link->drained(lane); }
void ClientLane::on_closed(const Error& why) {
    const auto keep = std::move(link);
    keep->closed(*this, why);
}

}  // namespace

std::shared_ptr<Link> connect_link(runtime::Loop& loop, LinkOptions options,
                                   ClientLinkEvents& events, const Clock& clock) {
    auto link = std::make_shared<SocketLink>(loop, std::move(options), events, clock);
    link->start();
    return link;
}

}  // namespace stator::requests
