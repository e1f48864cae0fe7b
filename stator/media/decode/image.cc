#include <algorithm>
#include <array>
#include <string_view>

#include "stator/media/decode/decode.h"

namespace stator::media::helper {

void over_white(const std::uint8_t* from, std::uint8_t* to, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i, from += 4, to += 3) {
        const unsigned alpha = from[3];
        const std::array<unsigned, 3> rgb = {from[0], from[1], from[2]};
        for (std::size_t c = 0; c < 3; ++c) {
            to[c] = static_cast<std::uint8_t>((rgb[c] * alpha + 255 * (255 - alpha) + 127) / 255);
        }
    }
}

Decoded decode_image(Bytes bytes, const Limits& limits) {
    const std::string_view begin(reinterpret_cast<const char*>(bytes.data()),
                                 std::min<std::size_t>(bytes.size(), 16));
    if (begin.starts_with("\xFF\xD8\xFF")) return decode_jpeg(bytes, limits);
    if (begin.starts_with("\x89PNG\r\n\x1A\n")) return decode_png(bytes, limits);
    if (begin.starts_with("RIFF") && begin.size() >= 12 && begin.substr(8, 4) == "WEBP") {
        return decode_webp(bytes, limits);
    }
    return failed(Outcome::kUnknownType);
}

}  // namespace stator::media::helper
