#pragma once

#include <string>

#include "stator/base/error.h"
#include "stator/cli/served_engine.h"
#include "stator/config/settings.h"

namespace stator::cli {

/// Tokenizer, chat template, names and sampling defaults from a GGUF file.
[[nodiscard]] Result<void> use_model_file(const std::string& path, const config::Settings& settings,
                                          ServedEngine& out);

/// The same from a Hugging Face folder. `out.facts->path` is the GGUF file in it, if there is one.
[[nodiscard]] Result<void> use_model_folder(const std::string& path,
                                            const config::Settings& settings, ServedEngine& out);

/// Whether ids of `ours` can be given to an engine that reads them as `theirs`: the vocabulary is
/// no longer, and a sample of tokens stands for the same bytes. kInvalidArgument names the first
/// that does not.
[[nodiscard]] Result<void> same_vocabulary(const text::Tokenizer& ours,
                                           const text::Tokenizer& theirs);

/// The same without a model: bytes as tokens, a plain chat template; offered as `id` where the
/// settings give no name.
[[nodiscard]] Result<void> use_byte_tokenizer(const std::string& title, const std::string& id,
                                              const config::Settings& settings, ServedEngine& out);

}  // namespace stator::cli
