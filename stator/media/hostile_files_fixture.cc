#include "stator/media/hostile_files_fixture.h"

#include <zlib.h>

#include <cstdint>

#include "stator/media/picture_fixture.h"

namespace stator::media {
namespace {

std::string big_endian(std::uint32_t n) {
    std::string out;
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(n >> shift);
    return out;
}

std::string deflated(const std::string& bytes) {
    uLongf size = ::compressBound(bytes.size());
    std::string out(size, '\0');
    ::compress2(reinterpret_cast<Bytef*>(out.data()), &size,
                reinterpret_cast<const Bytef*>(bytes.data()), bytes.size(), 9);
    out.resize(size);
    return out;
}

const std::string kPngMagic("\x89PNG\r\n\x1A\n", 8);

/// 8-bit RGB.
std::string png_head(std::uint32_t width, std::uint32_t height) {
    return kPngMagic + png_chunk("IHDR", big_endian(width) + big_endian(height) +
                                             std::string("\x08\x02\0\0\0", 5));
}

/// Something between a whole PNG's head and its pixels.
std::string with_chunks(const std::string& chunks) {
    std::string out = to_png(gradient(16, 16));
    return out.insert(kPngMagic.size() + 25, chunks);
}

std::string jpeg_of_size(std::uint16_t width, std::uint16_t height) {
    std::string out = to_jpeg(gradient(16, 16));
    const std::size_t frame = out.find("\xFF\xC0");
    const auto put = [&](std::size_t at, std::uint16_t v) {
        out[frame + at] = static_cast<char>(v >> 8U);
        out[frame + at + 1] = static_cast<char>(v);
    };
    put(5, height);
    put(7, width);
    return out;
}

/// The first frame of a lossless WebP says its size in 14 bits each, from the sixth byte on.
std::string huge_webp() {
    std::string out = to_webp(gradient(16, 16));
    const std::size_t at = out.find("VP8L") + 9;
    out[at] = out[at + 1] = out[at + 2] = '\xFF';
    out[at + 3] = static_cast<char>(out[at + 3] | 0x0F);
    return out;
}

std::string animated_webp() {
    const auto little = [](std::uint32_t n, int bytes) {
        std::string out;
        for (int i = 0; i < bytes; ++i) out += static_cast<char>(n >> (8 * i));
        return out;
    };
    const auto chunk = [&](const std::string& name, const std::string& data) {
        return name + little(static_cast<std::uint32_t>(data.size()), 4) + data;
    };
    const std::string inner = to_webp(gradient(16, 16)).substr(12);
    std::string body =
        "WEBP" + chunk("VP8X", std::string("\x02\0\0\0", 4) + little(15, 3) + little(15, 3));
    body += chunk("ANIM", std::string(6, '\0'));
    const std::string frame = little(0, 3) + little(0, 3) + little(15, 3) + little(15, 3) +
                              little(100, 3) + std::string(1, '\0') + inner;
    for (int i = 0; i < 3; ++i) body += chunk("ANMF", frame);
    return "RIFF" + little(static_cast<std::uint32_t>(body.size()), 4) + body;
}

std::string repeated(const std::string& text, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += text;
    return out;
}

/// 12 MB of white pixels in 12 KB.
std::string bomb_png() {
    constexpr std::uint32_t kSide = 2000;
    std::string rows;
    for (std::uint32_t y = 0; y < kSide; ++y)
        rows += std::string(1, '\0') + std::string(kSide * 3, '\xFF');
    return png_head(kSide, kSide) + png_chunk("IDAT", deflated(rows)) + png_chunk("IEND", {});
}

std::string png_file(std::string_view name) {
    const bool needs_bomb = name == "text_bomb_png" || name == "profile_bomb_png";
    const std::string bomb = needs_bomb ? deflated(std::string(20'000'000, 'A')) : std::string();
    if (name == "png_and_more") return to_png(gradient(9, 9)) + std::string(100'000, 'x');
    if (name == "half_png") return to_png(gradient(99, 99)).substr(0, 300);
    if (name == "huge_png") return png_head(60'000, 60'000) + png_chunk("IDAT", deflated("x"));
    if (name == "wide_png") return png_head(0x7FFFFFFF, 1) + png_chunk("IDAT", deflated("x"));
    if (name == "flat_png") return png_head(0, 16) + png_chunk("IDAT", deflated("x"));
    if (name == "bomb_png") return bomb_png();
    if (name == "text_bomb_png") {
        return with_chunks(png_chunk("zTXt", std::string("a\0\0", 3) + bomb));
    }
    if (name == "profile_bomb_png") {
        return with_chunks(png_chunk("iCCP", std::string("a\0\0", 3) + bomb));
    }
    if (name == "many_chunks_png") return with_chunks(repeated(png_chunk("xyZa", "1234"), 100'000));
    if (name == "bad_crc_png") {
        std::string out = to_png(gradient(99, 99));
        const std::size_t data = out.find("IDAT");
        out[data + 60] = static_cast<char>(out[data + 60] ^ 0x55);
        return out;
    }
    return {};
}

}  // namespace

std::string hostile_file(std::string_view name) {
    if (name == "jpeg") return to_jpeg(gradient(16, 16));
    if (name == "many_jpegs") return repeated(to_jpeg(gradient(16, 16)), 3000);
    if (name == "half_jpeg") {
        const std::string whole = to_jpeg(gradient(99, 99));
        return whole.substr(0, whole.size() / 2);
    }
    if (name == "half_webp") {
        const std::string whole = to_webp(gradient(99, 99));
        return whole.substr(0, whole.size() / 2);
    }
    if (name == "jpeg_magic") return "\xFF\xD8\xFF\xE0";
    if (name == "huge_jpeg") return jpeg_of_size(65'500, 65'500);
    if (name == "flat_jpeg") return jpeg_of_size(0, 16);
    if (name == "huge_webp") return huge_webp();
    if (name == "animated_webp") return animated_webp();
    if (name == "many_scans_jpeg") {
        return to_jpeg(gradient(64, 64), {.progressive = true, .scans = 5000});
    }
    if (name == "gif") return "GIF89a\x01" + std::string(30, '\0');
    if (name == "tiff") return std::string("II*\0\x08\0\0\0", 8) + std::string(30, '\0');
    if (name == "svg")
        return "<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>";
    if (name == "html") return "<!doctype html><p>hello";
    if (name == "elf")
        return "\x7F"
               "ELF" +
               std::string(60, '\0');
    if (name == "zeros") return std::string(1000, '\0');
    if (name == "avi") return std::string("RIFF\x10\0\0\0AVI LIST", 16) + std::string(100, '\0');
    return png_file(name);
}

}  // namespace stator::media
