// Any bytes as a picture: within its limits in pixels, memory and time, or refused. And as a video
// of which the end may be missing.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "stator/media/decode/decode.h"
#include "stator/media/decode/video.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace stator::media::helper;
    constexpr std::uint64_t kMaxPixels = 256ULL * 256;
    const Limits limits{.max_bytes = kMaxPixels * 3,
                        .max_pixels = kMaxPixels,
                        .max_side = 2048,
                        .max_frames = 1,
                        .max_duration_ms = 0,
                        .max_packets = 0};
    static_cast<void>(is_cut_short({data, size}));
    const Decoded out = decode_image({data, size}, limits);
    if (out.outcome != Outcome::kOk) return 0;
    if (out.pixels == nullptr || std::uint64_t{out.width} * out.height > kMaxPixels) std::abort();
    volatile std::uint8_t last = out.pixels[out.pixel_bytes() - 1];
    static_cast<void>(last);
    return 0;
}
