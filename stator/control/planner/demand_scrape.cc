#include "stator/control/planner/demand_scrape.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "stator/base/log.h"
#include "stator/net/http_client.h"

namespace stator::control {
namespace {

using protocol::DemandTotals;
using protocol::DurationTotals;

constexpr std::size_t kMaxModels = 1024;
constexpr std::size_t kMaxBounds = 128;
constexpr std::size_t kMaxTextBytes = 16 * 1024 * 1024;
constexpr std::chrono::milliseconds kTimeout{1'000};

/// Adds to a total.
struct Number {
    std::string_view name;
    std::uint64_t DemandTotals::* to;
    std::string_view only = {};  ///< must be among the labels, as text
};
using Offered = std::uint64_t DemandTotals::*;
constexpr Offered kOffered = &DemandTotals::offered;
constexpr Offered kPrompt = &DemandTotals::prompt_tokens;
constexpr Offered kStarted = &DemandTotals::started_prompt_tokens;
constexpr Offered kCached = &DemandTotals::cached_tokens;
constexpr Offered kFinished = &DemandTotals::finished;
constexpr Offered kOutput = &DemandTotals::output_tokens;

constexpr std::array kNumbers{
    Number{"stator_sequences_offered_total", kOffered},
    Number{"stator_sequences_refused_total", &DemandTotals::refused},
    Number{"stator_offered_prompt_tokens_total", kPrompt},
    Number{"stator_offered_media_items_total", &DemandTotals::media_items},
    Number{"stator_prompt_tokens_total", kStarted},
    Number{"stator_cached_prompt_tokens_total", kCached},
    Number{"stator_output_tokens_total", kOutput},
    Number{"stator_sequences_ended_total", kFinished, "finish=\"stop\""},
    Number{"stator_sequences_ended_total", kFinished, "finish=\"length\""},
    // vLLM
    Number{"vllm:request_success_total", kFinished},
    Number{"vllm:request_success_total", kOffered},
    Number{"vllm:num_requests_running", kOffered},
    Number{"vllm:num_requests_waiting", kOffered},
    Number{"vllm:prompt_tokens_total", kPrompt},
    Number{"vllm:prompt_tokens_total", kStarted},
    Number{"vllm:prefix_cache_hits_total", kCached},
    Number{"vllm:generation_tokens_total", kOutput},
    // SGLang, in both of its spellings
    Number{"sglang:num_requests_total", kOffered},
    Number{"sglang:num_requests_total", kFinished},
    Number{"sglang:prompt_tokens_total", kPrompt},
    Number{"sglang:prompt_tokens_total", kStarted},
    Number{"sglang:cached_tokens_total", kCached},
    Number{"sglang:generation_tokens_total", kOutput},
    // Dynamo's frontend
    Number{"dynamo_frontend_requests_total", kOffered},
    Number{"dynamo_frontend_requests_total", kFinished, "status=\"success\""},
    Number{"dynamo_frontend_input_sequence_tokens_sum", kPrompt},
    Number{"dynamo_frontend_input_sequence_tokens_sum", kStarted},
    Number{"dynamo_frontend_cached_tokens_sum", kCached},
    Number{"dynamo_frontend_output_sequence_tokens_sum", kOutput},
};

struct Duration {
    std::string_view name;  ///< without "_bucket" or "_sum"
    DurationTotals DemandTotals::* to;
};
constexpr std::array kDurations{
    Duration{"stator_time_to_first_token_seconds", &DemandTotals::ttft},
    Duration{"stator_time_per_output_token_seconds", &DemandTotals::itl},
    Duration{"vllm:time_to_first_token_seconds", &DemandTotals::ttft},
    Duration{"vllm:inter_token_latency_seconds", &DemandTotals::itl},
    Duration{"vllm:time_per_output_token_seconds", &DemandTotals::itl},
    Duration{"sglang:time_to_first_token_seconds", &DemandTotals::ttft},
    Duration{"sglang:inter_token_latency_seconds", &DemandTotals::itl},
    Duration{"dynamo_frontend_time_to_first_token_seconds", &DemandTotals::ttft},
    Duration{"dynamo_frontend_inter_token_latency_seconds", &DemandTotals::itl},
};

std::string_view label(std::string_view labels, std::string_view name) {
    std::size_t at = 0;
    while ((at = labels.find(name, at)) != std::string_view::npos) {
        const bool begins = at == 0 || labels[at - 1] == ',' || labels[at - 1] == ' ';
        const std::string_view rest = labels.substr(at + name.size());
        if (begins && rest.starts_with("=\"")) return rest.substr(2, rest.find('"', 2) - 2);
        at += name.size();
    }
    return {};
}

std::optional<double> number(std::string_view text) {
    while (text.starts_with(' ')) text.remove_prefix(1);
    if (text.starts_with('+')) text.remove_prefix(1);
    double v = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (ec != std::errc() || end == text.data() || std::isnan(v) || v < 0) return {};
    return v;
}

std::uint64_t whole(double v) {
    constexpr double kMost = 9e18;
    return static_cast<std::uint64_t>(std::min(std::round(v), kMost));
}

/// A histogram as it is read: observations up to each bound, perhaps of several series.
struct Buckets {
    std::map<double, std::uint64_t> up_to;
    double sum_s = 0;
};

struct Model {
    DemandTotals totals;
    std::map<const Duration*, Buckets> durations;
};

class Reader {
  public:
    void line(std::string_view text) {
        if (text.empty() || text.front() == '#') return;
        const std::size_t end = text.find_first_of("{ ");
        if (end == std::string_view::npos) return;
        std::string name(text.substr(0, end));
        if (name.starts_with("sglang_")) name[6] = ':';
        std::string_view labels;
        std::string_view value = text.substr(end);
        if (text[end] == '{') {
            const std::size_t close = text.rfind('}');
            if (close == std::string_view::npos || close < end) return;
            labels = text.substr(end + 1, close - end - 1);
            value = text.substr(close + 1);
        }
        const auto v = number(value);
        if (!v || std::isinf(*v)) return;
        for (const Number& n : kNumbers) {
            if (n.name != name) continue;
            if (!n.only.empty() && labels.find(n.only) == std::string_view::npos) continue;
            if (Model* model = of(labels)) model->totals.*n.to += whole(*v);
        }
        for (const Duration& d : kDurations) {
            if (!name.starts_with(d.name)) continue;
            const std::string_view rest = std::string_view(name).substr(d.name.size());
            if (rest == "_sum") {
                if (Model* model = of(labels)) model->durations[&d].sum_s += *v;
            } else if (rest == "_bucket") {
                bucket(d, labels, *v);
            }
        }
    }

    std::vector<DemandTotals> take() {
        std::vector<DemandTotals> out;
        for (auto& [name, model] : models_) {
            model.totals.model = name;
            for (const auto& [duration, buckets] : model.durations) {
                DurationTotals& to = model.totals.*duration->to;
                // Of two names for one thing the newer one counts.
                if (to.counts.empty()) to = totals_of(buckets);
            }
            out.push_back(std::move(model.totals));
        }
        return out;
    }

  private:
    void bucket(const Duration& d, std::string_view labels, double v) {
        const std::string_view le = label(labels, "le");
        const auto bound =
            le == "+Inf" ? std::optional(std::numeric_limits<double>::infinity()) : number(le);
        Model* model = bound ? of(labels) : nullptr;
        if (model == nullptr) return;
        auto& up_to = model->durations[&d].up_to;
        if (up_to.size() <= kMaxBounds || up_to.contains(*bound)) up_to[*bound] += whole(v);
    }

    static DurationTotals totals_of(const Buckets& buckets) {
        DurationTotals out;
        std::uint64_t below = 0;
        for (const auto& [bound, count] : buckets.up_to) {
            if (!std::isinf(bound)) out.bounds.push_back(bound);
            out.counts.push_back(count - std::min(count, below));
            below = std::max(below, count);
        }
        if (out.counts.size() == out.bounds.size()) out.counts.push_back(0);
        out.sum_s = buckets.sum_s;
        return out;
    }

    Model* of(std::string_view labels) {
        std::string_view name = label(labels, "model_name");
        if (name.empty()) name = label(labels, "model");
        const auto at = models_.find(std::string(name));
        if (at != models_.end()) return &at->second;
        if (models_.size() >= kMaxModels) return nullptr;
        return &models_[std::string(name)];
    }

    std::map<std::string, Model> models_;
};

}  // namespace

std::vector<DemandTotals> read_demand_metrics(std::string_view text) {
    Reader reader;
    while (!text.empty()) {
        const auto end = text.find('\n');
        reader.line(text.substr(0, end));
        if (end == std::string_view::npos) break;
        text.remove_prefix(end + 1);
    }
    return reader.take();
}

void DemandScrape::ask(DemandFeed& feed, TimePoint now) {
    for (std::size_t i = 0; i < targets_.size(); ++i) {
        net::HttpClientRequest request;
        request.url = targets_[i].url;
        if (!targets_[i].key.empty()) {
            request.headers = {{"Authorization", "Bearer " + targets_[i].key}};
        }
        request.connect_timeout = request.read_timeout = kTimeout;
        request.max_response_bytes = kMaxTextBytes;
        const auto answer = net::http_request(request);
        if (!answer || answer->status != 200) {
            told(i, answer ? "it answers with status " + std::to_string(answer->status)
                           : answer.error().message);
            continue;
        }
        auto totals = read_demand_metrics(answer->body);
        told(i, totals.empty() ? "its metrics have no figure that is known" : "");
        for (DemandTotals& t : totals) {
            std::uint64_t& most = most_offered_[i][t.model];
            // Far less than before: it has begun anew.
            if (t.offered < most / 2) most = 0;
            most = t.offered = std::max(t.offered, most);
        }
        // Numbers of our own, away from incarnations, which are random.
        feed.tell(i + 1, std::move(totals), now);
    }
}

void DemandScrape::told(std::size_t target, const std::string& problem) {
    bool& failing = failing_[target];
    if (problem.empty()) {
        if (std::exchange(failing, false)) {
            log_info("Metrics can be read again.", {{"url", targets_[target].url}});
        }
        return;
    }
    if (std::exchange(failing, true)) return;
    log_warn("Metrics that tell of the demand can't be read.",
             {{"url", targets_[target].url}, {"reason", problem}});
}

}  // namespace stator::control
