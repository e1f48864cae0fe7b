#include "stator/engine/probe/probe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "stator/engine/dialects/engine_metrics.h"
#include "stator/protocol/worker_info.h"

namespace stator::engine {
namespace {

constexpr std::string_view kOff = "off";
constexpr std::string_view kDrain = "drain";
/// What TensorRT-LLM has where nobody says otherwise, and does not tell.
constexpr std::uint32_t kTrtllmPage = 32;
constexpr std::size_t kMostNamesShown = 8;

std::string_view product(EngineKind kind) {
    switch (kind) {
        case EngineKind::kVllm:
            return "vLLM";
        case EngineKind::kSglang:
            return "SGLang";
        case EngineKind::kTrtllm:
            return "TensorRT-LLM";
        case EngineKind::kOpenai:
            break;
    }
    return "an OpenAI-compatible server";
}

class Probe {
  public:
    Probe(const ProbeOptions& options, const AskEngine& ask) : options_(options), ask_(ask) {}

    Result<FoundEngine> run() {
        out_.kind = options_.kind;
        if (auto ok = alive(); !ok) return tl::unexpected<Error>(std::move(ok.error()));
        if (auto ok = models(); !ok) return tl::unexpected<Error>(std::move(ok.error()));
        Result<void> done;
        switch (options_.kind) {
            case EngineKind::kVllm:
                vllm();
                break;
            case EngineKind::kSglang:
                done = sglang();
                break;
            case EngineKind::kTrtllm:
                trtllm();
                break;
            case EngineKind::kOpenai:
                return error(ErrorCode::kInvalidArgument,
                             "openai={} is a server of texts: `stator serve --engine openai=…` or "
                             "`stator frontend --upstream …` relays to it; it can be no worker.",
                             options_.url);
        }
        if (done) done = events();
        if (!done) return tl::unexpected<Error>(std::move(done.error()));
        return std::move(out_);
    }

