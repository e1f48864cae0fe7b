#pragma once

#include <cstdint>
#include <string_view>

#include "stator/protocol/handoff.h"

namespace stator::media {

/// Names a decoded item: SHA-256 over kind (u32), width, height, frames, the number of frame times
/// and each of them (u32, little-endian), then the pixels. So one picture has one name, however it
/// came.
[[nodiscard]] protocol::Digest content_digest(const protocol::MediaContent& content);

/// Names what a client sent: SHA-256 over kind, `limit` (frames of a video; u32, little-endian) and
/// the compressed bytes.
[[nodiscard]] protocol::Digest source_digest(protocol::MediaContent::Kind kind, std::uint32_t limit,
                                             std::string_view bytes);

}  // namespace stator::media
