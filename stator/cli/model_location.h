#pragma once

#include <string>
#include <string_view>

#include "stator/base/error.h"

namespace stator::cli {

/// Where models are kept that nobody named: $STATOR_CACHE/models, else
/// $XDG_CACHE_HOME/stator/models, else
/// ~/.cache/stator/models. Empty where the environment has none of them.
[[nodiscard]] std::string model_folder();

/// The model to serve without --model: default.gguf in the folder, else the only .gguf file in it
/// or in the folders right below it. kNotFound says how to get one, kInvalidArgument that there are
/// several.
[[nodiscard]] Result<std::string> find_default_model(const std::string& folder);

/// A model's name as clients write it: "SmolLM2 135M Instruct" → "smollm2-135m-instruct". Letters
/// and digits, dots, underscores and single dashes; "model" where nothing is left.
[[nodiscard]] std::string served_name(std::string_view name);

}  // namespace stator::cli