  private:
    template <typename... Args>
    static tl::unexpected<Error> not_yet(ErrorFormat format, Args&&... args) {
        return error(ErrorCode::kUnavailable, format, std::forward<Args>(args)...);
    }
    template <typename... Args>
    static tl::unexpected<Error> wrong(ErrorFormat format, Args&&... args) {
        return error(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
    }

    /// An answer that is none, or that one has to wait for, as an error.
    Result<std::string> must(std::string_view path) {
        EngineAnswer a = ask_(path);
        if (a.status == 200) return std::move(a.body);
        if (a.status == 0) return not_yet("{} does not answer: {}", options_.url, a.body);
        if (a.status == 401 || a.status == 403) {
            return wrong(
                "{} asks for a key (status {} at {}). Put it into a file and name that with "
                "--engine-key-file.",
                options_.url, a.status, path);
        }
        if (a.status >= 500) return not_yet("{} answers {} at {}", options_.url, a.status, path);
        return wrong("{} answers {} at {}: no {} is there.", options_.url, a.status, path,
                     product(options_.kind));
    }

    Result<void> alive() {
        const EngineAnswer a = ask_("/health");
        if (a.status == 0) return not_yet("{} does not answer: {}", options_.url, a.body);
        if (a.status >= 500) {
            return not_yet("{} is not ready: its /health answers {}", options_.url, a.status);
        }
        return {};
    }

    Result<void> models() {
        auto body = must("/v1/models");
        if (!body) return tl::unexpected<Error>(std::move(body.error()));
        const auto list = read_model_list(*body);
        if (!list) {
            return wrong("What {} answers at /v1/models is {}.", options_.url,
                         list.error().message);
        }
        if (list->kind && *list->kind != options_.kind && options_.kind != EngineKind::kOpenai) {
            return wrong("{} is {}, not {}: write --engine {}={}", options_.url,
                         product(*list->kind), product(options_.kind), to_string(*list->kind),
                         options_.url);
        }
        const auto& all = list->models;
        const auto found =
            options_.model.empty()
                ? std::ranges::find_if(all, [](const ServedModel& m) { return m.parent.empty(); })
                : std::ranges::find(all, options_.model, &ServedModel::name);
        if (found != all.end() || options_.model.empty()) {
            out_.model = found != all.end() ? *found : all.front();
            adapters(all);
            return {};
        }
        std::vector<std::string_view> names;
        for (const ServedModel& m : all) {
            if (names.size() < kMostNamesShown) names.push_back(m.name);
        }
        return wrong("{} does not serve \"{}\"; it serves {}.", options_.url, options_.model,
                     fmt::join(names, ", "));
    }

    /// TensorRT-LLM takes none by name.
    void adapters(const std::vector<ServedModel>& all) {
        if (options_.kind != EngineKind::kVllm && options_.kind != EngineKind::kSglang) return;
        for (const ServedModel& m : all) {
            if (m.parent.empty() || m.name == out_.model.name) continue;
            if (out_.adapters.size() >= protocol::kMaxAdapters ||
                m.name.size() > protocol::kMaxAdapterBytes) {
                continue;
            }
            out_.adapters.push_back(m.name);
        }
        std::ranges::sort(out_.adapters);
    }

    void version() {
        const EngineAnswer a = ask_("/version");
        if (a.status == 200) out_.version = read_version(a.body).value_or("");
    }

    void vllm() {
        version();
        const std::string& v = out_.version;
        out_.guided_fields = !v.empty() && !version_at_least(v, 0, 12);
        // From then on it repeats what it has for the asking.
        out_.reports_full = version_at_least(v, 0, 32);
        out_.counts_copies = !v.empty() && !version_at_least(v, 0, 30);
        out_.salt_hidden = v.empty() || !version_at_least(v, 0, 20);
        // Before, the route is there and does not stream. A route that takes POST alone answers
        // GET with 405, one that is not there with 404.
        if (version_at_least(v, 0, 30) && ask_(path_of(Dialect::kVllmGenerate)).status == 405) {
            out_.dialect = Dialect::kVllmGenerate;
        }
        metrics("/metrics");
        if (options_.events.empty()) {
            const EngineAnswer a = ask_("/kv_event_sources");
            if (a.status == 200) {
                out_.sources = read_event_sources(a.body, options_.host)
                                   .value_or(std::vector<KvEventSource>{});
                for (const KvEventSource& s : out_.sources) {
                    out_.ranks = std::max(out_.ranks, s.rank + 1);
                }
            }
        }
    }

    Result<void> sglang() {
        out_.dialect = Dialect::kSglang;
        out_.salt_hidden = true;
        EngineAnswer a = ask_("/server_info");
        if (a.status == 404) a = ask_("/get_server_info");
        if (a.status == 0 || a.status >= 500) {
            return not_yet("{} does not tell its /server_info yet", options_.url);
        }
        auto info = read_sglang_server_info(a.body, options_.host);
        if (a.status != 200 || !info) {
            return wrong("{} has no /server_info as SGLang has: it is another kind of server.",
                         options_.url);
        }
        out_.version = std::move(info->version);
        out_.page_tokens = info->page_tokens;
        out_.ranks = info->ranks;
        out_.kv_tokens = info->kv_tokens;
        out_.role = std::move(info->role);
        out_.bootstrap_port = info->bootstrap_port;
        out_.lora_hidden = info->lora_hidden;
        out_.priorities = info->priorities;
        out_.low_first = info->low_first;
        if (out_.model.context_tokens == 0) out_.model.context_tokens = info->context_tokens;
        if (options_.events.empty()) out_.sources = std::move(info->sources);
        if (out_.page_tokens < kLeastBlock && !out_.sources.empty()) {
            out_.advice.push_back(fmt::format(
                "SGLang at {} has pages of {} token{}, each an event of its own: --page-size 16 or "
                "more on its command line costs both sides less.",
                options_.url, out_.page_tokens, out_.page_tokens == 1 ? "" : "s"));
        }
        return {};
    }

    void trtllm() {
        out_.dialect = Dialect::kTrtllm;
        version();
        out_.page_tokens = kTrtllmPage;
        metrics("/prometheus/metrics");
    }

    void metrics(std::string_view path) {
        const EngineAnswer a = ask_(path);
        if (a.status != 200) return;
        for (const EngineRankMetrics& m : read_engine_metrics(a.body)) {
            out_.ranks = std::max(out_.ranks, m.rank + 1);
            if (m.block_tokens != 0) out_.page_tokens = m.block_tokens;
            if (m.kv_tokens != 0) out_.kv_tokens = m.kv_tokens;
            if (m.kv_blocks != 0) out_.kv_tokens = m.kv_blocks * std::uint64_t{m.block_tokens};
        }
    }

    /// Where each rank's events come from.
    Result<void> events() {
        if (options_.ranks) out_.ranks = *options_.ranks;
        std::erase_if(out_.sources,
                      [this](const KvEventSource& s) { return s.rank >= out_.ranks; });
        if (options_.events == kOff) {
            out_.sources.clear();
            return {};
        }
        if (options_.events == kDrain) return drained();
        for (std::uint32_t rank = 0; !options_.events.empty() && rank < out_.ranks; ++rank) {
            KvEventSource source;
            source.rank = rank;
            auto at = endpoint_of_rank(options_.events, options_.host, rank);
            if (!at) return wrong("--engine-events: {}", at.error().message);
            source.endpoint = std::move(*at);
            if (!options_.replay.empty()) {
                auto replay = endpoint_of_rank(options_.replay, options_.host, rank);
                if (!replay) return wrong("--engine-replay: {}", replay.error().message);
                source.replay = std::move(*replay);
            }
            out_.sources.push_back(std::move(source));
        }
        advise_on_events();
        return {};
    }

    Result<void> drained() {
        // A POST would take events away before anybody follows them; a GET is refused where it is.
        constexpr int kMethodNotAllowed = 405;
        if (out_.kind != EngineKind::kTrtllm ||
            ask_("/kv_cache_events").status != kMethodNotAllowed) {
            return wrong(
                "--engine-events drain is for TensorRT-LLM with its /kv_cache_events, and "
                "{} has none",
                options_.url);
        }
        out_.drained_events = true;
        return {};
    }

    void advise_on_events() {
        const bool none = out_.sources.empty();
        const bool no_replay = std::ranges::any_of(
            out_.sources, [](const KvEventSource& s) { return s.replay.empty(); });
        if ((!none && !no_replay) || out_.drained_events) return;
        std::string how;
        switch (out_.kind) {
            case EngineKind::kVllm:
                how =
                    R"(--kv-events-config '{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:5557","replay_endpoint":"tcp://*:5657"}')";
                break;
            case EngineKind::kSglang:
                how =
                    R"(--kv-events-config '{"publisher":"zmq","endpoint":"tcp://*:5557","replay_endpoint":"tcp://*:5657"}')";
                break;
            case EngineKind::kTrtllm:
            case EngineKind::kOpenai:
                how =
                    R"(kv_events_config: {enable_kv_cache_events: true, publisher: zmq, endpoint: "tcp://*:5557", replay_endpoint: "tcp://*:5657"})";
                break;
        }
        const std::string_view where =
            out_.kind == EngineKind::kTrtllm
                ? "to the file of its --config (from 1.3 on; before, kv_cache_config: "
                  "{event_buffer_max_size: 8192}, and here --engine-events drain)"
                : "to its command line";
        if (!none) {
            out_.advice.push_back(
                fmt::format("The KV events of {} can't be had again once missed, because it has no "
                            "replay endpoint. Add {} {}.",
                            options_.url, how, where));
            return;
        }
        // What tells its sources by itself needs no flag on this side.
        const bool tells =
            out_.kind == EngineKind::kSglang ||
            (out_.kind == EngineKind::kVllm && version_at_least(out_.version, 0, 30));
        out_.advice.push_back(fmt::format(
            "{} at {} shows no KV events: requests go where their prefix was sent before, whether "
            "it is still there or not. Add {} {}{}.",
            product(out_.kind), options_.url, how, where,
            tells ? std::string()
                  : fmt::format(", and here --engine-events tcp://{0}:5557 --engine-replay "
                                "tcp://{0}:5657",
                                options_.host)));
    }

