#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "stator/media/helper_protocol.h"

// The helpers' inside. It needs nothing of the other rooms: what runs in the sandbox is this, the
// codec libraries and the C library.
namespace stator::media::helper {

using Bytes = std::span<const std::uint8_t>;

/// An outcome, and with kOk the pixels: RGB, 8 bits, rows from the top, frame after frame.
struct Decoded {
    Outcome outcome = Outcome::kBroken;
    std::uint32_t width = 0;
    std::uint32_t height = 0;
    std::uint32_t frames = 1;
    std::vector<std::uint32_t> frame_ms;
    std::unique_ptr<std::uint8_t[]> pixels;

    [[nodiscard]] std::uint64_t pixel_bytes() const {
        return std::uint64_t{width} * height * 3 * frames;
    }
};

inline Decoded failed(Outcome outcome) {
    Decoded out;
    out.outcome = outcome;
    return out;
}

/// kOk, or kTooManyPixels with the numbers, or kBroken for an empty picture. Before anything is
/// allocated.
inline Decoded check_size(std::uint64_t width, std::uint64_t height, const Limits& limits) {
    Decoded out;
    out.width = static_cast<std::uint32_t>(width);
    out.height = static_cast<std::uint32_t>(height);
    if (width == 0 || height == 0) return failed(Outcome::kBroken);
    const bool fits = width <= limits.max_side && height <= limits.max_side &&
                      width * height <= limits.max_pixels && width * height * 3 <= limits.max_bytes;
    out.outcome = fits ? Outcome::kOk : Outcome::kTooManyPixels;
    return out;
}

/// Null where memory is short.
inline std::unique_ptr<std::uint8_t[]> allocate(std::uint64_t bytes) {
    return std::unique_ptr<std::uint8_t[]>(new (std::nothrow) std::uint8_t[bytes]);
}

/// `count` pixels of RGBA over white to RGB; `to` may be `from`.
void over_white(const std::uint8_t* from, std::uint8_t* to, std::size_t count);

/// By its first bytes: JPEG, PNG or WebP; a JPEG's EXIF orientation is applied, colour profiles are
/// not. kUnknownType for all else.
[[nodiscard]] Decoded decode_image(Bytes bytes, const Limits& limits);

[[nodiscard]] Decoded decode_jpeg(Bytes bytes, const Limits& limits);
[[nodiscard]] Decoded decode_png(Bytes bytes, const Limits& limits);
[[nodiscard]] Decoded decode_webp(Bytes bytes, const Limits& limits);

/// Turns and mirrors pixels as EXIF's orientation (1 to 8) asks for. False where memory is short.
[[nodiscard]] bool apply_orientation(Decoded& image, unsigned orientation);

/// Of an APP1 segment's content ("Exif\0\0…"); 1 where it says nothing.
[[nodiscard]] unsigned exif_orientation(Bytes segment);

}  // namespace stator::media::helper
