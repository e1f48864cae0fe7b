#include "stator/frontend/frontend_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "stator/base/check.h"
#include "stator/base/version.h"

namespace stator::frontend {
namespace {

using metrics::Labels;

/// 1 ms to 131 s.
std::vector<double> latency_bounds() { return metrics::exponential_bounds(0.001, 2.0, 18); }
/// 0.1 ms to 3.3 s.
std::vector<double> token_bounds() { return metrics::exponential_bounds(0.0001, 2.0, 16); }

protocol::DurationTotals totals_of(const metrics::Histogram& histogram) {
    protocol::DurationTotals t;
    t.bounds.assign(histogram.bounds().begin(), histogram.bounds().end());
    for (std::size_t i = 0; i <= t.bounds.size(); ++i) t.counts.push_back(histogram.in_bucket(i));
    t.sum_s = histogram.sum();
    return t;
}

}  // namespace

void ModelMetrics::first_token(std::chrono::nanoseconds waited) const {
    ttft_seconds->observe(to_seconds(waited));
}

void ModelMetrics::sequence_ended(std::chrono::nanoseconds from_first_to_last,
                                  std::uint32_t tokens) const {
    if (tokens > 1) token_seconds->observe(to_seconds(from_first_to_last) / (tokens - 1));
}

FrontendMetrics::FrontendMetrics(metrics::Registry& registry) : registry_(registry) {
    for (std::size_t i = 0; i < kRouteCount; ++i) {
        const std::string route(label(static_cast<Route>(i)));
        for (std::size_t c = 2; c < kClasses; ++c) {
            requests_[i][c] = &registry.counter(
                "stator_http_requests_total", "Requests answered, by route and status class.",
                {{"route", route}, {"status", fmt::format("{}xx", c)}});
        }
        requests_[i][0] = requests_[i][1] = requests_[i][5];
        seconds_[i] = &registry.histogram("stator_http_request_duration_seconds",
                                          "From a request's first byte to its answer's last.",
                                          latency_bounds(), {{"route", route}});
    }
    inflight_ = &registry.gauge("stator_http_inflight_requests", "Generations in work.");
    refused_busy_ =
        &registry.counter("stator_http_refused_busy_total",
                          "Requests refused because a bound of this server was reached.");
    registry.callback("stator_bugs_total", "Internal inconsistencies survived.", true,
                      [] { return static_cast<double>(bugs_total()); });
    registry
        .gauge("stator_build_info", "1, with version and commit as labels.",
               {{"version", version()}, {"commit", commit()}})
        .set(1);
}

template <typename F>
void FrontendMetrics::add_sum(const std::shared_ptr<Engines>& engines, const std::string& label,
                              const char* name, const char* help, bool is_counter, F read) {
    registry_.callback(name, help, is_counter,
                       [engines, read] {
                           const std::scoped_lock lock(engines->mutex);
                           double sum = 0.0;
                           for (const auto& weak : engines->all) {
                               if (const auto e = weak.lock()) sum += static_cast<double>(read(*e));
                           }
                           return sum;
                       },
                       {{"model", label}});
}

void FrontendMetrics::add_engines(const std::shared_ptr<Engines>& engines,
                                  const std::string& label) {
    using Load = protocol::LoadReport;
    using Pass = protocol::ForwardPassMetrics;
    const auto load = [&](const char* name, const char* help, auto read) {
        add_sum(engines, label, name, help, false,
                [read](const engine::Engine& e) { return read(e.load()); });
    };
    const auto pass = [&](const char* name, const char* help, auto read) {
        add_sum(engines, label, name, help, true,
                [read](const engine::Engine& e) { return read(e.forward_pass_metrics()); });
    };
    load("stator_engine_running", "Sequences in prefill or decode.",
         [](const Load& l) { return l.running; });
    load("stator_engine_waiting", "Sequences accepted and not yet started.",
         [](const Load& l) { return l.waiting; });
    load("stator_engine_waiting_tokens", "Prompt tokens of the waiting sequences.",
         [](const Load& l) { return l.waiting_tokens; });
    load("stator_engine_kv_used_tokens", "KV cells that running sequences need.",
         [](const Load& l) { return l.kv_used_tokens; });
    load("stator_engine_kv_cached_tokens", "KV cells kept only for reuse.",
         [](const Load& l) { return l.kv_cached_tokens; });
    load("stator_engine_kv_total_tokens", "KV cells there are.",
         [](const Load& l) { return l.kv_total_tokens; });
    pass("stator_engine_steps_total", "Forward passes.", [](const Pass& p) { return p.steps; });
    pass("stator_engine_prefill_tokens_total", "Prompt tokens computed.",
         [](const Pass& p) { return p.prefill_tokens; });
    pass("stator_engine_decode_tokens_total", "Tokens generated.",
         [](const Pass& p) { return p.decode_tokens; });
    pass("stator_engine_cached_tokens_total", "Prompt tokens taken from the prefix cache.",
         [](const Pass& p) { return p.cached_tokens; });
    pass("stator_engine_preemptions_total", "Sequences thrown back into the queue.",
         [](const Pass& p) { return p.preemptions; });
    pass("stator_engine_model_seconds_total", "Wall time inside the model.",
         [](const Pass& p) { return p.model_seconds; });
    pass("stator_engine_model_cpu_seconds_total",
         "CPU time of the engine's thread inside the model.",
         [](const Pass& p) { return p.model_cpu_seconds; });
    pass("stator_engine_own_cpu_seconds_total",
         "CPU time of the engine's thread outside the model.",
         [](const Pass& p) { return p.engine_cpu_seconds; });
    pass("stator_engine_guided_tokens_total", "Tokens generated under a constraint.",
         [](const Pass& p) { return p.guided_tokens; });
    pass("stator_engine_guide_seconds_total", "Time to work out which tokens those might be.",
         [](const Pass& p) { return p.guide_seconds; });
    add_sum(engines, label, "stator_engine_healthy", "Engines that can serve.", false,
            [](const engine::Engine& e) { return e.healthy() ? 1 : 0; });
}

void FrontendMetrics::add_model(const std::string& label, Model& model) {
    const Labels labels = {{"model", label}};
    ModelMetrics& m = model.counters;
    m.offered = &registry_.counter(
        "stator_sequences_offered_total",
        "Sequences asked for, refused ones included, what clients send again after a refusal not.",
        labels);
    m.offered_prompt_tokens =
        &registry_.counter("stator_offered_prompt_tokens_total", "Prompt tokens of these.", labels);
    m.offered_media = &registry_.counter("stator_offered_media_items_total",
                                         "Images and videos of these.", labels);
    m.refused = &registry_.counter("stator_sequences_refused_total",
                                   "Those of them that were answered with 429 or 503.", labels);
    m.prompt_tokens = &registry_.counter("stator_prompt_tokens_total",
                                         "Prompt tokens of started requests.", labels);
    m.cached_tokens = &registry_.counter("stator_cached_prompt_tokens_total",
                                         "Prompt tokens that the prefix cache had.", labels);
    m.output_tokens =
        &registry_.counter("stator_output_tokens_total", "Tokens generated for clients.", labels);
    m.reasoning_tokens = &registry_.counter(
        "stator_reasoning_tokens_total", "Those of them that were the model's thinking.", labels);
    m.tool_calls = &registry_.counter("stator_tool_calls_total",
                                      "Calls of tools found in what models wrote.", labels);
    m.tool_call_faults = &registry_.counter(
        "stator_tool_call_faults_total",
        "Those of them whose arguments are no JSON object, or were cut off.", labels);
    m.ttft_seconds = &registry_.histogram("stator_time_to_first_token_seconds",
                                          "From a request's first byte to its first token.",
                                          latency_bounds(), labels);
    m.token_seconds =
        &registry_.histogram("stator_time_per_output_token_seconds",
                             "Mean time between the tokens of a sequence.", token_bounds(), labels);
    using protocol::FinishReason;
    for (const auto reason : {FinishReason::kStop, FinishReason::kLength, FinishReason::kCancelled,
                              FinishReason::kError}) {
        m.ended[static_cast<std::size_t>(reason) - 1] = &registry_.counter(
            "stator_sequences_ended_total", "Sequences that ended, by how.",
            {{"model", label}, {"finish", std::string(protocol::to_string(reason))}});
    }
    add_engines(model.engines, label);
}

const ModelMetrics* FrontendMetrics::model(const ServedModel& model) {
    const std::scoped_lock lock(models_mutex_);
    const bool full = models_.size() >= kMaxModels && !models_.contains(model.id);
    const std::string label = full ? "other" : model.id;
    const auto [at, fresh] = models_.try_emplace(label);
    if (fresh) add_model(label, at->second);
    {
        const std::scoped_lock engines_lock(at->second.engines->mutex);
        auto& all = at->second.engines->all;
        std::erase_if(all, [](const auto& weak) { return weak.expired(); });
        const bool known =
            std::ranges::any_of(all, [&](const auto& weak) { return weak.lock() == model.engine; });
        if (!known) all.push_back(model.engine);
    }
    return &at->second.counters;
}

std::vector<protocol::DemandTotals> FrontendMetrics::demand() {
    const std::scoped_lock lock(models_mutex_);
    std::vector<protocol::DemandTotals> out;
    if (const std::uint64_t unread = refused_busy_->value(); unread > 0) {
        protocol::DemandTotals& t = out.emplace_back();
        t.offered = t.refused = unread;
    }
    for (const auto& [label, model] : models_) {
        const ModelMetrics& m = model.counters;
        if (m.offered->value() == 0) continue;
        protocol::DemandTotals& t = out.emplace_back();
        t.model = label;
        t.offered = m.offered->value();
        t.refused = m.refused->value();
        t.prompt_tokens = m.offered_prompt_tokens->value();
        t.media_items = m.offered_media->value();
        t.started_prompt_tokens = m.prompt_tokens->value();
        t.cached_tokens = m.cached_tokens->value();
        for (const auto reason : {protocol::FinishReason::kStop, protocol::FinishReason::kLength}) {
            t.finished += m.ended[static_cast<std::size_t>(reason) - 1]->value();
        }
        t.output_tokens = m.output_tokens->value();
        t.ttft = totals_of(*m.ttft_seconds);
        t.itl = totals_of(*m.token_seconds);
    }
    return out;
}

void FrontendMetrics::add_http_server(std::function<net::HttpServerStats()> stats) {
    using Stats = net::HttpServerStats;
    const auto add = [&](const char* name, const char* help, bool is_counter,
                         std::uint64_t Stats::* field) {
        registry_.callback(name, help, is_counter,
                           [stats, field] { return static_cast<double>(stats().*field); });
    };
    add("stator_http_connections_accepted_total", "Connections accepted.", true,
        &Stats::connections_accepted);
    add("stator_http_connections_open", "Connections open.", false, &Stats::connections_open);
    add("stator_http_connections_refused_total", "Connections refused at the bound.", true,
        &Stats::connections_refused);
    add("stator_http_protocol_errors_total", "Requests that were not HTTP or over a limit.", true,
        &Stats::protocol_errors);
    add("stator_http_timeouts_total", "Connections ended because the client was too slow.", true,
        &Stats::timeouts);
    add("stator_http_sends_total", "send() calls.", true, &Stats::sends);
    add("stator_http_sent_bytes_total", "Bytes sent.", true, &Stats::bytes_sent);
}

void FrontendMetrics::request_ended(Route route, int status, std::chrono::nanoseconds took) {
    const auto r = static_cast<std::size_t>(route);
    const auto c = static_cast<std::size_t>(std::clamp(status / 100, 2, 5));
    requests_[r][c]->add();
    seconds_[r]->observe(to_seconds(took));
}

}  // namespace stator::frontend
