#include "stator/cli/attached_setup.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <thread>
#include <utility>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/cli/attached_connector.h"
#include "stator/cli/attached_media.h"
#include "stator/cli/model_parts.h"
#include "stator/cli/text_file.h"
#include "stator/codec/json.h"
#include "stator/codec/json_writer.h"
#include "stator/config/value.h"
#include "stator/engine/probe/engine_client.h"

namespace stator::cli {
namespace {

constexpr std::chrono::milliseconds kAskEvery{1'000};
constexpr std::chrono::milliseconds kTellEvery{15'000};
constexpr std::uint32_t kUsualRunning = 256;
constexpr std::uint32_t kUsualWaiting = 1024;

std::string one_of(const std::vector<std::string>& list) {
    return list.empty() ? std::string() : list.front();
}

Result<engine::AttachOptions> attach_options(const config::EngineSettings& s) {
    if (s.attached.size() != 1) {
        return error(ErrorCode::kInvalidArgument,
                     "A worker stands before one engine, but {} are named with --engine; `stator "
                     "serve` takes several, and starts a worker for each.",
                     s.attached.size());
    }
    if (s.events.size() > 1 || s.replay.size() > 1) {
        return error(ErrorCode::kInvalidArgument,
                     "--engine-events and --engine-replay take one address for each --engine.");
    }
    const config::AttachedEngine& named = s.attached.front();
    engine::AttachOptions o;
    auto url = net::parse_http_url(named.url);
    if (!url) {
        return error(ErrorCode::kInvalidArgument, "--engine {}={}: {}", named.kind, named.url,
                     url.error().message);
    }
    o.url = std::move(*url);
    o.probe.kind = *engine::engine_kind(named.kind);
    o.probe.url = named.url;
    o.probe.host = o.url.address.host;
    o.probe.ranks = s.dp_ranks;
    o.probe.events = one_of(s.events);
    o.probe.replay = one_of(s.replay);
    auto key = read_key_line("--engine-key-file", s.key_file);
    if (!key) return tl::unexpected(key.error());
    o.key = *std::move(key);
    o.max_running = s.max_running.value_or(kUsualRunning);
    o.max_waiting = s.max_waiting.value_or(kUsualWaiting);
    o.canary_every = s.canary;
    o.canary_within = s.canary_within;
    o.priorities = s.priority;
    return o;
}

/// What the log says of an engine that was found.
void log_found(const engine::AttachOptions& options, const engine::FoundEngine& found) {
    log_info("The engine is found.",
             {{"engine", options.probe.url},
              {"kind", std::string(to_string(found.kind))},
              {"version", found.version},
              {"model", found.model.name},
              {"context", found.model.context_tokens},
              {"page", found.page_tokens},
              {"ranks", found.ranks},
              {"kv_tokens", found.kv_tokens},
              {"route", std::string(path_of(found.dialect))},
              {"kv_events", found.drained_events    ? "fetched"
                            : found.sources.empty() ? "none"
                                                    : found.sources.front().endpoint}});
    for (const std::string& advice : found.advice) log_warn(advice);
}

/// Asks for the tokens of a short text: with another tokenizer than the engine's answers are noise.
/// Engines that have no such route are believed.
void compare_tokenizers(const FoundAttached& attached, const text::Tokenizer& ours) {
    constexpr std::string_view kText =
        "The cache of 1234 routers, na\u00efve;\n\tint x = \u65e5\u672c;";
    std::string body;
    codec::JsonWriter w(body);
    w.begin_object().key("model").string(attached.found.model.name);
    w.key("prompt").string(kText).key("add_special_tokens").boolean(false).end_object();
    auto client = engine::EngineClient::open(attached.options.url, attached.options.key);
    if (!client) return;
    const engine::EngineAnswer answer = (*client)->post("/tokenize", std::move(body));
    codec::JsonDocument document;
    const auto root = document.parse(answer.body);
    if (answer.status != 200 || !root) return;
    std::vector<tokens::TokenId> theirs;
    root->find("tokens").each_element([&](std::size_t, codec::JsonView v) {
        theirs.push_back(static_cast<tokens::TokenId>(v.as_uint().value_or(0)));
        return true;
    });
    std::vector<tokens::TokenId> own;
    const auto encoded = ours.encode(kText, text::SpecialTokens::kAsText, false, own);
    if (theirs.empty() || !encoded || own == theirs) return;
    log_warn(
        "The tokenizer here gives other ids than the engine's own: its answers will be of no use "
        "unless that is a difference of some texts alone. Is --model-dir the model that it serves?",
        {{"engine", attached.options.probe.url},
         {"here", fmt::format("{}", fmt::join(own, " "))},
         {"there", fmt::format("{}", fmt::join(theirs, " "))}});
}

}  // namespace

Result<FoundAttached> find_attached(const config::Settings& settings) {
    if (auto ok = check_encoder(settings); !ok) return tl::unexpected(ok.error());
    auto options = attach_options(settings.engine);
    if (!options) return tl::unexpected(options.error());
    auto client = engine::EngineClient::open(options->url, options->key);
    if (!client) return tl::unexpected(client.error());
    const TimePoint begin = Clock::real().now();
    std::optional<TimePoint> told;
    while (true) {
        auto found = engine::probe_engine(
            options->probe, [&](std::string_view path) { return (*client)->ask(path); });
        if (found) {
            log_found(*options, *found);
            auto set = set_connector(settings, *found, *options);
            if (!set) return tl::unexpected(set.error());
            FoundAttached out{std::move(*options), std::move(*found)};
            if (auto media = find_media(settings, out); !media) {
                return tl::unexpected(media.error());
            }
            return out;
        }
        if (found.error().code != ErrorCode::kUnavailable) return tl::unexpected(found.error());
        const TimePoint now = Clock::real().now();
        const auto limit = settings.engine.wait;
        if (limit.count() > 0 && now - begin >= limit) {
            return error(ErrorCode::kUnavailable, "{}; it was waited for {} s (--engine-wait).",
                         found.error().message, limit.count() / 1000.0);
        }
        if (!told || now - *told >= kTellEvery) {
            told = now;
            log_info("Waiting for the engine.",
                     {{"engine", options->probe.url}, {"reason", found.error().message}});
        }
        std::this_thread::sleep_for(kAskEvery);
    }
}

Result<ServedEngine> text_of_attached(const config::Settings& settings, FoundAttached& attached) {
    const engine::FoundEngine& found = attached.found;
    const std::string& url = attached.options.probe.url;
    ServedEngine out;
    std::string folder = settings.model.folder;
    std::error_code ignored;
    if (folder.empty() && settings.model.path.empty()) {
        if (!found.model.root.empty() && std::filesystem::is_directory(found.model.root, ignored)) {
            folder = found.model.root;
        } else {
            return error(
                ErrorCode::kNotFound,
                "The tokenizer of {} is not here: the engine at {} has it from {}, which is no "
                "folder on this machine. Name a folder with the model's config.json, "
                "tokenizer.json and so on with --model-dir DIR; weights are not needed.",
                config::in_quotes(found.model.name), url,
                found.model.root.empty() ? "nowhere that it tells"
                                         : config::in_quotes(found.model.root));
        }
    }
    auto used = folder.empty() ? use_model_file(settings.model.path, settings, out)
                               : use_model_folder(folder, settings, out);
    if (!used) return tl::unexpected(used.error());
    compare_tokenizers(attached, *out.tokenizer);
    out.media_mark = media_mark_of(attached.options.media, *out.tokenizer, out.template_source);
    if (settings.model.served_name.empty()) out.id = found.model.name;
    out.title = found.model.name;
    out.attached = true;
    const std::uint32_t own = found.model.context_tokens;
    const std::uint32_t trained = out.facts->context_tokens;
    std::uint32_t context = own != 0 ? own : trained;
    if (settings.engine.max_sequence != 0) {
        context = context == 0 ? settings.engine.max_sequence
                               : std::min(context, settings.engine.max_sequence);
    }
    if (context == 0) {
        return error(ErrorCode::kInvalidArgument,
                     "Neither the engine at {} nor its model's folder tells how long a prompt and "
                     "its answer may be; say so with --max-sequence.",
                     url);
    }
    attached.options.context_tokens = context;
    attached.options.block_tokens =
        settings.engine.block_tokens.value_or(engine::pool_block(found.page_tokens));
    return out;
}

}  // namespace stator::cli
