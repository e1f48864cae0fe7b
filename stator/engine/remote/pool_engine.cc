#include "stator/engine/remote/pool_engine.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "stator/engine/remote/pool_calls.h"

namespace stator::engine {
namespace {

class RanksOfPool final : public PoolEngine {
  public:
    RanksOfPool(PoolEngineOptions options, fleet::Fleet& fleet, runtime::LoopPool& loops,
                metrics::Registry& registry, const Clock& clock)
        : calls_(std::make_shared<PoolCalls>(std::move(options), loops, registry, clock)) {
        const protocol::ModelCard& card = calls_->options.card;
        info_.kind = "pool";
        info_.device = "remote";
        info_.context_tokens = card.context_tokens;
        info_.block_tokens = card.block_tokens;
        info_.max_top_logprobs = card.max_top_logprobs;
        info_.structured_output = card.structured_output;
        calls_->router().observe_queue(
            [weak = std::weak_ptr(calls_)]() -> std::optional<routing::PoolRouter::QueueState> {
                const auto calls = weak.lock();
                return calls ? calls->queue().state() : std::nullopt;
            });
        const auto view = fleet.view();
        calls_->take_view(*view);
        const auto load = this->load();
        info_.max_running = load.running_limit;
        info_.max_waiting = load.waiting_limit;
        fleet.watch([weak = std::weak_ptr(calls_)](std::shared_ptr<const fleet::FleetView> v) {
            if (const auto calls = weak.lock()) calls->take_view(*v);
        });
    }
    ~RanksOfPool() override { stop(Deadline::at({})); }

    [[nodiscard]] const EngineInfo& info() const override { return info_; }
    [[nodiscard]] Result<void> submit(protocol::GenerateRequest request,
                                      std::shared_ptr<StepSink> sink) override {
        return calls_->submit(std::move(request), std::move(sink));
    }
    void cancel(RequestId id) override { calls_->cancel(id); }
    void release(std::shared_ptr<const protocol::Handoff> handoff) override {
        calls_->release(std::move(handoff));
    }
    [[nodiscard]] protocol::LoadReport load() const override;
    /// The workers publish theirs themselves.
    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override { return {}; }
    [[nodiscard]] bool healthy() const override {
        return !calls_->stopping() && !calls_->ranks()->ready.empty();
    }
    void stop(Deadline deadline) override { calls_->stop(deadline); }
    void set_queue(const PoolQueueOptions& options) override {
        calls_->queue().set_options(options);
    }

  private:
    std::shared_ptr<PoolCalls> calls_;
    EngineInfo info_;
};

bool generates(const protocol::WorkerInfo& worker) {
    return worker.roles.empty() || std::ranges::any_of(worker.roles, [](protocol::Role r) {
               return r == protocol::Role::kAggregated || r == protocol::Role::kDecode;
           });
}

protocol::LoadReport RanksOfPool::load() const {
    protocol::LoadReport sum;
    for (const auto& slot : calls_->ranks()->ready) {
        // Those of a leg alone take no request of their own.
        if (!generates(*slot->worker->info())) continue;
        const auto l = slot->worker->load(slot->rank);
        sum.running += l.running;
        sum.waiting += l.waiting + slot->pending.load(std::memory_order_relaxed);
        sum.running_limit += l.running_limit;
        sum.waiting_limit += l.waiting_limit;
        sum.waiting_tokens += l.waiting_tokens;
        sum.kv_used_tokens += l.kv_used_tokens;
        sum.kv_cached_tokens += l.kv_cached_tokens;
        sum.kv_total_tokens += l.kv_total_tokens;
    }
    return sum;
}

}  // namespace

std::unique_ptr<PoolEngine> make_pool_engine(PoolEngineOptions options, fleet::Fleet& fleet,
                                             runtime::LoopPool& loops, metrics::Registry& registry,
                                             const Clock& clock) {
    return std::make_unique<RanksOfPool>(std::move(options), fleet, loops, registry, clock);
}

}  // namespace stator::engine
