#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "stator/base/clock.h"
#include "stator/frontend/frontend.h"
#include "stator/frontend/router.h"
#include "stator/metrics/registry.h"

namespace stator::frontend {

/// The counters of one model. Updates are atomics.
struct ModelMetrics {
    metrics::Counter* prompt_tokens = nullptr;
    metrics::Counter* cached_tokens = nullptr;
    metrics::Counter* output_tokens = nullptr;
    metrics::Histogram* ttft_seconds = nullptr;
    metrics::Histogram* token_seconds = nullptr;
    std::array<metrics::Counter*, 4> ended{};  ///< sequences, by protocol::FinishReason

    void ended_by(protocol::FinishReason reason) const {
        ended[static_cast<std::size_t>(reason) - 1]->add();
    }

    /// With a request's first token: `waited` is from the request's first byte.
    void first_token(std::chrono::nanoseconds waited) const;
    /// When a sequence ended: mean time between its tokens.
    void sequence_ended(std::chrono::nanoseconds from_first_to_last, std::uint32_t tokens) const;
};

/// All metrics of the room. Registered names stay for the registry's life; engines must outlive its
/// last rendering.
class FrontendMetrics {
  public:
    explicit FrontendMetrics(metrics::Registry& registry);

    /// Registers the model's counters and its engine's load, and returns the counters.
    ModelMetrics add_model(const ServedModel& model);
    void add_http_server(std::function<net::HttpServerStats()> stats);

    void request_ended(Route route, int status, std::chrono::nanoseconds took);
    metrics::Gauge& inflight() { return *inflight_; }
    metrics::Counter& refused_busy() { return *refused_busy_; }

  private:
    static constexpr std::size_t kClasses = 6;  ///< status / 100
    metrics::Registry& registry_;
    std::array<std::array<metrics::Counter*, kClasses>, kRouteCount> requests_{};
    std::array<metrics::Histogram*, kRouteCount> seconds_{};
    metrics::Gauge* inflight_ = nullptr;
    metrics::Counter* refused_busy_ = nullptr;
};

/// process_* metrics by their standard names: resident memory, CPU seconds, open descriptors.
void add_process_metrics(metrics::Registry& registry);

}  // namespace stator::frontend
