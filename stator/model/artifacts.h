#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/model/gguf_model.h"
#include "stator/model/hf_folder.h"
#include "stator/protocol/worker_info.h"
#include "stator/text/chat_template.h"
#include "stator/text/tokenizer.h"

namespace stator::model {

/// The vocabulary of a GGUF file as a GGUF file of its own: the metadata, no tensors. Equal models
/// give equal bytes. Errors as GgufModel::open().
[[nodiscard]] Result<std::string> vocabulary_artifact(const std::string& gguf_path);

/// "sha256-sample:<64 hex>": digest over the file's size, its first 16 MiB (mostly all metadata and
/// the tensor table) and 256 samples of 4 KiB spread over the rest, up to the last byte; of a split
/// model over all its files. Takes milliseconds for any size; equal files give equal digests.
[[nodiscard]] Result<std::string> weights_digest(const std::string& gguf_path);

/// The text side of a model, made from what a worker hands out: no model file is needed.
struct TextModel {
    std::shared_ptr<const text::Tokenizer> tokenizer;
    std::shared_ptr<const text::ChatTemplate> chat_template;  ///< null: none
};

/// `tokenizer`: the artifact's bytes, of kind "gguf-vocabulary", "hf-tokenizer" or
/// "byte-tokenizer";
/// `chat_template` of kind "chat-template": a JSON object {"template":…,"bos":…,"eos":…}; empty =
/// none. Bytes are untrusted: read as data, within limits (256 MiB, 129 MiB, 1 MiB, 4 MiB by the
/// kinds' order; kTooLarge). kDataLoss: not what the card says, or damaged. `scratch_folder`: where
/// a vocabulary may be put for llama.cpp to read where there are no files in memory (0700; it is
/// removed again). kUnsupported names an unknown kind.
[[nodiscard]] Result<TextModel> load_text_model(const protocol::ModelCard& card,
                                                std::string_view tokenizer,
                                                std::string_view chat_template,
                                                const std::string& scratch_folder);

/// The artifact bytes of a byte tokenizer with these special texts in the order of their ids (the
/// end token's, which all have, is left out), and of a chat template.
[[nodiscard]] std::string byte_tokenizer_artifact(const std::vector<std::string>& special_texts);
/// … and of a tokenizer.json with what is known of its use beside it: a line of JSON, then the
/// file.
[[nodiscard]] std::string hf_tokenizer_artifact(const TokenizerFacts& facts,
                                                std::string_view tokenizer_json);
[[nodiscard]] std::string chat_template_artifact(std::string_view source, std::string_view bos,
                                                 std::string_view eos);

/// Files by digest in one folder, shared by processes: written at once (temporary file, rename),
/// checked when read, the oldest forgotten over `max_bytes`. Thread-safe.
class ArtifactCache {
  public:
    ArtifactCache(std::string folder, std::uint64_t max_bytes);
    /// nullopt: not there, or not what its name says (then it is removed).
    [[nodiscard]] std::optional<std::string> find(const protocol::Artifact& artifact) const;
    /// kDataLoss where the bytes do not have the digest; else best effort: a full disk is logged.
    [[nodiscard]] Result<void> put(const protocol::Artifact& artifact, std::string_view bytes);

  private:
    std::string folder_;
    std::uint64_t max_bytes_;
    std::atomic<bool> warned_ = false;  ///< a disk that takes no files is logged once
};

}  // namespace stator::model
