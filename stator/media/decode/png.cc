#include <png.h>

#include <csetjmp>
#include <cstring>

#include "stator/media/decode/decode.h"

namespace stator::media::helper {
namespace {

constexpr png_uint_32 kMaxChunks = 1'000;  // ancillary ones that are kept
constexpr png_alloc_size_t kMaxChunkBytes = 1024 * 1024;
/// Chunks that may hold compressed or long things and say nothing of the pixels that counts here.
constexpr char kSkipped[] =
    "iCCP\0iTXt\0tEXt\0zTXt\0eXIf\0sPLT\0hIST\0sCAL\0pCAL\0tIME\0oFFs\0pHYs\0gAMA\0cHRM\0sRGB";
constexpr int kSkippedCount = sizeof kSkipped / 5;

/// libpng leaves by longjmp(): what must be destroyed is its caller's caller's.
struct Reader {
    png_structp png = nullptr;
    png_infop info = nullptr;
    Bytes left;
};

void on_read(png_structp png, png_bytep to, png_size_t count) {
    auto* reader = static_cast<Reader*>(png_get_io_ptr(png));
    if (count > reader->left.size()) png_error(png, "cut short");
    std::memcpy(to, reader->left.data(), count);
    reader->left = reader->left.subspan(count);
}

/// Every kind of PNG becomes 8-bit RGBA, or RGB where nothing is see-through.
void ask_for_rgb(png_structp png, png_infop info) {
    const auto type = png_get_color_type(png, info);
    const bool transparent =
        (type & PNG_COLOR_MASK_ALPHA) != 0 || png_get_valid(png, info, PNG_INFO_tRNS) != 0;
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    if (!transparent) png_set_strip_alpha(png);
}

void read_interlaced(Reader& reader, Decoded& out, std::size_t row_bytes, int passes) {
    for (int pass = 0; pass < passes; ++pass) {
        for (std::size_t y = 0; y < out.height; ++y) {
            png_read_row(reader.png, out.pixels.get() + y * row_bytes, nullptr);
        }
    }
}

void read_rows(Reader& reader, Decoded& out, std::unique_ptr<std::uint8_t[]>& row) {
    for (std::size_t y = 0; y < out.height; ++y) {
        std::uint8_t* to = out.pixels.get() + y * out.width * 3;
        png_read_row(reader.png, row ? row.get() : to, nullptr);
        if (row) over_white(row.get(), to, out.width);
    }
}

void read_pixels(Reader& reader, Decoded& out, std::unique_ptr<std::uint8_t[]>& row) {
    ask_for_rgb(reader.png, reader.info);
    const int passes = png_set_interlace_handling(reader.png);
    png_read_update_info(reader.png, reader.info);
    const std::size_t channels = png_get_channels(reader.png, reader.info);
    const std::size_t row_bytes = png_get_rowbytes(reader.png, reader.info);
    if ((channels != 3 && channels != 4) || row_bytes != out.width * channels) {
        png_error(reader.png, "not what was asked for");
    }
    const bool whole = passes > 1;
    out.pixels = allocate(whole ? row_bytes * out.height : out.pixel_bytes());
    if (!whole && channels == 4) row = allocate(row_bytes);
    if (!out.pixels || (!whole && channels == 4 && !row)) {
        out.outcome = Outcome::kNoMemory;
        return;
    }
    if (!whole) return read_rows(reader, out, row);
    read_interlaced(reader, out, row_bytes, passes);
    if (channels == 4) {
        over_white(out.pixels.get(), out.pixels.get(), std::size_t{out.width} * out.height);
    }
}

/// False: libpng left.
[[gnu::noinline]] bool decode(Reader& reader, const Limits& limits, Decoded& out,
                              std::unique_ptr<std::uint8_t[]>& row) {
    if (setjmp(png_jmpbuf(reader.png)) != 0) return false;
    png_set_read_fn(reader.png, &reader, on_read);
    // The size is checked here, with its numbers.
    png_set_user_limits(reader.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_chunk_cache_max(reader.png, kMaxChunks);
    png_set_chunk_malloc_max(reader.png, kMaxChunkBytes);
    png_set_keep_unknown_chunks(reader.png, PNG_HANDLE_CHUNK_NEVER,
                                reinterpret_cast<png_const_bytep>(kSkipped), kSkippedCount);
    png_read_info(reader.png, reader.info);
    out = check_size(png_get_image_width(reader.png, reader.info),
                     png_get_image_height(reader.png, reader.info), limits);
    if (out.outcome == Outcome::kOk) read_pixels(reader, out, row);
    return true;
}

}  // namespace

Decoded decode_png(Bytes bytes, const Limits& limits) {
    Reader reader{.png = nullptr, .info = nullptr, .left = bytes};
    Decoded out;
    std::unique_ptr<std::uint8_t[]> row;
    reader.png = png_create_read_struct(
        PNG_LIBPNG_VER_STRING, nullptr,
        [](png_structp png, png_const_charp) { png_longjmp(png, 1); },
        [](png_structp, png_const_charp) {});
    if (reader.png != nullptr) reader.info = png_create_info_struct(reader.png);
    const bool memory = reader.info != nullptr;
    const bool whole = memory && decode(reader, limits, out, row);
    png_destroy_read_struct(&reader.png, &reader.info, nullptr);
    if (!memory || out.outcome == Outcome::kNoMemory) return failed(Outcome::kNoMemory);
    if (!whole) return failed(Outcome::kBroken);
    return out;
}

}  // namespace stator::media::helper
