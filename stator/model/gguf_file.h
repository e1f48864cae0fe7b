#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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
    /// Bytes in front of the tensors' data: metadata and tensor table.
    [[nodiscard]] std::uint64_t head_bytes() const;
    [[nodiscard]] std::int64_t tensors() const;
    /// The files that the model is split over, this one first; only itself where it is not split.
    [[nodiscard]] const std::vector<std::string>& parts() const { return parts_; }

    /// A GGUF file of the metadata alone: no tensors, and nothing about parts.
    [[nodiscard]] std::string metadata_file() const;

    /// Metadata by key; empty where the key is missing or has a value of another kind.
    [[nodiscard]] std::optional<std::string> text(const std::string& key) const;
    [[nodiscard]] std::optional<std::int64_t> integer(const std::string& key) const;
    [[nodiscard]] std::optional<double> number(const std::string& key) const;

    /// Whether the tokenizer is of a kind that text can be generated with, and free of what
    /// llama.cpp would abort() on.
    [[nodiscard]] Result<void> check_tokenizer() const;

  private:
    struct Free {
        void operator()(gguf_context* c) const;
    };

    GgufFile() = default;
    [[nodiscard]] Result<void> check_extents() const;
    [[nodiscard]] Result<void> check_parts();
    [[nodiscard]] Result<void> check_tokens() const;

    std::string path_;
    std::uint64_t bytes_ = 0;
    std::vector<std::string> parts_;
    std::unique_ptr<gguf_context, Free> gguf_;
};

}  // namespace stator::model
