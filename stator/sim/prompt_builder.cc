#include "stator/sim/prompt_builder.h"

#include <algorithm>

#include "stator/tokens/hash.h"
#include "stator/workload/content.h"

namespace stator::sim {

std::uint32_t PromptBuilder::image_tokens(const workload::ImageSpec& image) {
    constexpr std::uint32_t kPixels = 28;
    return std::max(1U, image.width / kPixels) * std::max(1U, image.height / kPixels);
}

bool PromptBuilder::build(const workload::RequestSpec& spec,
                          std::span<const tokens::TokenId> resumed, const Outputs& outputs,
                          engine::mock::CoreRequest& request) {
    tokens_.clear();
    request.images.clear();
    for (const workload::ImageSpec& image : spec.images) {
        const std::uint32_t n = image_tokens(image);
        request.images.push_back({image.content, static_cast<std::uint32_t>(tokens_.size()), n});
        workload::append_tokens(tokens_, {image.content, n, std::nullopt}, {});
    }
    for (const workload::Segment& segment : spec.prompt) {
        if (segment.output_of) {
            const auto output = outputs(*segment.output_of);
            tokens_.insert(tokens_.end(), output.begin(), output.end());
        } else {
            workload::append_tokens(tokens_, segment, {});
        }
    }
    if (spec.prompt.empty()) {
        // A prompt from a file: four letters to a token, as in English text.
        const std::size_t bytes = std::max(spec.text.size(), spec.messages.size());
        const auto content = std::hash<std::string>{}(spec.text + spec.messages);
        workload::append_tokens(
            tokens_, {content, static_cast<std::uint32_t>(bytes / 4 + 1), std::nullopt}, {});
    }
    tokens_.insert(tokens_.end(), resumed.begin(), resumed.end());

    request.hash_seed = tokens::hash_seed(spec.adapter);
    const std::size_t blocks = tokens_.size() / block_tokens_;
    request.blocks.resize(blocks);
    for (std::size_t i = 0; i < blocks; ++i) {
        const std::span<const tokens::TokenId> block(tokens_.data() + i * block_tokens_,
                                                     block_tokens_);
        const tokens::BlockHash hash = tokens::block_hash(block, request.hash_seed);
        request.blocks[i] = i == 0 ? tokens::sequence_hash(hash)
                                   : tokens::sequence_hash(request.blocks[i - 1], hash);
    }
    request.tail.assign(tokens_.begin() + static_cast<std::ptrdiff_t>(blocks * block_tokens_),
                        tokens_.end());
    return !tokens_.empty();
}

}  // namespace stator::sim