    const ProbeOptions& options_;
    const AskEngine& ask_;
    FoundEngine out_;
};

}  // namespace

Result<FoundEngine> probe_engine(const ProbeOptions& options, const AskEngine& ask) {
    return Probe(options, ask).run();
}

std::uint32_t pool_block(std::uint32_t page_tokens) {
    if (page_tokens == 0) return kLeastBlock;
    return (std::max(kLeastBlock, page_tokens) + page_tokens - 1) / page_tokens * page_tokens;
}

std::string changed(const FoundEngine& before, const FoundEngine& now) {
    if (before.model.name != now.model.name) {
        return fmt::format("it serves \"{}\" and not \"{}\"", now.model.name, before.model.name);
    }
    if (before.model.context_tokens != now.model.context_tokens) {
        return fmt::format("its context is {} tokens and not {}", now.model.context_tokens,
                           before.model.context_tokens);
    }
    if (before.ranks != now.ranks) {
        return fmt::format("it has {} ranks and not {}", now.ranks, before.ranks);
    }
    if (before.adapters != now.adapters) {
        return fmt::format("it has the adapters {} and not {}", fmt::join(now.adapters, ", "),
                           fmt::join(before.adapters, ", "));
    }
    if (before.dialect != now.dialect || before.guided_fields != now.guided_fields) {
        return fmt::format("it is version {} and not {}, and spoken to otherwise", now.version,
                           before.version);
    }
    return {};
}

}  // namespace stator::engine
