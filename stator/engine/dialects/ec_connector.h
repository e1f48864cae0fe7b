#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/engine/dialects/request_body.h"

namespace stator::engine {

/// How a vLLM that only encodes media hands embeddings to one that computes prompts: by an "EC
/// connector" of its own (ECExampleConnector and later ones). An item is named by its uuid, which
/// must be the same with every engine: the hex text of its digest.

struct EncodeItem {
    std::string_view modality = "image";  ///< "image", "video", "audio"
    std::string_view url;  ///< "data:image/png;base64,…", or what the engine may fetch
    std::string_view uuid;
};
/// Appends the body for POST /v1/chat/completions of an encoder: the item alone, nothing generated.
void append_encode_body(std::string& out, const EncodeItem& item, const DialectOptions& options,
                        std::string_view name);

/// What an encoder has said of one item.
struct EncodedItem {
    std::string uuid;
    /// JSON object: where its embeddings are, in the connector's words. "{}": in a store that both
    /// engines look in, as with versions that say nothing.
    std::string params;
    /// JSON object, of which the other engines learn the item's size in the prompt, so that they
    /// need no pixels ({"image_grid_thw":[1,4,6]}). Empty: they need the pixels.
    std::string metadata;
};
/// Of the whole answer (200). kDataLoss: no answer of an encoder, or one about other items.
[[nodiscard]] Result<EncodedItem> read_encode_answer(std::string_view body, std::string_view uuid);

/// The value of `ec_transfer_params` of a request with these items: one key for each of which an
/// encoder has said something.
[[nodiscard]] std::string ec_transfer_params(std::span<const EncodedItem> items);

/// A part of a chat message in the item's place: {"type":"image_embeds",…}. Has metadata.
[[nodiscard]] std::string embeds_part(std::string_view modality, const EncodedItem& item);

/// An item in a prompt of tokens.
struct PlacedItem {
    std::string uuid;
    std::uint32_t offset = 0;  ///< of its first token, all of which are its placeholder
    std::uint32_t length = 0;
    std::string kwargs;  ///< base64, as a render server gives it; empty: a decode leg needs none
    std::string metadata = {};  ///< of mm_metadata, base64 too; empty: older servers give none
    std::string modality = "image";
};
/// The value of `features` of POST /inference/v1/generate, items of each modality in order. Those
/// who compute the prompt need every item's kwargs; those who decode none.
[[nodiscard]] std::string features_of(std::span<const PlacedItem> items);

/// A chat request or a prompt of items of one modality as a render server (POST
/// /v1/chat/completions/render) gives it.
struct RenderedPrompt {
    std::vector<protocol::TokenId> tokens;
    std::vector<PlacedItem> items;
};
/// kDataLoss: not such an answer, or items that are not within the prompt, one behind the other.
[[nodiscard]] Result<RenderedPrompt> read_rendered(std::string_view body,
                                                   std::string_view modality);

}  // namespace stator::engine
