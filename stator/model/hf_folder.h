#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/model/gguf_model.h"
#include "stator/text/tokenizer.h"
#include "stator/tokens/token.h"

namespace stator::model {

/// What the small files beside a tokenizer.json say of its use.
struct TokenizerFacts {
    std::vector<tokens::TokenId> end_tokens;  ///< as generation_config.json or config.json has them
    std::string bos;                          ///< texts of special tokens; empty = none
    std::string eos;
    std::optional<bool> add_bos;  ///< unset: what tokenizer.json itself puts in front
    bool operator==(const TokenizerFacts&) const = default;
};

/// A model's folder as Hugging Face lays it out, without weights: config.json, tokenizer.json,
/// tokenizer_config.json, chat_template.jinja, generation_config.json. Read as data: code that such
/// a folder may carry is never run, and no other file is followed.
struct HfFolder {
    ModelFacts facts;
    TokenizerFacts tokenizer;
    std::string tokenizer_json;
    std::string weights_gguf;  ///< the only .gguf file in the folder; empty = none or several

    /// Errors are one sentence fit for a terminal: kNotFound (no folder, or no config.json or
    /// tokenizer.json in it), kInvalidArgument (what is wrong in which file), kTooLarge.
    [[nodiscard]] static Result<HfFolder> read(const std::string& path);
};

struct HfTokenizerOptions;
[[nodiscard]] HfTokenizerOptions options_of(const TokenizerFacts& facts);

/// The folder's tokenizer. Errors as HfTokenizer::load(), with the folder's path.
[[nodiscard]] Result<std::shared_ptr<const text::Tokenizer>> load_tokenizer(const HfFolder& folder);

/// The length a config.json allows prompt and output together: max_position_embeddings (or an older
/// name of it), stretched by rope_scaling where that stretches it. 0 = it does not say.
[[nodiscard]] std::uint32_t context_length(std::string_view config_json);

}  // namespace stator::model
