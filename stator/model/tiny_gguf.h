#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

struct gguf_context;

namespace stator::model {

/// Small GGUF files for tests: a vocabulary and one tensor, no model. The source is
/// tiny_gguf_test.cc, so that none of it is in the program.

/// A folder of its own that is removed at the end.
class TemporaryFolder {
  public:
    TemporaryFolder();
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    [[nodiscard]] std::string file(const std::string& name) const;

  private:
    std::filesystem::path path_;
};

/// Called before writing, to change metadata.
using ChangeGguf = std::function<void(gguf_context*)>;

/// Byte-level BPE: the 256 bytes, the merges of "hello" and " w", then <|im_start|>, <|im_end|>
/// (end), <｜User｜> (an ordinary added token that looks like a mark) and <think> (one that does
/// not).
void write_bpe_gguf(const std::string& path, const ChangeGguf& change = {});
constexpr std::uint32_t kBpeHello = 256 + 3;
constexpr std::uint32_t kBpeStart = 256 + 5;

/// SentencePiece: <unk>, <s>, </s>, the 256 bytes, a few letters and words that begin with a space.
void write_spm_gguf(const std::string& path);

[[nodiscard]] std::string read_file(const std::string& path);
void write_file(const std::string& path, std::string_view bytes);

}  // namespace stator::model
