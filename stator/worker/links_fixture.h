#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "stator/worker/memory_link.h"
#include "stator/worker/worker_link.h"

namespace stator::worker {

/// For tests: a worker's links without its sockets. A station, and clients in memory, all on one
/// loop; the engines are the test's.
class LinksFixture : public testing::Test {
  protected:
    void SetUp() override { loop.start(); }
    void TearDown() override {
        for (auto& link : links) {
            on_loop([&] {
                if (!link->seen().lost) link->cut();
            });
        }
        stop_engine();
        if (station) {
            EXPECT_EQ(station->open.count(), 0U);
            EXPECT_EQ(station->arriving.count(0), 0U);
        }
        loop.stop();
        links.clear();
        station.reset();
    }
    /// Of a test whose engine must have stopped before its requests are counted.
    virtual void stop_engine() {}

    /// One rank of the model "m" that has loaded, or still loads where `engine` is null.
    static WorkerState state_of(engine::Engine* engine) {
        WorkerState state;
        state.info.name = "w";
        state.info.incarnation = protocol::Incarnation(1);
        state.info.roles = {protocol::Role::kAggregated};
        state.info.ranks.push_back({});
        state.info.card.name = "m";
        state.info.card.tokenizer.sha256 = std::string(64, 'a');
        if (engine) state.engines = {engine};
        return state;
    }
    void make_station(WorkerState state) {
        station = std::make_shared<Station>(Clock::real(), std::chrono::hours(1), registry,
                                            std::make_shared<runtime::CpuPool>(1, 16, "fetch"),
                                            std::move(state));
        station->events = EventOutlet::open({}, station->metrics).value();
    }
    std::shared_ptr<MemoryLink> connect(requests::ClientLinkOptions options = {}) {
        options.name = "frontend";
        auto link = std::make_shared<MemoryLink>(
            loop, std::move(options), [this](std::shared_ptr<requests::ServerLink> server) {
                return WorkerLink::make(station, std::move(server));
            });
        on_loop([&] { link->start(); });
        links.push_back(link);
        return link;
    }
    void on_loop(const std::function<void()>& f) {
        std::promise<void> done;
        loop.post([&] {
            f();
            done.set_value();
        });
        done.get_future().wait();
    }
    requests::StreamId open(MemoryLink& link,
                            const std::shared_ptr<const protocol::GenerateRequest>& request,
                            std::uint32_t rank = 0) {
        requests::StreamId id;
        on_loop([&] {
            auto opened = link.client().open(request, rank, ++booking, Clock::real().now());
            ASSERT_TRUE(opened) << opened.error().message;
            id = *opened;
            link.pump();
        });
        return id;
    }
    bool wait_nothing_open() {
        return station->open.wait_empty(
            Deadline::after(Clock::real().now(), std::chrono::seconds(10)), Clock::real());
    }

    metrics::Registry registry;
    runtime::Loop loop{"test"};
    std::shared_ptr<Station> station;
    std::vector<std::shared_ptr<MemoryLink>> links;
    std::uint64_t booking = 0;
};

}  // namespace stator::worker
