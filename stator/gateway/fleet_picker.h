#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/fleet/fleet.h"
#include "stator/frontend/model_directory.h"
#include "stator/frontend/prepared_request.h"
#include "stator/gateway/endpoints.h"
#include "stator/gateway/picker.h"
#include "stator/metrics/registry.h"
#include "stator/routing/pool_router.h"

namespace stator::gateway {

struct FleetPickerOptions {
    /// Further endpoints after the first. Proxies that take exactly one need 0.
    std::uint32_t fallbacks = 2;
    /// Priorities by the name of an objective (x-llm-d-inference-objective). Requests below 0 are
    /// dropped where they would have to wait.
    std::map<std::string, std::int32_t, std::less<>> objectives;
    /// Tell a Stator frontend, or one of NVIDIA Dynamo's, in the pod who was chosen.
    bool stator_hints = false;
    bool dynamo_hints = false;
    bool trust_hints = false;  ///< clients' own hints count (route_hints.h)
    routing::Hold sheddable;   ///< what a rank may have before it, for requests below priority 0
};

/// Picks the pods of a fleet's workers, by the routers of the fleet's pools: the prompt is made
/// into tokens as a frontend would, and goes where its prefix is. What can't be read goes by load
/// alone, and its pod says what is wrong with it. Any thread.
class FleetPicker final : public Picker {
  public:
    struct Sources {
        std::function<std::shared_ptr<const frontend::ModelDirectory>()> models;
        /// Of a pool's id; null: there is none.
        std::function<std::shared_ptr<routing::PoolRouter>(std::string_view pool)> router;
    };

    FleetPicker(FleetPickerOptions options, Sources sources, metrics::Registry& registry,
                const Clock& clock = Clock::real());

    /// The fleet has changed.
    void set_endpoints(std::shared_ptr<const Endpoints> endpoints);

    [[nodiscard]] Result<Pick> pick(const PickRequest& request) override;
    [[nodiscard]] bool ready() const override;

  private:
    using Subset = const std::vector<std::string>*;
    [[nodiscard]] std::shared_ptr<const Endpoints> endpoints() const;
    [[nodiscard]] Result<Pick> pick_for(const PickRequest& request, std::string_view body,
                                        frontend::PreparedRequest prepared);
    [[nodiscard]] Result<Pick> pick_by_load(std::string_view pool, Subset subset);
    [[nodiscard]] static std::vector<router::RankIndex> excluded(const routing::PoolRouter& router,
                                                                 const Endpoints& endpoints,
                                                                 Subset subset);
    [[nodiscard]] Result<protocol::GenerateRequest> route_request(
        const PickRequest& request, frontend::PreparedRequest& prepared) const;
    void add_hints(const routing::PoolRouter& router, const routing::Route& route,
                   Pick& pick) const;

    const FleetPickerOptions options_;
    const Sources sources_;
    const Clock& clock_;
    metrics::Histogram& pick_seconds_;
    metrics::Counter& by_prompt_;
    metrics::Counter& by_load_;
    metrics::Counter& refused_;
    std::atomic<std::uint64_t> turn_{0};

    mutable std::mutex mutex_;
    std::shared_ptr<const Endpoints> endpoints_ = std::make_shared<Endpoints>();
};

}  // namespace stator::gateway
