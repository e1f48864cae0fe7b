#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "stator/base/clock.h"
#include "stator/tokens/token.h"

namespace stator::protocol {

/// SHA-256.
using Digest = std::array<std::uint8_t, 32>;

/// Which part of a request a rank computes.
enum class Leg : std::uint8_t {
    kWhole = 1,
    kPrefill,  ///< the prompt but its last token; ends with kHandoff and no token
    kDecode,   ///< from the KV that a prefill leg left: the prompt's last token, then all output
    kEncode,   ///< one media item; ends with kHandoff and no token
};
std::string_view to_string(Leg leg);

/// Drawn at random: who knows it may claim the handoff.
using HandoffId = std::array<std::uint8_t, 16>;

/// KV of the prompt's positions [first, first + tokens), or rows of embeddings.
struct HandoffPart {
    std::uint32_t first = 0;
    std::uint32_t tokens = 0;
    std::uint64_t offset = 0;  ///< in the handoff's bytes
    std::uint64_t bytes = 0;
    bool operator==(const HandoffPart&) const = default;
};

/// A way to the bytes.
struct TransferPlace {
    std::string method;   ///< "shm", "tcp", "nixl"
    std::string address;  ///< in that backend's own form; at most kMaxPlaceBytes
    bool operator==(const TransferPlace&) const = default;
};

/// What a media item becomes in a prompt, in order: tokens of the vocabulary that the model wants
/// around it, and places for rows of its embeddings.
struct MediaPiece {
    std::vector<tokens::TokenId> text;  ///< empty: `rows` of embeddings
    std::uint32_t rows = 0;
    bool operator==(const MediaPiece&) const = default;
};

/// Bytes that one leg has made and another one needs: not they themselves, but what they are and
/// where they lie. Ends exactly once: claimed, released or expired. Passed on by frontends as it is
/// and never taken from a client.
struct Handoff {
    enum class Kind : std::uint8_t { kKv = 1, kEmbeddings };
    Kind kind = Kind::kKv;
    HandoffId id{};
    std::uint64_t bytes = 0;
    /// Both sides must agree on it: ModelCard::kv_layout, or of embeddings their type and width.
    std::string layout;
    /// kKv: kv_content() of what was computed. kEmbeddings: the item's digest.
    Digest content{};
    std::uint32_t tokens = 0;        ///< positions that it covers, or rows
    std::vector<HandoffPart> parts;  ///< in order, without gaps; each can be claimed by itself
    std::vector<MediaPiece> pieces;  ///< kEmbeddings
    std::string shape;               ///< the engine's own facts for the engine at the other end
    std::vector<TransferPlace> places;
    /// What an engine of others keeps and its peer fetches by itself: what the one has said of it
    /// for the other, a JSON object in the words of `layout` ("vllm/nixl"). Then there are no
    /// bytes, parts or places here, and nothing is claimed: who is given it has it. Embeddings of
    /// this kind can be taken any number of times, and the item's content travels beside them.
    std::string object = {};
    /// With `object`: its prompt is still being computed, and its KV follows as it comes.
    bool early = false;
    Deadline expires;  ///< travels as what is left of it
};

inline constexpr std::size_t kMaxPlaceBytes = 4096;
inline constexpr std::size_t kMaxPlaces = 8;
inline constexpr std::size_t kMaxHandoffParts = 4096;
inline constexpr std::size_t kMaxMediaPieces = 256;
inline constexpr std::size_t kMaxShapeBytes = 16 * 1024;
inline constexpr std::size_t kMaxObjectBytes = 192 * 1024;

/// Names what KV stands for: SHA-256 over the salt (u64) and the tokens (u32), little-endian.
/// Tokens of media are tokens::media_token()s, so that the items are named with them.
[[nodiscard]] Digest kv_content(std::span<const tokens::TokenId> prompt, std::uint64_t salt);

/// A handoff's bytes where they have arrived, and as long as this lives. Never leaves the process.
struct HandoffBytes {
    std::shared_ptr<const Handoff> what;
    /// By part; those that were not claimed are empty.
    std::vector<std::span<const std::byte>> parts;
    std::shared_ptr<const void> keep;
};

/// A decoded picture, or the frames of a video one behind the other: 8-bit RGB, rows from the top.
struct MediaContent {
    enum class Kind : std::uint8_t { kImage = 1, kVideo };
    Kind kind = Kind::kImage;
    std::uint32_t width = 0;
    std::uint32_t height = 0;
    std::uint32_t frames = 1;
    /// Of a video: its frames' times in milliseconds, by frame.
    std::vector<std::uint32_t> frame_ms;
    std::string pixels;  ///< frames * height * width * 3 bytes
    bool operator==(const MediaContent&) const = default;
};

/// A media item of a request. Names: `digest` is of the decoded content (media::content_digest), so
/// that one picture has one name, however it came.
struct MediaItem {
    Digest digest{};
    std::uint32_t position = 0;  ///< of its first token in the prompt
    std::uint32_t tokens = 0;    ///< that it takes there, all pieces
    /// Of an encode leg, and beside embeddings that are an engine's own (Handoff::object); else
    /// perhaps null.
    std::shared_ptr<const MediaContent> content = nullptr;
    std::shared_ptr<const Handoff> embeddings = nullptr;    ///< null in an encode leg
    std::shared_ptr<const HandoffBytes> arrived = nullptr;  ///< where the prompt is computed
};

inline constexpr std::size_t kMaxMediaItems = 64;

}  // namespace stator::protocol
