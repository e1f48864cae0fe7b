#include "stator/media/picture_fixture.h"

#include <cstdio>  // jpeglib.h needs it before itself

#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>

namespace stator::media {
namespace {

std::uint8_t byte_at(const std::string& s, std::size_t i) {
    return static_cast<std::uint8_t>(s[i]);
}

std::string exif(unsigned orientation) {
    std::string out("Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", 25);
    out += static_cast<char>(orientation);
    return out + std::string(6, '\0');
}

/// `scans` of them: the usual ones for the first, then the same bit of one coefficient again.
std::vector<jpeg_scan_info> many_scans(int count) {
    std::vector<jpeg_scan_info> out;
    out.push_back({3, {0, 1, 2}, 0, 0, 0, 0});
    for (int c = 0; c < 3; ++c) out.push_back({1, {c}, 1, 63, 0, 0});
    static_cast<void>(count);
    return out;
}

}  // namespace

std::array<int, 3> Picture::at(std::uint32_t x, std::uint32_t y) const {
    const std::size_t i = (std::size_t{y} * width + x) * 3;
    return {byte_at(rgb, i), byte_at(rgb, i + 1), byte_at(rgb, i + 2)};
}

Picture gradient(std::uint32_t width, std::uint32_t height) {
    Picture out{width, height, {}};
    out.rgb.reserve(std::size_t{width} * height * 3);
    for (std::uint32_t y = 0; y < height; ++y) {
        for (std::uint32_t x = 0; x < width; ++x) {
            out.rgb += static_cast<char>(width > 1 ? x * 255 / (width - 1) : 0);
            out.rgb += static_cast<char>(height > 1 ? y * 255 / (height - 1) : 0);
            out.rgb += static_cast<char>(128);
        }
    }
    return out;
}

std::string to_jpeg(const Picture& picture, const JpegStyle& style) {
    jpeg_compress_struct jpeg{};
    jpeg_error_mgr errors{};
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    unsigned char* bytes = nullptr;
    unsigned long size = 0;
    jpeg_mem_dest(&jpeg, &bytes, &size);
    jpeg.image_width = picture.width;
    jpeg.image_height = picture.height;
    jpeg.input_components = style.gray ? 1 : style.cmyk ? 4 : 3;
    jpeg.in_color_space = style.gray ? JCS_GRAYSCALE : style.cmyk ? JCS_CMYK : JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, style.quality, TRUE);
    const std::vector<jpeg_scan_info> scans = many_scans(style.scans);
    if (style.progressive) jpeg_simple_progression(&jpeg);
    if (style.scans > 0) {
        jpeg.scan_info = scans.data();
        jpeg.num_scans = static_cast<int>(scans.size());
    }
    jpeg_start_compress(&jpeg, TRUE);
    if (style.orientation != 0) {
        const std::string app1 = exif(style.orientation);
        jpeg_write_marker(&jpeg, JPEG_APP0 + 1, reinterpret_cast<const JOCTET*>(app1.data()),
                          static_cast<unsigned>(app1.size()));
    }
    std::string row;
    for (std::uint32_t y = 0; y < picture.height; ++y) {
        row.clear();
        for (std::uint32_t x = 0; x < picture.width; ++x) {
            const auto [r, g, b] = picture.at(x, y);
            if (style.gray) {
                row += static_cast<char>(r);
            } else {
                // Adobe's way, as libjpeg writes CMYK with Adobe's marker: inverted, no black.
                row += static_cast<char>(r);
                row += static_cast<char>(g);
                row += static_cast<char>(b);
                if (style.cmyk) row += static_cast<char>(255);
            }
        }
        JSAMPROW rows[1] = {reinterpret_cast<JSAMPROW>(row.data())};
        jpeg_write_scanlines(&jpeg, rows, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    std::string out(reinterpret_cast<const char*>(bytes), size);
    std::free(bytes);
    if (style.scans <= 0) return out;
    // The last scan again and again.
    const std::size_t last = out.rfind("\xFF\xDA");
    const std::string scan = out.substr(last, out.size() - 2 - last);
    std::string more;
    for (int i = static_cast<int>(scans.size()); i < style.scans; ++i) more += scan;
    return out.insert(out.size() - 2, more);
}

std::string to_png(const Picture& picture, const PngStyle& style) {
    using Kind = PngStyle::Kind;
    std::string out;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(
        png, &out,
        [](png_structp p, png_bytep data, png_size_t size) {
            static_cast<std::string*>(png_get_io_ptr(p))
                ->append(reinterpret_cast<char*>(data), size);
        },
        [](png_structp) {});
    const bool palette = style.kind == Kind::kPalette || style.kind == Kind::kPaletteAlpha;
    const bool gray = style.kind == Kind::kGray || style.kind == Kind::kGrayAlpha;
    const bool alpha = style.kind == Kind::kRgba || style.kind == Kind::kGrayAlpha;
    int type = palette ? PNG_COLOR_TYPE_PALETTE : gray ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB;
    if (alpha) type |= PNG_COLOR_MASK_ALPHA;
    png_set_IHDR(png, info, picture.width, picture.height, style.depth, type,
                 style.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    std::array<png_color, 256> colors{};
    for (int i = 0; i < 256; ++i) {
        colors[i] = {static_cast<png_byte>(i), static_cast<png_byte>(255 - i), 7};
    }
    if (palette) png_set_PLTE(png, info, colors.data(), 256);
    std::array<png_byte, 256> transparency{};
    transparency.fill(static_cast<png_byte>(style.alpha));
    if (style.kind == Kind::kPaletteAlpha) {
        png_set_tRNS(png, info, transparency.data(), 256, nullptr);
    }
    png_write_info(png, info);
    std::vector<std::string> rows;
    for (std::uint32_t y = 0; y < picture.height; ++y) {
        std::string& row = rows.emplace_back();
        const auto put = [&](int v) {
            row += static_cast<char>(v);
            if (style.depth == 16) row += static_cast<char>(v);
        };
        for (std::uint32_t x = 0; x < picture.width; ++x) {
            const auto [r, g, b] = picture.at(x, y);
            put(r);
            if (!palette && !gray) put(g);
            if (!palette && !gray) put(b);
            if (alpha) put(style.alpha);
        }
    }
    std::vector<png_bytep> pointers;
    for (std::string& row : rows) pointers.push_back(reinterpret_cast<png_bytep>(row.data()));
    png_write_image(png, pointers.data());
    png_write_end(png, nullptr);
    png_destroy_write_struct(&png, &info);
    return out;
}

std::string to_webp(const Picture& picture, bool alpha) {
    std::uint8_t* bytes = nullptr;
    std::string pixels = picture.rgb;
    if (alpha) {
        pixels.clear();
        for (std::size_t i = 0; i < picture.rgb.size(); i += 3) {
            pixels.append(picture.rgb, i, 3);
            pixels += static_cast<char>(128);
        }
    }
    const auto* data = reinterpret_cast<const std::uint8_t*>(pixels.data());
    const int width = static_cast<int>(picture.width);
    const int height = static_cast<int>(picture.height);
    const std::size_t size = alpha ? WebPEncodeLosslessRGBA(data, width, height, width * 4, &bytes)
                                   : WebPEncodeLosslessRGB(data, width, height, width * 3, &bytes);
    std::string out(reinterpret_cast<const char*>(bytes), size);
    WebPFree(bytes);
    return out;
}

std::string png_chunk(std::string_view type, std::string_view data) {
    const auto number = [](std::uint32_t n) {
        std::string out;
        for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(n >> shift);
        return out;
    };
    const std::string body = std::string(type) + std::string(data);
    const auto sum =
        ::crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
    return number(static_cast<std::uint32_t>(data.size())) + body +
           number(static_cast<std::uint32_t>(sum));
}

std::string to_base64(std::string_view bytes) {
    constexpr std::string_view kAlphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        std::uint32_t bits = 0;
        const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
        for (std::size_t k = 0; k < 3; ++k) {
            bits = bits << 8U | (k < count ? static_cast<std::uint8_t>(bytes[i + k]) : 0U);
        }
        for (std::size_t k = 0; k < 4; ++k) {
            out += k <= count ? kAlphabet[bits >> (18 - 6 * k) & 63U] : '=';
        }
    }
    return out;
}

std::string to_data_url(std::string_view type, std::string_view bytes) {
    return "data:" + std::string(type) + ";base64," + to_base64(bytes);
}

}  // namespace stator::media
