#include "stator/cli/handoff_probe.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <future>
#include <mutex>
#include <utility>

#include "stator/cli/handoff_source.h"
#include "stator/config/value.h"

namespace stator::cli {
namespace {

using HandoffPtr = std::shared_ptr<const protocol::Handoff>;
using BytesPtr = std::shared_ptr<const protocol::HandoffBytes>;

constexpr std::chrono::milliseconds kLook{50};  // how soon Ctrl-C counts

/// Every byte once, as quickly as one thread can: all bits that differ from `fill` somewhere.
std::uint64_t differences(std::span<const std::byte> bytes, std::uint8_t fill) {
    constexpr std::size_t kLanes = 8;
    constexpr std::uint64_t kEachByte = 0x0101'0101'0101'0101ULL;
    const std::uint64_t want = fill * kEachByte;
    std::array<std::uint64_t, kLanes> found{};
    std::size_t at = 0;
    for (; at + sizeof found <= bytes.size(); at += sizeof found) {
        std::array<std::uint64_t, kLanes> words;  // NOLINT: written by memcpy
        std::memcpy(words.data(), bytes.data() + at, sizeof words);
        for (std::size_t i = 0; i < kLanes; ++i) found[i] |= words[i] ^ want;
    }
    std::uint64_t all = 0;
    for (const std::uint64_t f : found) all |= f;
    for (; at < bytes.size(); ++at) all |= static_cast<std::uint64_t>(bytes[at]) ^ fill;
    return all;
}

}  // namespace

/// What the loop and the plane's threads leave for the one that waits. Outlives the probe where a
/// claim does.
struct HandoffProbe::Shared {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<protocol::WorkerInfo> info;
    std::optional<Error> lost;
    std::optional<Result<HandoffPtr>> answer;  ///< to the request under way
    std::optional<Result<BytesPtr>> arrived;
    TimePoint asked;
    TimePoint claimed;
    TimePoint ended;

    template <typename F>
    void change(F f) {
        {
            const std::scoped_lock lock(mutex);
            f();
        }
        changed.notify_all();
    }
};

/// Of the link; on its loop.
class HandoffProbe::Events final : public requests::ClientLinkEvents {
  public:
    Events(std::shared_ptr<Shared> shared, std::shared_ptr<transfer::TransferPlane> plane)
        : shared_(std::move(shared)), plane_(std::move(plane)) {}

    void on_info(const protocol::WorkerInfo& info) override {
        shared_->change([&] { shared_->info = info; });
    }
    void on_load(const requests::LoadMessage& /*load*/) override {}
    void on_go_away(const requests::GoAway& /*go_away*/) override {}
    void on_silent(bool /*silent*/) override {}
    void on_step(requests::StreamId /*stream*/, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> /*tokens*/,
                 std::span<const protocol::TokenLogprob> /*top*/) override {
        if (!event.finish) return;
        if (event.handoff && !claim_by.empty()) claim(*event.handoff);
        shared_->change([&] {
            if (event.error) {
                shared_->answer = tl::unexpected<Error>(*event.error);
            } else {
                shared_->answer = event.handoff;
            }
        });
    }
    void on_turn_end() override {}
    void on_fetched(std::uint64_t /*fetch*/, Result<std::string> /*body*/) override {}
    void on_lane_wanted(requests::LaneId /*lane*/) override {}
    void on_lane_unwanted(requests::LaneId /*lane*/) override {}
    void on_lost(const Error& why) override {
        shared_->change([&] { shared_->lost = why; });
    }

    std::string claim_by;  ///< empty: what comes is not claimed

  private:
    void claim(const protocol::Handoff& all_ways) {
        auto what = std::make_shared<protocol::Handoff>(all_ways);
        std::erase_if(what->places, [&](const auto& place) { return place.method != claim_by; });
        const TimePoint now = Clock::real().now();
        shared_->change([&] { shared_->claimed = now; });
        if (what->places.empty()) {
            plane_->release(std::make_shared<protocol::Handoff>(all_ways));
            shared_->change([&] {
                shared_->arrived =
                    error(ErrorCode::kUnsupported, "the other side does not offer it");
            });
            return;
        }
        plane_->claim(std::move(what), {.parts = {}, .deadline = Deadline::after(now, kWithin)},
                      [shared = shared_](Result<BytesPtr> bytes) {
                          const TimePoint end = Clock::real().now();
                          shared->change([&] {
                              shared->ended = end;
                              shared->arrived = std::move(bytes);
                          });
                      });
    }

