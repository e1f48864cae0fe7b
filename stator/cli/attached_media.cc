#include "stator/cli/attached_media.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "stator/base/log.h"
#include "stator/cli/text_file.h"
#include "stator/engine/probe/engine_client.h"
#include "stator/engine/probe/probe_media.h"

namespace stator::cli {
namespace {

using engine::EngineKind;

constexpr std::size_t kMaxConfigBytes = 4UL * 1024 * 1024;

std::string config_of(const config::Settings& settings, const FoundAttached& attached) {
    const std::string& folder =
        settings.model.folder.empty() ? attached.found.model.root : settings.model.folder;
    if (folder.empty() || !settings.model.path.empty()) return {};
    auto text = read_text_file("The model's config.json", folder + "/config.json", kMaxConfigBytes);
    return text ? *std::move(text) : std::string();
}

}  // namespace

bool only_encodes(const config::Settings& settings) {
    const auto& roles = settings.worker.roles;
    return !roles.empty() &&
           std::ranges::all_of(roles, [](const std::string& role) { return role == "encode"; });
}

Result<void> check_encoder(const config::Settings& settings) {
    const auto& roles = settings.worker.roles;
    const auto& attached = settings.engine.attached;
    if (attached.size() != 1 || std::ranges::find(roles, "encode") == roles.end()) return {};
    const auto kind = engine::engine_kind(attached.front().kind);
    if (kind == EngineKind::kTrtllm) {
        return error(ErrorCode::kInvalidArgument,
                     "TensorRT-LLM's encoder can't be driven from outside: its embeddings are "
                     "handles that only a program on the same machine can open, through its LLM "
                     "API. Let vLLM or SGLang encode, or a TensorRT-LLM compute whole requests "
                     "(no --role).");
    }
    if (kind == EngineKind::kSglang) {
        return error(ErrorCode::kInvalidArgument,
                     "SGLang's encoders are asked by its own servers, not by a worker: they find "
                     "them at a worker's --worker-http address, where encoders register "
                     "(--encoder-register-urls); see docs/engines/sglang.md.");
    }
    return {};
}

Result<void> find_media(const config::Settings& settings, FoundAttached& attached) {
    engine::AttachOptions& options = attached.options;
    const engine::FoundEngine& found = attached.found;
    options.media.encodes = only_encodes(settings);
    engine::FoundMedia media;
    if (found.kind == EngineKind::kVllm) {
        auto client = engine::EngineClient::open(options.url, options.key);
        if (!client) return tl::unexpected(client.error());
        media = engine::probe_media(found, [&](std::string_view path, std::string body) {
            return (*client)->post(path, std::move(body), std::chrono::seconds(60));
        });
        const bool reads = media.kinds.empty() &&
                           !engine::media_of_config(config_of(settings, attached)).kinds.empty();
        if (reads) {
            log_warn(
                "The engine's model reads pictures, but the engine can't be given any: that takes "
                "a vLLM from 0.30 on with --enable-scale-out (it renders them, and takes them "
                "beside token ids).",
                {{"engine", options.probe.url}});
        }
    } else if (found.kind == EngineKind::kSglang) {
        media = engine::media_of_config(config_of(settings, attached));
        options.media.half = !found.role.empty();
    }
    if (media.kinds.empty() && options.media.encodes) {
        return error(ErrorCode::kInvalidArgument,
                     "The engine at {} renders no pictures, so it can be no encoder: that takes a "
                     "vLLM from 0.30 on, with --enable-scale-out, --mm-encoder-only and a model "
                     "that reads pictures.",
                     options.probe.url);
    }
    options.media.kinds = std::move(media.kinds);
    options.media.placeholders = std::move(media.placeholders);
    options.media.around = std::move(media.around);
    // It gives no token for the asking.
    if (options.media.encodes) options.canary_every = {};
    if (!options.media.kinds.empty()) {
        log_info("The engine takes media.",
                 {{"engine", options.probe.url},
                  {"kinds", fmt::format("{}", fmt::join(options.media.kinds, ","))},
                  {"encodes_alone", options.media.encodes}});
    }
    return {};
}

void add_media_role(const engine::AttachOptions& options, std::vector<protocol::Role>& roles) {
    using protocol::Role;
    const auto has = [&](Role role) { return std::ranges::find(roles, role) != roles.end(); };
    const bool computes = roles.empty() || has(Role::kAggregated) || has(Role::kPrefill) ||
                          (has(Role::kDecode) && !options.decodes_only);
    if (options.media.kinds.empty() || !computes || has(Role::kEncode)) return;
    if (roles.empty()) roles.push_back(Role::kAggregated);
    roles.push_back(Role::kEncode);
}

std::string media_mark_of(const engine::EngineMedia& media, const text::Tokenizer& tokenizer,
                          const std::string& template_source) {
    if (media.placeholders.empty()) return {};
    const tokens::TokenId id = media.placeholders.front();
    if (id >= tokenizer.vocab_size()) return {};
    std::string mark(tokenizer.spelling(id));
    return template_source.find(mark) == std::string::npos ? std::string() : mark;
}

}  // namespace stator::cli
