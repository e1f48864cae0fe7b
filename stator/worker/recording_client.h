#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stator/requests/client_link.h"

namespace stator::worker {

/// For tests: a client that keeps all it is told, and lets the test's thread wait for it.
class RecordingClient : public requests::ClientLinkEvents {
  public:
    struct Stream {
        std::vector<protocol::TokenId> tokens;
        std::optional<protocol::StepEvent> end;
        int ends = 0;
    };
    struct Seen {
        std::vector<protocol::WorkerInfo> infos;
        std::vector<requests::LoadMessage> loads;
        std::vector<requests::GoAway> go_aways;
        std::map<std::uint32_t, Stream> streams;
        std::map<std::uint64_t, Result<std::string>> fetched;
        std::optional<Error> lost;
        std::vector<char> order;  ///< 'L' for a load, 'E' for a stream's end, as they came
    };

    void on_info(const protocol::WorkerInfo& info) override {
        note([&](Seen& s) { s.infos.push_back(info); });
    }
    void on_load(const requests::LoadMessage& load) override {
        note([&](Seen& s) {
            s.loads.push_back(load);
            s.order.push_back('L');
        });
    }
    void on_go_away(const requests::GoAway& go_away) override {
        note([&](Seen& s) { s.go_aways.push_back(go_away); });
    }
    void on_silent(bool) override {}
    void on_step(requests::StreamId stream, const protocol::StepEvent& event,
                 std::span<const protocol::TokenOutput> tokens,
                 std::span<const protocol::TokenLogprob>) override {
        note([&](Seen& s) {
            Stream& to = s.streams[stream.value];
            for (const auto& t : tokens) to.tokens.push_back(t.token);
            if (!event.finish) return;
            to.end = event;
            ++to.ends;
            s.order.push_back('E');
        });
    }
    void on_turn_end() override {}
    void on_fetched(std::uint64_t fetch, Result<std::string> body) override {
        note([&](Seen& s) { s.fetched.emplace(fetch, std::move(body)); });
    }
    void on_lane_wanted(requests::LaneId) override {}
    void on_lane_unwanted(requests::LaneId) override {}
    void on_lost(const Error& why) override {
        note([&](Seen& s) { s.lost = why; });
    }

    /// True once `what` holds.
    [[nodiscard]] bool wait(const std::function<bool(const Seen&)>& what) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return what(seen_); });
    }
    [[nodiscard]] bool wait_info(const std::function<bool(const protocol::WorkerInfo&)>& what) {
        return wait([&](const Seen& s) { return !s.infos.empty() && what(s.infos.back()); });
    }
    [[nodiscard]] bool wait_end(requests::StreamId stream) {
        return wait([&](const Seen& s) {
            const auto it = s.streams.find(stream.value);
            return it != s.streams.end() && it->second.end.has_value();
        });
    }
    [[nodiscard]] bool wait_tokens(requests::StreamId stream, std::size_t n) {
        return wait([&](const Seen& s) {
            const auto it = s.streams.find(stream.value);
            return it != s.streams.end() && it->second.tokens.size() >= n;
        });
    }
    [[nodiscard]] Seen seen() {
        const std::scoped_lock lock(mutex_);
        return seen_;
    }
    [[nodiscard]] Stream stream(requests::StreamId id) {
        const std::scoped_lock lock(mutex_);
        return seen_.streams[id.value];
    }

  private:
    void note(const std::function<void(Seen&)>& change) {
        const std::scoped_lock lock(mutex_);
        change(seen_);
        changed_.notify_all();
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    Seen seen_;
};

}  // namespace stator::worker