    const std::shared_ptr<Shared> shared_;
    const std::shared_ptr<transfer::TransferPlane> plane_;
};

HandoffProbe::HandoffProbe(runtime::Loop& loop, std::shared_ptr<transfer::TransferPlane> plane,
                           std::function<bool()> interrupted)
    : loop_(loop),
      plane_(std::move(plane)),
      interrupted_(std::move(interrupted)),
      shared_(std::make_shared<Shared>()),
      events_(std::make_unique<Events>(shared_, plane_)) {}

HandoffProbe::~HandoffProbe() {
    std::promise<void> closed;
    const bool posted = loop_.post([&] {
        if (link_) link_->close();
        link_.reset();
        closed.set_value();
    });
    if (posted) closed.get_future().wait();
}

/// Until done() says so, with the lock held.
template <typename F>
Result<void> HandoffProbe::wait(F done) {
    const Deadline deadline = Deadline::after(Clock::real().now(), kWithin);
    std::unique_lock lock(shared_->mutex);
    while (!done()) {
        if (shared_->lost) return tl::unexpected<Error>(*shared_->lost);
        if (interrupted_()) return error(ErrorCode::kCancelled, "stopped");
        if (deadline.reached(Clock::real().now())) {
            return error(ErrorCode::kDeadlineExceeded, "the other side did not answer within {} s",
                         kWithin.count());
        }
        shared_->changed.wait_for(lock, kLook);
    }
    return {};
}

Result<protocol::WorkerInfo> HandoffProbe::connect(requests::LinkOptions options) {
    loop_.post([this, options = std::move(options)] {
        link_ = requests::connect_link(loop_, options, *events_);
    });
    if (auto ok = wait([this] { return shared_->info.has_value(); }); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    const std::scoped_lock lock(shared_->mutex);
    if (shared_->info->card.name != kHandoffSourceModel) {
        return error(ErrorCode::kInvalidArgument,
                     "a worker of {} answers there, not `stator bench transfer --listen`",
                     config::in_quotes(shared_->info->card.name));
    }
    return *shared_->info;
}

Result<HandoffPtr> HandoffProbe::ask(protocol::GenerateRequest request,
                                     const std::string& claim_by) {
    shared_->change([&] {
        shared_->answer.reset();
        shared_->arrived.reset();
    });
    auto shared = std::make_shared<const protocol::GenerateRequest>(std::move(request));
    loop_.post([this, shared, claim_by] {
        events_->claim_by = claim_by;
        shared_->change([&] { shared_->asked = Clock::real().now(); });
        auto opened = link_->open(shared, 0, 0);
        if (opened) return;
        shared_->change([&] { shared_->answer = tl::unexpected<Error>(opened.error()); });
    });
    if (auto ok = wait([this] { return shared_->answer.has_value(); }); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    const std::scoped_lock lock(shared_->mutex);
    return *std::exchange(shared_->answer, std::nullopt);
}

Result<HandoffSample> HandoffProbe::take(const std::string& method, std::uint64_t bytes) {
    if (auto ready = ask(memory_request(bytes), ""); !ready) {
        return tl::unexpected<Error>(std::move(ready.error()));
    }
    const double cpu = own_cost().cpu_seconds;
    auto what = ask(publish_request(), method);
    if (!what) return tl::unexpected<Error>(std::move(what.error()));
    if (auto ok = wait([this] { return shared_->arrived.has_value(); }); !ok) {
        return tl::unexpected<Error>(std::move(ok.error()));
    }
    HandoffSample out;
    out.cpu_seconds = own_cost().cpu_seconds - cpu;
    std::optional<Result<BytesPtr>> arrived;
    {
        const std::scoped_lock lock(shared_->mutex);
        arrived.swap(shared_->arrived);
        out.seconds_to_arrive = to_seconds(shared_->ended - shared_->asked);
        out.seconds_to_claim = to_seconds(shared_->ended - shared_->claimed);
    }
    if (!*arrived) return tl::unexpected<Error>(std::move(arrived->error()));
    auto facts = read_handoff_facts((*what)->shape);
    if (!facts) return tl::unexpected<Error>(std::move(facts.error()));
    out.facts = std::move(*facts);
    const auto& parts = (**arrived)->parts;
    const TimePoint start = Clock::real().now();
    const bool same = parts.size() == 1 && parts.front().size() == bytes &&
                      differences(parts.front(), out.facts.fill) == 0;
    out.seconds_to_read = out.seconds_to_claim + to_seconds(Clock::real().now() - start);
    if (!same) return error(ErrorCode::kDataLoss, "other bytes came than were sent");
    return out;
}

Result<HandoffFacts> HandoffProbe::facts() {
    if (auto ready = ask(memory_request(1), ""); !ready) {
        return tl::unexpected<Error>(std::move(ready.error()));
    }
    auto what = ask(publish_request(), "");
    if (!what) return tl::unexpected<Error>(std::move(what.error()));
    plane_->release(*what);
    return read_handoff_facts((*what)->shape);
}

}  // namespace stator::cli
