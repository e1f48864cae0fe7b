#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/frontend/frontend.h"
#include "stator/frontend/frontend_metrics.h"
#include "stator/frontend/sampling_fields.h"
#include "stator/text/special_guard.h"
#include "stator/text/template_traits.h"

namespace stator::frontend {

/// A served model with what is worked out once. Immutable.
struct ModelEntry {
    /// Reads the whole vocabulary: milliseconds for a large one.
    ModelEntry(ServedModel m, const ModelMetrics* counters);

    ServedModel model;
    const ModelMetrics* metrics;  ///< null in tests alone
    std::shared_ptr<const text::SpecialGuard> guard;
    text::TemplateTraits traits;  ///< of the model's chat template
    /// `name` if it is an adapter of it, and not one of the model's own names; else empty.
    [[nodiscard]] std::string_view adapter_of(std::string_view name) const;
    std::size_t longest_token_bytes = 1;  ///< of all tokens: bounds tokens from below by bytes

    [[nodiscard]] std::uint32_t context_tokens() const {
        return model.engine->info().context_tokens;
    }
    [[nodiscard]] RequestRules rules(std::uint32_t max_choices) const;
};

/// The models behind the door at one moment, by id, alias and adapter. Immutable but for whose turn
/// it is among the pools of a name; read from any thread.
class ModelDirectory {
  public:
    using CountersOf = std::function<const ModelMetrics*(const ServedModel&)>;

    ModelDirectory() = default;
    /// Takes over from `before` what has not changed. Tokenizer and engine must be there
    /// (STATOR_CHECK).
    ModelDirectory(std::vector<ServedModel> models, const ModelDirectory& before,
                   const CountersOf& counters);

    /// nullptr where there is none of that name. Where several pools serve it, each in turn by its
    /// share, the healthy ones alone as long as there are some.
    [[nodiscard]] std::shared_ptr<const ModelEntry> find(std::string_view name) const;
    /// The same, with an error that lists what there is; kUnavailable where there is nothing yet.
    [[nodiscard]] Result<std::shared_ptr<const ModelEntry>> require(std::string_view name) const;

    [[nodiscard]] const std::vector<std::shared_ptr<const ModelEntry>>& entries() const {
        return entries_;
    }
    [[nodiscard]] std::vector<ServedModel> models() const;
    /// What the tokenizers together keep on each thread that encodes, in bytes.
    [[nodiscard]] std::size_t bytes_per_thread() const { return bytes_per_thread_; }

    /// OpenAI's list object, aliases and adapters included, and `relayed` ones that are not among
    /// these.
    void append_list_json(std::string& out, std::span<const std::string> relayed = {}) const;
    /// The model object of one whose facts only its own server knows.
    static void append_relayed_json(std::string& out, std::string_view name);
    /// OpenAI's model object for one of its names.
    static void append_model_json(std::string& out, const ModelEntry& entry, std::string_view name);

  private:
    /// Who serves a name.
    struct Name {
        std::string id;
        std::vector<std::shared_ptr<const ModelEntry>> pools;
    };
    void claim(const std::string& name, const std::shared_ptr<const ModelEntry>& entry);
    [[nodiscard]] std::shared_ptr<const ModelEntry> choose(const Name& name) const;

    std::vector<std::shared_ptr<const ModelEntry>> entries_;
    std::map<std::string, Name, std::less<>> names_;
    std::vector<std::string> order_;  ///< names as they were given
    std::size_t bytes_per_thread_ = 0;
    mutable std::atomic<std::uint64_t> turn_{0};
};

}  // namespace stator::frontend
