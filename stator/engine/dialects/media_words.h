#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/base/error.h"
#include "stator/engine/dialects/ec_connector.h"
#include "stator/engine/dialects/request_body.h"
#include "stator/protocol/generate.h"

namespace stator::engine {

/// How an item of media goes through engines of others: what its encode leg has found out travels
/// as the object of a handoff (Handoff::object), beside the pixels, to whoever computes the prompt.

/// What an item becomes in an engine's prompts.
struct MediaWords {
    std::string modality = "image";
    /// The ids that stand in the engine's prompt for it: (id, how often), one behind the other. In
    /// our prompts each of them is a tokens::media_token(). SGLang: its placeholder, as often as
    /// the item has rows; it is given one.
    std::vector<std::pair<protocol::TokenId, std::uint32_t>> runs;
    /// JSON object: where an encoder has left its embeddings; "{}": nowhere.
    std::string params = "{}";
    bool operator==(const MediaWords&) const = default;
};

/// The name of an item with every engine: 64 hex digits of its digest.
[[nodiscard]] std::string media_uuid(const protocol::Digest& digest);
[[nodiscard]] std::string_view modality_of(protocol::MediaContent::Kind kind);

inline constexpr std::size_t kMaxMediaRuns = 4096;

[[nodiscard]] std::string write_media_words(const MediaWords& words);
/// kDataLoss: not what write_media_words() writes.
[[nodiscard]] Result<MediaWords> read_media_words(std::string_view object);
[[nodiscard]] std::uint64_t tokens_of(const MediaWords& words);

/// Of a prompt with one item as the engine renders it: what the item becomes. kDataLoss: there is
/// not exactly one.
[[nodiscard]] Result<MediaWords> words_of(const RenderedPrompt& rendered);

/// The request in the engine's words, but for an item's kwargs: those are in `rendered`, by item,
/// or empty strings. kUnavailable with param "media": items that were not encoded for this engine,
/// so that encoding again may help. kInvalidArgument: rows of media where no item stands.
struct ItemInputs {
    std::string kwargs;
    std::string metadata;
    std::string url;  ///< SGLang
};
[[nodiscard]] Result<BodyMedia> media_body(const protocol::GenerateRequest& request,
                                           Dialect dialect, std::span<const ItemInputs> inputs);

/// SGLang has no words for what an item becomes: it is asked for one token behind the item alone.
/// `around`: ids of a prompt with one placeholder. `half`: an engine that prefills or decodes alone
/// takes nothing without a peer; the one named is the one that SGLang itself pretends with.
void append_count_body(std::string& out, std::span<const protocol::TokenId> around,
                       std::string_view url, std::string_view name, bool half = false);
/// How many ids of the answer's prompt stand for the item. kDataLoss: it does not say.
[[nodiscard]] Result<std::uint32_t> read_count_answer(std::string_view body, std::size_t around);

}  // namespace stator::engine
