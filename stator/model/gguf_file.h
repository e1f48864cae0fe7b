#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "stator/base/error.h"

struct gguf_context;

namespace stator::model {

/// A GGUF file's metadata, read through ggml's reader after the checks that reader and llama.cpp
/// leave out or answer with abort(). Holds no tensor data. Room-internal.
class GgufFile {
  public:
    /// Everything that can be wrong with the file itself; see GgufModel::open() for the codes.
    [[nodiscard]] static Result<GgufFile> open(const std::string& path);

    GgufFile(GgufFile&&) noexcept;
    GgufFile& operator=(GgufFile&&) noexcept;
    ~GgufFile();

    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

    /// Metadata by key; empty where the key is missing or has a value of another kind.
    [[nodiscard]] std::optional<std::string> text(const std::string& key) const;
    [[nodiscard]] std::optional<std::int64_t> integer(const std::string& key) const;
    [[nodiscard]] std::optional<double> number(const std::string& key) const;

    /// Whether the tokenizer is of a kind that text can be generated with, and free of what
    /// llama.cpp would abort() on.
    [[nodiscard]] Result<void> check_tokenizer() const;

    /// kDataLoss where there are tensors, or parts of a split model: what came from elsewhere as a
    /// vocabulary has neither.
    [[nodiscard]] Result<void> check_vocabulary_only() const;

    /// The metadata as a GGUF file of its own, without tensors and without what says how the model
    /// was split. Equal metadata gives equal bytes.
    [[nodiscard]] std::string metadata_only() const;

  private:
    struct Free {
        void operator()(gguf_context* c) const;
    };

    GgufFile() = default;
    [[nodiscard]] Result<void> check_extents() const;
    [[nodiscard]] Result<void> check_parts() const;
    [[nodiscard]] Result<void> check_tokens() const;

    std::string path_;
    std::uint64_t bytes_ = 0;
    std::unique_ptr<gguf_context, Free> gguf_;
};

}  // namespace stator::model
