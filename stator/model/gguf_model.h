#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "stator/base/error.h"
#include "stator/text/chat_template.h"
#include "stator/text/tokenizer.h"

namespace stator::model {

/// What a GGUF file says about its model, without the weights.
struct ModelFacts {
    std::string path;
    std::string name;  ///< general.name, or the file's name without ".gguf"
    std::string architecture;
    std::uint32_t context_tokens = 0;  ///< what it was trained for
    std::uint32_t vocab_size = 0;
    std::uint64_t file_bytes = 0;
    std::string chat_template;  ///< Jinja source; empty where the file has none
    std::string bos;            ///< as text; empty where the model has none
    std::string eos;
    std::optional<float>
        temperature;  ///< recommended sampling, where the file states it (general.sampling.*)
    std::optional<float> top_p;
    std::optional<std::int32_t> top_k;
    std::optional<float> min_p;
};

/// A model's vocabulary and template, read once, without its weights. Thread-safe, immutable.
class GgufModel {
  public:
    /// Errors are one sentence fit for a terminal: kNotFound, kInvalidArgument (not GGUF,
    /// unsupported version or architecture), kDataLoss (truncated).
    [[nodiscard]] static Result<std::shared_ptr<const GgufModel>> open(const std::string& path);
    virtual ~GgufModel() = default;

    [[nodiscard]] virtual const ModelFacts& facts() const = 0;
    [[nodiscard]] virtual const text::Tokenizer& tokenizer() const = 0;
};

}  // namespace stator::model
