#pragma once

#include <string>

#include "stator/base/error.h"
#include "stator/cli/served_engine.h"
#include "stator/config/settings.h"

namespace stator::cli {

/// Tokenizer, chat template, names and sampling defaults from a GGUF file.
[[nodiscard]] Result<void> use_model_file(const std::string& path, const config::Settings& settings,
                                          ServedEngine& out);

/// The same without a model: bytes as tokens, a plain chat template; offered as `id` where the
/// settings give no name.
[[nodiscard]] Result<void> use_byte_tokenizer(const std::string& title, const std::string& id,
                                              const config::Settings& settings, ServedEngine& out);

}  // namespace stator::cli
