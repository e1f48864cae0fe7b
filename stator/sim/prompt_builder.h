#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "stator/engine/mock/core.h"
#include "stator/tokens/token.h"
#include "stator/workload/request_spec.h"

namespace stator::sim {

/// Makes the prompt that an engine sees: whole blocks by name and the tokens after them. Images
/// come first, as tokens of their content. Holds scratch memory; not thread-safe.
class PromptBuilder {
  public:
    explicit PromptBuilder(std::uint32_t block_tokens) : block_tokens_(block_tokens) {}

    /// The output of an earlier request, by its index; empty where it has none.
    using Outputs = std::function<std::span<const tokens::TokenId>(std::uint64_t)>;

    /// Fills blocks, tail, hash_seed and images. `resumed` are tokens to append: output of this
    /// very request that came from a worker that is lost. False: the prompt is empty.
    bool build(const workload::RequestSpec& spec, std::span<const tokens::TokenId> resumed,
               const Outputs& outputs, engine::mock::CoreRequest& request);

    /// Tokens that a picture takes in a prompt: one for each 28 by 28 pixels, as in Qwen2-VL
    /// (14-pixel patches, merged two by two).
    [[nodiscard]] static std::uint32_t image_tokens(const workload::ImageSpec& image);

  private:
    std::uint32_t block_tokens_;
    std::vector<tokens::TokenId> tokens_;
};

}  // namespace stator::sim
