#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/frontend/frontend.h"
#include "stator/frontend/router.h"
#include "stator/metrics/registry.h"
#include "stator/protocol/demand.h"

namespace stator::frontend {

/// The counters of one model. Updates are atomics.
struct ModelMetrics {
    metrics::Counter* offered = nullptr;
    metrics::Counter* offered_prompt_tokens = nullptr;
    metrics::Counter* offered_media = nullptr;
    metrics::Counter* refused = nullptr;
    metrics::Counter* prompt_tokens = nullptr;
    metrics::Counter* cached_tokens = nullptr;
    metrics::Counter* output_tokens = nullptr;
    metrics::Counter* reasoning_tokens = nullptr;
    metrics::Counter* tool_calls = nullptr;
    metrics::Counter* tool_call_faults = nullptr;
    metrics::Histogram* ttft_seconds = nullptr;
    metrics::Histogram* token_seconds = nullptr;
    std::array<metrics::Counter*, 4> ended{};  ///< sequences, by protocol::FinishReason

    void ended_by(protocol::FinishReason reason) const {
        ended[static_cast<std::size_t>(reason) - 1]->add();
    }
    /// A request that could be understood: it will be started or refused.
    void offer(std::uint64_t sequences, std::uint64_t tokens, std::uint64_t media_items) const {
        offered->add(sequences);
        offered_prompt_tokens->add(tokens);
        offered_media->add(media_items);
    }

    /// With a request's first token: `waited` is from the request's first byte.
    void first_token(std::chrono::nanoseconds waited) const;
    /// When a sequence ended: mean time between its tokens.
    void sequence_ended(std::chrono::nanoseconds from_first_to_last, std::uint32_t tokens) const;
};

/// All metrics of the room. Registered names stay for the registry's life; engines are asked as
/// long as they live.
class FrontendMetrics {
  public:
    explicit FrontendMetrics(metrics::Registry& registry);

    /// The counters of the model's id, registered when it is first seen, and its engine's load
    /// beside that of other engines of the id. Ids come from other processes: after kMaxModels of
    /// them the rest share the label "other". Thread-safe; the pointer is good as long as this is.
    const ModelMetrics* model(const ServedModel& model);
    /// Of every model that was ever asked for. Thread-safe.
    [[nodiscard]] std::vector<protocol::DemandTotals> demand();
    void add_http_server(std::function<net::HttpServerStats()> stats);

    void request_ended(Route route, int status, std::chrono::nanoseconds took);
    metrics::Gauge& inflight() { return *inflight_; }
    metrics::Counter& refused_busy() { return *refused_busy_; }

  private:
    static constexpr std::size_t kMaxModels = 256;
    /// The engines that serve an id; those that are gone are passed over.
    struct Engines {
        std::mutex mutex;
        std::vector<std::weak_ptr<engine::Engine>> all;
    };
    struct Model {
        ModelMetrics counters;
        std::shared_ptr<Engines> engines = std::make_shared<Engines>();
    };
    void add_model(const std::string& label, Model& model);
    template <typename F>
    void add_sum(const std::shared_ptr<Engines>& engines, const std::string& label,
                 const char* name, const char* help, bool is_counter, F read);
    void add_engines(const std::shared_ptr<Engines>& engines, const std::string& label);

    static constexpr std::size_t kClasses = 6;  ///< status / 100
    metrics::Registry& registry_;
    std::array<std::array<metrics::Counter*, kClasses>, kRouteCount> requests_{};
    std::array<metrics::Histogram*, kRouteCount> seconds_{};
    metrics::Gauge* inflight_ = nullptr;
    metrics::Counter* refused_busy_ = nullptr;
    std::mutex models_mutex_;
    std::map<std::string, Model> models_;  ///< stable addresses
};

/// process_* metrics by their standard names: resident memory, CPU seconds, open descriptors.
void add_process_metrics(metrics::Registry& registry);

}  // namespace stator::frontend
