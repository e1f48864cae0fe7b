#include "stator/frontend/model_directory.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "stator/base/check.h"
#include "stator/base/log.h"
#include "stator/codec/json_writer.h"

namespace stator::frontend {

namespace {

text::TemplateTraits traits_of(const ServedModel& model) {
    if (model.chat_template == nullptr) return {};
    return text::find_template_traits(*model.chat_template);
}

/// A template's mark of media must not be forged either.
std::shared_ptr<const text::SpecialGuard> guard_of(const ServedModel& model) {
    const auto special = model.tokenizer->special_texts();
    std::vector<std::string> texts(special.begin(), special.end());
    if (!model.media_mark.empty()) texts.push_back(model.media_mark);
    return std::make_shared<text::SpecialGuard>(texts);
}

}  // namespace

ModelEntry::ModelEntry(ServedModel m, const ModelMetrics* counters)
    : model(std::move(m)), metrics(counters), guard(guard_of(model)), traits(traits_of(model)) {
    const text::Tokenizer& tokenizer = *model.tokenizer;
    for (tokens::TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
        longest_token_bytes = std::max(
            {longest_token_bytes, tokenizer.bytes(id).size(), tokenizer.spelling(id).size()});
    }
}

std::string_view ModelEntry::adapter_of(std::string_view name) const {
    if (name == model.id || std::ranges::find(model.aliases, name) != model.aliases.end()) {
        return {};
    }
    const auto found = std::ranges::find(model.adapters, name);
    return found == model.adapters.end() ? std::string_view() : std::string_view(*found);
}

RequestRules ModelEntry::rules(std::uint32_t max_choices) const {
    RequestRules rules;
    rules.model = model.id;
    rules.defaults = model.defaults;
    rules.max_choices = max_choices;
    rules.max_top_logprobs = model.engine->info().max_top_logprobs;
    rules.vocab_size = model.tokenizer->vocab_size();
    rules.structured_output = model.engine->info().structured_output;
    rules.images = std::ranges::find(model.media, "image") != model.media.end();
    rules.videos = std::ranges::find(model.media, "video") != model.media.end();
    return rules;
}

ModelDirectory::ModelDirectory(std::vector<ServedModel> models, const ModelDirectory& before,
                               const CountersOf& counters)
    : turn_(before.turn_.load(std::memory_order_relaxed)) {
    for (ServedModel& model : models) {
        STATOR_CHECK(model.tokenizer != nullptr && model.engine != nullptr,
                     "a served model needs a tokenizer and an engine");
        const auto known = std::ranges::find_if(before.entries_, [&](const auto& entry) {
            return entry->model.id == model.id && entry->model.pool == model.pool &&
                   entry->model.tokenizer == model.tokenizer;
        });
        std::shared_ptr<ModelEntry> entry;
        if (known == before.entries_.end()) {
            const ModelMetrics* own = counters(model);
            entry = std::make_shared<ModelEntry>(std::move(model), own);
        } else {
            // What the tokenizer costs to look through is taken over.
            entry = std::make_shared<ModelEntry>(**known);
            const bool same_engine = entry->model.engine == model.engine;
            const bool same_template = entry->model.chat_template == model.chat_template;
            const bool same_mark = entry->model.media_mark == model.media_mark;
            entry->model = std::move(model);
            if (!same_mark) entry->guard = guard_of(entry->model);
            if (!same_template) entry->traits = traits_of(entry->model);
            if (!same_engine) entry->metrics = counters(entry->model);
        }
        bytes_per_thread_ += entry->model.tokenizer->bytes_per_thread();
        entries_.push_back(std::move(entry));
    }
    // Ids first: an alias of one model must not take another's id.
    for (const auto& entry : entries_) claim(entry->model.id, entry);
    for (const auto& entry : entries_) {
        for (const std::string& alias : entry->model.aliases) claim(alias, entry);
    }
    for (const auto& entry : entries_) {
        for (const std::string& adapter : entry->model.adapters) claim(adapter, entry);
    }
    const auto list = [this](const std::string& name, const std::string& id) {
        const bool is_new = std::ranges::find(order_, name) == order_.end();
        if (is_new && names_.find(name)->second.id == id) order_.push_back(name);
    };
    for (const auto& entry : entries_) {
        list(entry->model.id, entry->model.id);
        for (const std::string& alias : entry->model.aliases) list(alias, entry->model.id);
    }
    for (const auto& entry : entries_) {
        for (const std::string& adapter : entry->model.adapters) list(adapter, entry->model.id);
    }
}

void ModelDirectory::claim(const std::string& name,
                           const std::shared_ptr<const ModelEntry>& entry) {
    const auto [at, fresh] = names_.try_emplace(name);
    if (fresh) {
        at->second.id = entry->model.id;
    } else if (at->second.id != entry->model.id) {
        log_warn("Two models claim one name; it stays with the first.",
                 {{"name", name}, {"kept", at->second.id}, {"refused", entry->model.id}});
        return;
    }
    // An alias may be given twice, or repeat the id.
    auto& pools = at->second.pools;
    if (std::ranges::find(pools, entry) == pools.end()) pools.push_back(entry);
}

std::shared_ptr<const ModelEntry> ModelDirectory::choose(const Name& name) const {
    if (name.pools.size() == 1) return name.pools.front();
    const auto share = [](const auto& entry, bool healthy_only) {
        if (healthy_only && !entry->model.engine->healthy()) return 0.0;
        return std::max(entry->model.share, 0.0);
    };
    // Multiples of the golden ratio fall evenly into [0, 1): shares hold over few requests, too.
    constexpr double kGolden = 0.6180339887498949;
    const auto turn = turn_.fetch_add(1, std::memory_order_relaxed);
    double whole = 0.0;
    const double point = std::modf(static_cast<double>(turn % (1U << 20U)) * kGolden, &whole);
    for (const bool healthy_only : {true, false}) {
        double sum = 0.0;
        for (const auto& entry : name.pools) sum += share(entry, healthy_only);
        if (sum <= 0.0) continue;
        double left = point * sum;
        for (const auto& entry : name.pools) {
            const double own = share(entry, healthy_only);
            if (own > 0.0 && left < own) return entry;
            left -= own;
        }
    }
    return name.pools.front();
}

std::shared_ptr<const ModelEntry> ModelDirectory::find(std::string_view name) const {
    const auto found = names_.find(name);
    return found == names_.end() ? nullptr : choose(found->second);
}

Result<std::shared_ptr<const ModelEntry>> ModelDirectory::require(std::string_view name) const {
    if (auto entry = find(name)) return entry;
    if (entries_.empty()) {
        auto e = error(ErrorCode::kUnavailable, "No model is served yet; try again soon");
        e.value().retryable = true;
        e.value().retry_after_ms = 1000;
        return e;
    }
    constexpr std::size_t kShown = 100;
    auto e = error(ErrorCode::kNotFound, "The model \"{}\" does not exist here; served: {}",
                   name.size() <= kShown ? name : "(a long name)",
                   fmt::format("{}", fmt::join(order_, ", ")));
    e.value().param = "model";
    return e;
}

std::vector<ServedModel> ModelDirectory::models() const {
    std::vector<ServedModel> out;
    for (const auto& entry : entries_) out.push_back(entry->model);
    return out;
}

void ModelDirectory::append_model_json(std::string& out, const ModelEntry& entry,
                                       std::string_view name) {
    codec::JsonWriter w(out);
    w.begin_object().key("id").string(name).key("object").string("model");
    w.key("created").number(entry.model.created).key("owned_by").string("stator");
    w.key("root").string(entry.model.id);
    if (!entry.adapter_of(name).empty()) w.key("parent").string(entry.model.id);
    w.key("max_model_len").number(entry.context_tokens());
    w.key("context_length").number(entry.context_tokens()).end_object();
}

void ModelDirectory::append_relayed_json(std::string& out, std::string_view name) {
    codec::JsonWriter w(out);
    w.begin_object().key("id").string(name).key("object").string("model");
    w.key("created").number(std::int64_t{0}).key("owned_by").string("upstream").end_object();
}

void ModelDirectory::append_list_json(std::string& out,
                                      std::span<const std::string> relayed) const {
    out += R"({"object":"list","data":[)";
    bool first = true;
    for (const std::string& name : order_) {
        if (!std::exchange(first, false)) out += ',';
        append_model_json(out, *names_.find(name)->second.pools.front(), name);
    }
    for (const std::string& name : relayed) {
        if (names_.contains(name)) continue;
        if (!std::exchange(first, false)) out += ',';
        append_relayed_json(out, name);
    }
    out += "]}";
}

}  // namespace stator::frontend
