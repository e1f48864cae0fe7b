#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/frontend/frontend.h"
#include "stator/frontend/sampling_fields.h"
#include "stator/text/special_guard.h"

namespace stator::frontend {

/// A served model with what is worked out once.
struct ModelEntry {
    explicit ModelEntry(ServedModel m);

    ServedModel model;
    text::SpecialGuard guard;
    std::size_t longest_token_bytes = 1;  ///< of all tokens: bounds tokens from below by bytes

    [[nodiscard]] std::uint32_t context_tokens() const {
        return model.engine->info().context_tokens;
    }
    [[nodiscard]] RequestRules rules(std::uint32_t max_choices) const;
};

/// The models behind the door, by id and alias. Filled at start, then read from any thread.
class ModelDirectory {
  public:
    /// Tokenizer and engine must be there, names must be new (STATOR_CHECK).
    const ModelEntry& add(ServedModel model);

    /// nullptr where there is none of that name.
    [[nodiscard]] const ModelEntry* find(std::string_view name) const;
    /// The same, with an error that lists what there is.
    [[nodiscard]] Result<const ModelEntry*> require(std::string_view name) const;

    [[nodiscard]] const std::deque<ModelEntry>& entries() const { return entries_; }

    /// OpenAI's list object, aliases included.
    void append_list_json(std::string& out) const;
    /// OpenAI's model object for one of its names.
    static void append_model_json(std::string& out, const ModelEntry& entry, std::string_view name);

  private:
    std::deque<ModelEntry> entries_;  ///< stable addresses
};

}  // namespace stator::frontend
