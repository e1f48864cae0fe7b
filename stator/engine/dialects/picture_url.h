#pragma once

#include <string>
#include <string_view>

#include "stator/protocol/handoff.h"

namespace stator::engine {

/// Pixels as an engine takes them: a picture as "data:image/png;base64,…", a video as its frames
/// behind "data:video/jpeg;base64,", with commas between them, which vLLM reads. The PNGs are not
/// compressed: what is sent to a neighbour is unpacked at once.
[[nodiscard]] std::string picture_url(const protocol::MediaContent& content);

/// A PNG of 8-bit RGB (PNG 1.2, RFC 2083), its rows in stored blocks (RFC 1951, 3.2.4). `rgb` has
/// width * height * 3 bytes.
[[nodiscard]] std::string plain_png(std::uint32_t width, std::uint32_t height,
                                    std::string_view rgb);

/// RFC 4648, with padding.
void append_base64(std::string& out, std::string_view bytes);

}  // namespace stator::engine
