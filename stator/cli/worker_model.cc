#include "stator/cli/worker_model.h"

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "stator/model/artifacts.h"
#include "stator/model/hf_folder.h"
#include "stator/text/byte_tokenizer.h"

namespace stator::cli {
namespace {

constexpr std::string_view kImitation = "mock";

Result<void> add_tokenizer(const ServedEngine& engine, WorkerModel& out) {
    if (engine.folder.empty()) {
        auto vocabulary = model::vocabulary_artifact(engine.facts->path);
        if (!vocabulary) return tl::unexpected(vocabulary.error());
        out.card.tokenizer = out.artifacts.add("gguf-vocabulary", std::move(*vocabulary));
        return {};
    }
    auto folder = model::HfFolder::read(engine.folder);
    if (!folder) return tl::unexpected(folder.error());
    out.card.tokenizer = out.artifacts.add(
        "hf-tokenizer", model::hf_tokenizer_artifact(folder->tokenizer, folder->tokenizer_json));
    return {};
}

}  // namespace

Result<WorkerModel> describe_model(const config::Settings& settings, const ServedEngine& engine) {
    WorkerModel out;
    protocol::ModelCard& card = out.card;
    const engine::EngineInfo& info = engine.engine->info();
    card.name = engine.id;
    card.title = engine.title;
    card.aliases = settings.model.aliases;
    card.adapters = info.adapters;
    card.vocab_size = engine.tokenizer->vocab_size();
    card.context_tokens = info.context_tokens;
    card.block_tokens = info.block_tokens;
    card.kv_bytes_per_token = info.kv_bytes_per_token;
    card.hash_scheme = "xxh3-64:1337";
    card.max_top_logprobs = info.max_top_logprobs;
    card.tool_format = engine.format.tools;
    card.reasoning_format = engine.format.reasoning;
    card.structured_output = info.structured_output;
    if (engine.facts) {
        const model::ModelFacts& facts = *engine.facts;
        if (engine.attached) {
            // Nobody tells of its weights but by name.
            card.weights_digest = fmt::format("engine:{}", engine.title);
            card.kv_layout = info.kv_layout.empty() ? info.kind : info.kv_layout;
        } else if (info.kind == kImitation) {
            // Its vocabulary is all that is used: nobody may take it for the model itself.
            card.weights_digest = info.kind;
            card.kv_layout = "none";
        } else {
            auto digest = model::weights_digest(facts.path);
            if (!digest) return tl::unexpected(digest.error());
            card.weights_digest = std::move(*digest);
            card.kv_layout = fmt::format("llama.cpp/{}/f16", facts.architecture);
        }
        if (auto ok = add_tokenizer(engine, out); !ok) return tl::unexpected(ok.error());
        card.sampling = {facts.temperature, facts.top_p, facts.top_k, facts.min_p};
    } else {
        // By id: special_texts() has them longest first.
        std::vector<std::string> special;
        for (tokens::TokenId id = text::ByteTokenizer::kEnd + 1;
             id < engine.tokenizer->vocab_size(); ++id) {
            special.emplace_back(engine.tokenizer->spelling(id));
        }
        card.weights_digest = info.kind;
        card.tokenizer = out.artifacts.add(
            "byte-tokenizer", model::byte_tokenizer_artifact(
                                  std::vector<std::string>(special.begin(), special.end())));
        card.kv_layout = "none";
    }
    card.media = info.media;
    if (!card.media.empty()) {
        card.media_digest = info.kind;
        card.media_mark = engine.media_mark;
        if (engine.attached) {
            // Its encoders and those that compute prompts have one name for an item.
            card.media_digest = card.weights_digest;
        } else if (info.kind != kImitation) {
            auto digest = model::weights_digest(settings.model.mmproj);
            if (!digest) return tl::unexpected(digest.error());
            card.media_digest = std::move(*digest);
        }
    }
    if (engine.chat_template) {
        card.chat_template = out.artifacts.add(
            "chat-template", model::chat_template_artifact(
                                 engine.template_source, engine.template_bos, engine.template_eos));
    }
    return out;
}

}  // namespace stator::cli
