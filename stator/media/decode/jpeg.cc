#include <algorithm>
#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it before itself

#include <jerror.h>
#include <jpeglib.h>

#include "stator/media/decode/decode.h"

namespace stator::media::helper {
namespace {

/// Each scan of a progressive picture goes over all of it: a small file of thousands of them would
/// keep a core busy for minutes. Cameras and tools write about ten.
constexpr int kMaxScans = 64;
/// Faults in the entropy-coded data that are passed over, as viewers do, until they are too many.
constexpr long kMaxWarnings = 10'000;
constexpr long kMemory = 384L * 1024 * 1024;

/// libjpeg leaves by longjmp() to where it was called: there must be nothing to destroy between.
struct Reader {
    jpeg_decompress_struct jpeg{};
    jpeg_error_mgr errors{};
    jpeg_source_mgr source{};
    jpeg_progress_mgr progress{};
    std::jmp_buf leave{};
    Outcome why = Outcome::kBroken;
};

[[noreturn]] void leave(j_common_ptr jpeg, Outcome why) {
    auto* reader = static_cast<Reader*>(jpeg->client_data);
    reader->why = why;
    std::longjmp(reader->leave, 1);
}

void on_error(j_common_ptr jpeg) {
    const int what = jpeg->err->msg_code;
    const bool memory = what == JERR_OUT_OF_MEMORY || what == JERR_NO_BACKING_STORE;
    leave(jpeg, memory ? Outcome::kNoMemory : Outcome::kBroken);
}

void on_message(j_common_ptr jpeg, int level) {
    if (level < 0 && ++jpeg->err->num_warnings > kMaxWarnings) leave(jpeg, Outcome::kBroken);
}

void on_progress(j_common_ptr jpeg) {
    const auto* decompress = reinterpret_cast<j_decompress_ptr>(jpeg);
    if (decompress->input_scan_number > kMaxScans) leave(jpeg, Outcome::kTooComplex);
}

/// The bytes are all there from the beginning: whoever asks for more has a file that was cut short.
boolean on_empty(j_decompress_ptr jpeg) {
    leave(reinterpret_cast<j_common_ptr>(jpeg), Outcome::kBroken);
}

void skip(j_decompress_ptr jpeg, long count) {
    if (count <= 0) return;
    jpeg_source_mgr& source = *jpeg->src;
    if (static_cast<std::size_t>(count) > source.bytes_in_buffer) on_empty(jpeg);
    source.next_input_byte += count;
    source.bytes_in_buffer -= static_cast<std::size_t>(count);
}

void open(Reader& reader, Bytes bytes) {
    jpeg_std_error(&reader.errors);
    reader.errors.error_exit = on_error;
    reader.errors.emit_message = on_message;
    reader.errors.output_message = [](j_common_ptr) {};
    reader.jpeg.err = &reader.errors;
    reader.jpeg.client_data = &reader;
    reader.source.next_input_byte = bytes.data();
    reader.source.bytes_in_buffer = bytes.size();
    reader.source.init_source = [](j_decompress_ptr) {};
    reader.source.term_source = [](j_decompress_ptr) {};
    reader.source.fill_input_buffer = on_empty;
    reader.source.skip_input_data = skip;
    reader.source.resync_to_restart = jpeg_resync_to_restart;
    reader.progress.progress_monitor = on_progress;
}

/// Four components to three; Adobe's programs store them inverted.
void from_cmyk(const std::uint8_t* from, std::uint8_t* to, std::size_t count, bool inverted) {
    for (std::size_t i = 0; i < count; ++i, from += 4, to += 3) {
        const unsigned black = inverted ? from[3] : 255U - from[3];
        for (std::size_t c = 0; c < 3; ++c) {
            const unsigned ink = inverted ? from[c] : 255U - from[c];
            to[c] = static_cast<std::uint8_t>((ink * black + 127) / 255);
        }
    }
}

unsigned orientation_of(const jpeg_decompress_struct& jpeg) {
    for (const auto* m = jpeg.marker_list; m != nullptr; m = m->next) {
        if (m->marker != JPEG_APP0 + 1) continue;
        const unsigned found = exif_orientation({m->data, m->data_length});
        if (found != 1) return found;
    }
    return 1;
}

void read_rows(Reader& reader, Decoded& out, const std::uint8_t* cmyk_row) {
    jpeg_decompress_struct& jpeg = reader.jpeg;
    while (jpeg.output_scanline < jpeg.output_height) {
        std::uint8_t* to =
            out.pixels.get() + std::size_t{jpeg.output_scanline} * jpeg.output_width * 3;
        JSAMPROW rows[1] = {cmyk_row != nullptr ? const_cast<JSAMPROW>(cmyk_row) : to};
        if (jpeg_read_scanlines(&jpeg, rows, 1) != 1) {
            leave(reinterpret_cast<j_common_ptr>(&jpeg), Outcome::kBroken);
        }
        if (cmyk_row != nullptr) {
            from_cmyk(cmyk_row, to, jpeg.output_width, jpeg.saw_Adobe_marker != 0);
        }
    }
}

/// False: libjpeg left by reader.why. What must be destroyed is the caller's, and this function's
/// frame its own, so that nothing depends on what a longjmp() leaves in registers.
[[gnu::noinline]] bool decode(Reader& reader, const Limits& limits, Decoded& out,
                              std::unique_ptr<std::uint8_t[]>& row) {
    if (setjmp(reader.leave) != 0) return false;
    jpeg_decompress_struct& jpeg = reader.jpeg;
    jpeg_create_decompress(&jpeg);
    jpeg.src = &reader.source;
    jpeg.progress = &reader.progress;
    jpeg.mem->max_memory_to_use = kMemory;
    jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&jpeg, TRUE);
    out = check_size(jpeg.image_width, jpeg.image_height, limits);
    if (out.outcome != Outcome::kOk) return true;
    const bool cmyk = jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK;
    jpeg.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    jpeg.dct_method = JDCT_ISLOW;
    out.pixels = allocate(out.pixel_bytes());
    if (cmyk) row = allocate(std::uint64_t{out.width} * 4);
    if (!out.pixels || (cmyk && !row)) {
        out = failed(Outcome::kNoMemory);
        return true;
    }
    jpeg_start_decompress(&jpeg);
    read_rows(reader, out, row.get());
    if (!apply_orientation(out, orientation_of(jpeg))) out = failed(Outcome::kNoMemory);
    return true;
}

}  // namespace

Decoded decode_jpeg(Bytes bytes, const Limits& limits) {
    Reader reader;
    Decoded out;
    std::unique_ptr<std::uint8_t[]> row;
    open(reader, bytes);
    const bool whole = decode(reader, limits, out, row);
    jpeg_destroy_decompress(&reader.jpeg);
    if (!whole) return failed(reader.why);
    return out;
}

}  // namespace stator::media::helper
