#include <webp/decode.h>

#include "stator/media/decode/decode.h"

namespace stator::media::helper {

Decoded decode_webp(Bytes bytes, const Limits& limits) {
    WebPDecoderConfig config;
    if (WebPInitDecoderConfig(&config) == 0 ||
        WebPGetFeatures(bytes.data(), bytes.size(), &config.input) != VP8_STATUS_OK) {
        return failed(Outcome::kBroken);
    }
    if (config.input.has_animation != 0) return failed(Outcome::kAnimated);
    if (config.input.width < 0 || config.input.height < 0) return failed(Outcome::kBroken);
    Decoded out = check_size(static_cast<std::uint64_t>(config.input.width),
                             static_cast<std::uint64_t>(config.input.height), limits);
    if (out.outcome != Outcome::kOk) return out;
    const bool alpha = config.input.has_alpha != 0;
    const std::size_t channels = alpha ? 4 : 3;
    const std::size_t pixels = std::size_t{out.width} * out.height;
    out.pixels = allocate(pixels * channels);
    if (!out.pixels) return failed(Outcome::kNoMemory);
    config.output.colorspace = alpha ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = out.pixels.get();
    config.output.u.RGBA.stride = static_cast<int>(out.width * channels);
    config.output.u.RGBA.size = pixels * channels;
    const VP8StatusCode status = WebPDecode(bytes.data(), bytes.size(), &config);
    WebPFreeDecBuffer(&config.output);
    if (status == VP8_STATUS_OUT_OF_MEMORY) return failed(Outcome::kNoMemory);
    if (status != VP8_STATUS_OK) return failed(Outcome::kBroken);
    if (alpha) over_white(out.pixels.get(), out.pixels.get(), pixels);
    return out;
}

}  // namespace stator::media::helper
