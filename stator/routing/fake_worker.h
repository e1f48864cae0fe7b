#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stator/fleet/fleet.h"
#include "stator/runtime/loop.h"

// For the tests of this room.
namespace stator::routing {

inline constexpr std::uint32_t kBlock = 16;

inline protocol::ModelCard card() {
    protocol::ModelCard c;
    c.name = "tiny";
    c.context_tokens = 100'000;
    c.block_tokens = kBlock;
    return c;
}

/// Says what it is told to say; nothing can be opened.
class FakeWorker final : public fleet::Worker {
  public:
    FakeWorker(std::string name, runtime::Loop& loop,
               std::map<std::string, std::string> labels = {},
               std::vector<protocol::Role> roles = {protocol::Role::kAggregated},
               std::vector<std::string> transfer_methods = {}, std::string media_digest = {})
        : loop_(loop) {
        protocol::WorkerInfo info;
        info.name = std::move(name);
        info.roles = std::move(roles);
        info.card = card();
        info.card.media_digest = std::move(media_digest);
        info.transfer_methods = std::move(transfer_methods);
        info.ranks = {{0, 8, 8, 100'000}};
        info.labels = std::move(labels);
        info_ = std::make_shared<protocol::WorkerInfo>(std::move(info));
        load_.running_limit = 8;
        load_.waiting_limit = 8;
        load_.kv_total_tokens = 100'000;
    }
    [[nodiscard]] std::uint64_t id() const override { return 1; }
    [[nodiscard]] runtime::Loop& loop() const override { return loop_; }
    [[nodiscard]] std::shared_ptr<const protocol::WorkerInfo> info() const override {
        return info_;
    }
    [[nodiscard]] fleet::MemberState state() const override { return fleet::MemberState::kReady; }
    [[nodiscard]] protocol::LoadReport load(std::uint32_t) const override { return load_; }
    [[nodiscard]] Result<requests::StreamId> open(std::shared_ptr<const protocol::GenerateRequest>,
                                                  std::uint32_t, fleet::StreamEvents&,
                                                  std::uint64_t) override {
        return error(ErrorCode::kUnavailable, "nothing is here");
    }
    void cancel(requests::StreamId) override {}
    void fetch(const requests::Fetch&, std::function<void(Result<std::string>)> done) override {
        done(error(ErrorCode::kUnavailable, "nothing is here"));
    }
    void set_adapters(std::vector<std::string> adapters) {
        auto info = std::make_shared<protocol::WorkerInfo>(*info_);
        info->card.adapters = std::move(adapters);
        info_ = std::move(info);
    }
    void set_load(std::uint32_t running, std::uint32_t waiting) {
        load_.running = running;
        load_.waiting = waiting;
    }

  private:
    runtime::Loop& loop_;
    std::shared_ptr<const protocol::WorkerInfo> info_;
    protocol::LoadReport load_;
};

}  // namespace stator::routing
