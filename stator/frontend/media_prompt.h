#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/generate.h"
#include "stator/tokens/token.h"

namespace stator::frontend {

/// Where a media item stands in a prompt's text tokens: before tokens[at].
struct MediaPlace {
    std::size_t at = 0;
    std::uint32_t item = 0;  ///< of the request's
    bool operator==(const MediaPlace&) const = default;
};

/// A rendered prompt, cut where media stand: texts[0], items[0], texts[1], … texts.back(). Views
/// into it.
struct MediaSplit {
    std::vector<std::string_view> texts;
    std::vector<std::uint32_t> items;
};

/// At each `mark` (not empty): items 0, 1, ….
[[nodiscard]] MediaSplit split_at_mark(std::string_view rendered, std::string_view mark);
/// At each media_mark() (chat_context.h).
[[nodiscard]] MediaSplit split_at_media_marks(std::string_view rendered);
[[nodiscard]] bool names_each_once(const MediaSplit& split, std::size_t items);

/// One item, encoded for one choice.
struct EncodedItem {
    protocol::Digest digest{};
    std::shared_ptr<const protocol::MediaContent> content;
    std::shared_ptr<const protocol::Handoff> embeddings;
};

/// What an encode leg handed over fits the item, and says what it becomes: kInternal otherwise.
[[nodiscard]] Result<void> check_embeddings(const EncodedItem& item);

/// How many tokens a prompt has once its items (indexed by MediaPlace::item) are in it.
[[nodiscard]] std::size_t tokens_with_media(std::size_t text_tokens,
                                            std::span<const EncodedItem> items);

/// A prompt's tokens with the items in their places: their own text tokens, and a media_token() for
/// each row of embeddings. Items are checked (check_embeddings()).
struct PromptWithMedia {
    std::vector<tokens::TokenId> tokens;
    std::vector<protocol::MediaItem> media;  ///< by position
};
[[nodiscard]] PromptWithMedia place_media(std::span<const tokens::TokenId> text,
                                          std::span<const MediaPlace> places,
                                          std::span<const EncodedItem> items);

}  // namespace stator::frontend
