#include "stator/engine/dialects/engine_metrics.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

namespace stator::engine {
namespace {

enum class Metric : std::uint8_t {
    kRunning,
    kWaiting,
    kKvUsage,
    kConfig,
    kPrefixQueries,
    kPrefixHits,
    kPromptTokens,
    kGenerated,
    kPreemptions,
    kKvTokens,
};

struct Name {
    std::string_view text;
    Metric metric;
};

// Behind the prefix.
constexpr std::array kVllm{
    Name{"num_requests_running", Metric::kRunning},
    Name{"num_requests_waiting", Metric::kWaiting},
    Name{"kv_cache_usage_perc", Metric::kKvUsage},
    Name{"gpu_cache_usage_perc", Metric::kKvUsage},
    Name{"cache_config_info", Metric::kConfig},
    Name{"prefix_cache_queries_total", Metric::kPrefixQueries},
    Name{"prefix_cache_hits_total", Metric::kPrefixHits},
    Name{"prompt_tokens_total", Metric::kPromptTokens},
    Name{"generation_tokens_total", Metric::kGenerated},
    Name{"num_preemptions_total", Metric::kPreemptions},
};
constexpr std::array kSglang{
    Name{"num_running_reqs", Metric::kRunning},
    Name{"num_queue_reqs", Metric::kWaiting},
    Name{"token_usage", Metric::kKvUsage},
    Name{"max_total_num_tokens", Metric::kKvTokens},
    Name{"prompt_tokens_total", Metric::kPromptTokens},
    Name{"cached_tokens_total", Metric::kPrefixHits},
    Name{"generation_tokens_total", Metric::kGenerated},
};
constexpr std::array kTrtllm{
    Name{"num_requests_running", Metric::kRunning},
    Name{"num_requests_waiting", Metric::kWaiting},
    Name{"kv_cache_utilization", Metric::kKvUsage},
};

/// `labels` without its braces. Empty: it is not there. Values with escapes are not looked for.
std::string_view label(std::string_view labels, std::string_view name) {
    std::size_t at = 0;
    while ((at = labels.find(name, at)) != std::string_view::npos) {
        const bool begins = at == 0 || labels[at - 1] == ',' || labels[at - 1] == ' ';
        const std::string_view rest = labels.substr(at + name.size());
        if (begins && rest.starts_with("=\"")) {
            return rest.substr(2, rest.find('"', 2) - 2);
        }
        at += name.size();
    }
    return {};
}

std::optional<double> number(std::string_view text) {
    while (text.starts_with(' ')) text.remove_prefix(1);
    double v = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
    if (ec != std::errc() || end == text.data() || !std::isfinite(v) || v < 0) return {};
    return v;
}

std::uint64_t whole(double v) {
    constexpr double kMost = 9e18;
    return static_cast<std::uint64_t>(std::min(v, kMost));
}

std::uint32_t small(double v) {
    return static_cast<std::uint32_t>(std::min(v, double{UINT32_MAX}));
}

class Reader {
  public:
    void line(std::string_view text) {
        if (text.starts_with("vllm:")) return of(text.substr(5), kVllm);
        if (text.starts_with("sglang:") || text.starts_with("sglang_")) {
            return of(text.substr(7), kSglang);
        }
        if (text.starts_with("trtllm_")) return of(text.substr(7), kTrtllm);
    }
    std::vector<EngineRankMetrics> ranks;

  private:
    template <std::size_t N>
    void of(std::string_view text, const std::array<Name, N>& names) {
        const std::size_t end = text.find_first_of("{ ");
        if (end == std::string_view::npos) return;
        const std::string_view name = text.substr(0, end);
        const auto known = std::ranges::find(names, name, &Name::text);
        if (known == names.end()) return;
        std::string_view labels;
        std::string_view value = text.substr(end);
        if (text[end] == '{') {
            const std::size_t close = text.rfind('}');
            if (close == std::string_view::npos || close < end) return;
            labels = text.substr(end + 1, close - end - 1);
            value = text.substr(close + 1);
        }
        const auto v = number(value);
        std::string_view rank = label(labels, "engine");
        if (rank.empty()) rank = label(labels, "dp_rank");
        const auto index = rank.empty() ? 0.0 : number(rank);
        if (!v || !index || *index >= double{kMostRanks}) return;
        set(of_rank(small(*index)), known->metric, *v, labels);
    }

    EngineRankMetrics& of_rank(std::uint32_t rank) {
        const auto at = std::ranges::lower_bound(ranks, rank, {}, &EngineRankMetrics::rank);
        if (at != ranks.end() && at->rank == rank) return *at;
        return *ranks.insert(at, EngineRankMetrics{.rank = rank});
    }

    /// Of several lines for one rank (one by model or by tensor-parallel rank) counts are added,
    /// usage is the highest.
    static void set(EngineRankMetrics& r, Metric metric, double v, std::string_view labels) {
        switch (metric) {
            case Metric::kRunning:
                r.running = small(static_cast<double>(r.running) + v);
                break;
            case Metric::kWaiting:
                r.waiting = small(static_cast<double>(r.waiting) + v);
                break;
            case Metric::kKvUsage:
                r.kv_usage = std::max(r.kv_usage, std::min(v, 1.0));
                break;
            case Metric::kConfig:
                r.block_tokens = small(number(label(labels, "block_size")).value_or(0));
                r.kv_blocks = whole(number(label(labels, "num_gpu_blocks")).value_or(0));
                break;
            case Metric::kPrefixQueries:
                r.prefix_queries += whole(v);
                break;
            case Metric::kPrefixHits:
                r.prefix_hits += whole(v);
                break;
            case Metric::kPromptTokens:
                r.prompt_tokens += whole(v);
                break;
            case Metric::kGenerated:
                r.generated_tokens += whole(v);
                break;
            case Metric::kPreemptions:
                r.preemptions += whole(v);
                break;
            case Metric::kKvTokens:
                r.kv_tokens = std::max(r.kv_tokens, whole(v));
                break;
        }
    }
};

}  // namespace

std::vector<EngineRankMetrics> read_engine_metrics(std::string_view text) {
    Reader reader;
    while (!text.empty()) {
        const std::size_t end = text.find('\n');
        const std::string_view line = text.substr(0, end);
        if (!line.empty() && line.front() != '#') reader.line(line);
        if (end == std::string_view::npos) break;
        text.remove_prefix(end + 1);
    }
    return std::move(reader.ranks);
}

}  // namespace stator::engine
