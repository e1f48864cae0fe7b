#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stator/base/error.h"

namespace stator::engine::llama {

/// The form of llama.cpp's state of one sequence of a unified cache without transposed values
/// (llama_state_seq_get_data; source: llama_kv_cache::state_write of llama.cpp v0.6), all
/// little-endian:
///
///   u32 magic, i32 sequence, u32 streams = 1, u32 cells
///   per cell: i32 position, u32 sequences = 1, [i32 x, i32 y, i32 token], i32 sequence
///   u32 transposed = 0, u32 layers, u32 key rotation, u32 value rotation
///   keys of each layer: i32 type, u64 bytes of a row, rows; then values of each layer likewise
///
/// Learnt from a state that the library itself wrote, so that a state which came from elsewhere can
/// be checked before the library reads it. Pure.
class KvBlobFormat {
  public:
    /// From the state of `cells` cells, at least one. kUnsupported: it is not of this form (models
    /// with sliding windows or recurrent layers, other versions of the library).
    [[nodiscard]] static Result<KvBlobFormat> learn(std::span<const std::byte> state,
                                                    std::uint32_t cells);

    [[nodiscard]] std::uint64_t bytes(std::uint64_t cells) const {
        return fixed_ + cells * per_cell_;
    }
    [[nodiscard]] std::uint64_t bytes_per_cell() const { return per_cell_; }

    /// Empty if `state` holds exactly the positions [first, first + cells), each once, has the size
    /// that follows from it, and agrees in every header with what was learnt; else what is wrong.
    /// The rows themselves are numbers that can't be told from others.
    [[nodiscard]] std::string why_not(std::span<const std::byte> state, std::uint32_t first,
                                      std::uint32_t cells) const;

    /// Two formats with equal text read each other's states: "24x2 128+128 f16…" in figures.
    [[nodiscard]] std::string text() const;

  private:
    struct Rows {
        std::int32_t type = 0;
        std::uint64_t row_bytes = 0;
        bool operator==(const Rows&) const = default;
    };
    static constexpr std::size_t kHead = 16;
    static constexpr std::size_t kMiddle = 16;
    static constexpr std::size_t kRowsHead = 12;

    [[nodiscard]] static std::optional<std::vector<Rows>> sections(std::span<const std::byte> state,
                                                                   std::size_t begin,
                                                                   std::uint64_t cells);

    std::uint32_t magic_ = 0;
    std::size_t cell_bytes_ = 12;
    std::vector<std::byte> middle_;
    std::vector<Rows> rows_;
    std::uint64_t fixed_ = 0;
    std::uint64_t per_cell_ = 0;
};

}  // namespace stator::engine::llama
