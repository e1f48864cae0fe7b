#include <algorithm>
#include <string_view>

#include "stator/media/decode/decode.h"

namespace stator::media::helper {

bool apply_orientation(Decoded& image, unsigned orientation) {
    if (orientation <= 1 || orientation > 8) return true;
    const bool turned = orientation >= 5;  // rows become columns
    const std::size_t width = image.width;
    const std::size_t height = image.height;
    const std::size_t out_width = turned ? height : width;
    const std::size_t out_height = turned ? width : height;
    auto out = allocate(image.pixel_bytes());
    if (!out) return false;
    // Which corner of the file is the picture's top left one (TIFF 6.0, Orientation).
    const bool from_right =
        orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool from_bottom =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    for (std::size_t y = 0; y < out_height; ++y) {
        for (std::size_t x = 0; x < out_width; ++x) {
            std::size_t column = turned ? y : x;
            std::size_t row = turned ? x : y;
            if (from_right) column = width - 1 - column;
            if (from_bottom) row = height - 1 - row;
            std::copy_n(image.pixels.get() + (row * width + column) * 3, 3,
                        out.get() + (y * out_width + x) * 3);
        }
    }
    image.pixels = std::move(out);
    image.width = static_cast<std::uint32_t>(out_width);
    image.height = static_cast<std::uint32_t>(out_height);
    return true;
}

unsigned exif_orientation(Bytes segment) {
    constexpr std::size_t kHead = 6;  // "Exif\0\0"
    if (segment.size() < kHead + 8 ||
        std::string_view(reinterpret_cast<const char*>(segment.data()), kHead) !=
            std::string_view("Exif\0\0", kHead)) {
        return 1;
    }
    const Bytes tiff = segment.subspan(kHead);
    const bool little = tiff[0] == 'I' && tiff[1] == 'I';
    if (!little && !(tiff[0] == 'M' && tiff[1] == 'M')) return 1;
    const auto u16 = [&](std::size_t at) -> unsigned {
        return little ? tiff[at] | tiff[at + 1] << 8U : tiff[at] << 8U | tiff[at + 1];
    };
    const auto u32 = [&](std::size_t at) -> std::size_t {
        return little ? std::size_t{u16(at)} | std::size_t{u16(at + 2)} << 16U
                      : std::size_t{u16(at)} << 16U | u16(at + 2);
    };
    const std::size_t directory = u32(4);
    if (directory > tiff.size() - 2) return 1;
    constexpr unsigned kOrientation = 0x0112;
    constexpr std::size_t kEntry = 12;
    const unsigned entries = u16(directory);
    for (unsigned i = 0; i < entries; ++i) {
        const std::size_t at = directory + 2 + i * kEntry;
        if (at + kEntry > tiff.size()) return 1;
        if (u16(at) == kOrientation) return u16(at + 8);
    }
    return 1;
}

}  // namespace stator::media::helper
