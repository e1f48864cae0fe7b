#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/generate.h"

namespace stator::engine::llama {

/// Layout of embeddings in rows of so many floats, before the encoder's name: "f32:<width>:".
[[nodiscard]] std::string embeddings_layout_prefix(std::uint32_t width);

/// Where the rows of embeddings lie that a prompt's media tokens stand for. The bytes are those of
/// the request's media, which must be kept.
class MediaRows {
  public:
    MediaRows() = default;
    /// `request` passed check_media() or drop_unusable_media(); items whose embeddings have not
    /// arrived have no rows.
    explicit MediaRows(const protocol::GenerateRequest& request);

    /// Of the prompt's token at `position`; null if there is none.
    [[nodiscard]] const std::byte* at(std::uint32_t position) const;

  private:
    std::vector<std::uint32_t> positions_;  ///< ascending
    std::vector<const std::byte*> rows_;
};

/// Media tokens stand in the prompt only inside of items, and there as media_token(digest, 0), (…,
/// 1) and so on; all other tokens are below `vocab_size`. kInvalidArgument, param "prompt" or
/// "media".
[[nodiscard]] Result<void> check_prompt(const protocol::GenerateRequest& request,
                                        std::uint32_t vocab_size);

/// Every item's embeddings have arrived, as many rows of `width` floats as it has media tokens, and
/// are of its picture. kUnavailable, retryable, param "media".
[[nodiscard]] Result<void> check_media(const protocol::GenerateRequest& request,
                                       std::uint32_t width);

/// Where that is no matter (a decode leg whose KV has come): embeddings that could not be used are
/// taken out of the request.
void drop_unusable_media(protocol::GenerateRequest& request, std::uint32_t width);

}  // namespace stator::engine::llama
