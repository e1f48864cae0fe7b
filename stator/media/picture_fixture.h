#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stator::media {

// For tests: pictures, and files made of them.

struct Picture {
    std::uint32_t width = 0;
    std::uint32_t height = 0;
    std::string rgb;  ///< rows from the top

    [[nodiscard]] std::array<int, 3> at(std::uint32_t x, std::uint32_t y) const;
};

/// Red grows to the right, green downwards: every corner has a colour of its own.
[[nodiscard]] Picture gradient(std::uint32_t width, std::uint32_t height);

struct JpegStyle {
    int quality = 95;
    bool gray = false;
    bool cmyk = false;
    bool progressive = false;
    unsigned orientation = 0;  ///< EXIF's; 0 = no EXIF
    int scans = 0;             ///< progressive: so many, all but a few without anything new
};
[[nodiscard]] std::string to_jpeg(const Picture& picture, const JpegStyle& style = {});

struct PngStyle {
    enum class Kind : std::uint8_t { kRgb, kRgba, kGray, kGrayAlpha, kPalette, kPaletteAlpha };
    Kind kind = Kind::kRgb;
    int depth = 8;  ///< 8 or 16; of palettes 8
    bool interlaced = false;
    int alpha = 128;  ///< of every pixel, where there is alpha
};
[[nodiscard]] std::string to_png(const Picture& picture, const PngStyle& style = {});
[[nodiscard]] std::string to_webp(const Picture& picture, bool alpha = false);
/// A PNG's chunk with its length and checksum.
[[nodiscard]] std::string png_chunk(std::string_view type, std::string_view data);

[[nodiscard]] std::string to_base64(std::string_view bytes);
[[nodiscard]] std::string to_data_url(std::string_view type, std::string_view bytes);

}  // namespace stator::media
