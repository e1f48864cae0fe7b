#include "stator/frontend/model_directory.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "stator/base/check.h"
#include "stator/codec/json_writer.h"

namespace stator::frontend {

ModelEntry::ModelEntry(ServedModel m)
    : model(std::move(m)), guard(model.tokenizer->special_texts()) {
    const text::Tokenizer& tokenizer = *model.tokenizer;
    for (tokens::TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
        longest_token_bytes = std::max(
            {longest_token_bytes, tokenizer.bytes(id).size(), tokenizer.spelling(id).size()});
    }
}

RequestRules ModelEntry::rules(std::uint32_t max_choices) const {
    RequestRules rules;
    rules.defaults = model.defaults;
    rules.max_choices = max_choices;
    rules.max_top_logprobs = model.engine->info().max_top_logprobs;
    rules.vocab_size = model.tokenizer->vocab_size();
    return rules;
}

const ModelEntry& ModelDirectory::add(ServedModel model) {
    STATOR_CHECK(model.tokenizer != nullptr && model.engine != nullptr,
                 "a served model needs a tokenizer and an engine");
    STATOR_CHECK(find(model.id) == nullptr, "two models have the same name");
    for (const std::string& alias : model.aliases) {
        STATOR_CHECK(find(alias) == nullptr && alias != model.id, "two models have the same name");
    }
    return entries_.emplace_back(std::move(model));
}

const ModelEntry* ModelDirectory::find(std::string_view name) const {
    for (const ModelEntry& entry : entries_) {
        if (entry.model.id == name ||
            std::ranges::find(entry.model.aliases, name) != entry.model.aliases.end()) {
            return &entry;
        }
    }
    return nullptr;
}

Result<const ModelEntry*> ModelDirectory::require(std::string_view name) const {
    if (const ModelEntry* entry = find(name)) return entry;
    constexpr std::size_t kShown = 100;
    std::vector<std::string_view> names;
    for (const ModelEntry& entry : entries_) {
        names.emplace_back(entry.model.id);
        names.insert(names.end(), entry.model.aliases.begin(), entry.model.aliases.end());
    }
    auto e = error(ErrorCode::kNotFound, "The model \"{}\" does not exist here; served: {}",
                   name.size() <= kShown ? name : "(a long name)",
                   names.empty() ? "none yet" : fmt::format("{}", fmt::join(names, ", ")));
    e.value().param = "model";
    return e;
}

void ModelDirectory::append_model_json(std::string& out, const ModelEntry& entry,
                                       std::string_view name) {
    codec::JsonWriter w(out);
    w.begin_object().key("id").string(name).key("object").string("model");
    w.key("created").number(entry.model.created).key("owned_by").string("stator");
    w.key("root").string(entry.model.id);
    w.key("max_model_len").number(entry.context_tokens());
    w.key("context_length").number(entry.context_tokens()).end_object();
}

void ModelDirectory::append_list_json(std::string& out) const {
    out += R"({"object":"list","data":[)";
    bool first = true;
    const auto add = [&](const ModelEntry& entry, std::string_view name) {
        if (!std::exchange(first, false)) out += ',';
        append_model_json(out, entry, name);
    };
    for (const ModelEntry& entry : entries_) {
        add(entry, entry.model.id);
        for (const std::string& alias : entry.model.aliases) add(entry, alias);
    }
    out += "]}";
}

}  // namespace stator::frontend
