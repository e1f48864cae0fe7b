#pragma once

#include <cstdint>
#include <string>

#include "stator/base/error.h"

namespace stator::engine {

/// A small picture encoder for tests: random weights, the form of a CLIP tower with LLaVA's `mlp`
/// projector, which needs no special tokens of the text model and so fits any.
struct ProjectorShape {
    std::uint32_t text_width = 576;  ///< floats of a row of the text model's embeddings
    std::uint32_t width = 128;
    std::uint32_t layers = 2;
    std::uint32_t heads = 4;
    std::uint32_t image = 112;  ///< side in pixels
    std::uint32_t patch = 14;   ///< 64 rows a picture
    /// Standard deviation of the rows, about: as large as embeddings of tokens are, so that a
    /// picture matters and does not drown all else.
    float scale = 0.1F;
    std::uint32_t seed = 7;
};

/// Writes it as a GGUF file. kUnavailable: it can't be written.
[[nodiscard]] Result<void> write_random_projector(const std::string& path,
                                                  const ProjectorShape& shape);

}  // namespace stator::engine
