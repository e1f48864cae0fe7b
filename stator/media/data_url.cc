#include "stator/media/data_url.h"

#include <array>
#include <cstdint>

namespace stator::media {
namespace {

constexpr std::uint8_t kNone = 0xFF;

constexpr std::array<std::uint8_t, 256> make_values() {
    std::array<std::uint8_t, 256> out{};
    out.fill(kNone);
    constexpr std::string_view kAlphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (std::size_t i = 0; i < kAlphabet.size(); ++i) {
        out[static_cast<std::uint8_t>(kAlphabet[i])] = static_cast<std::uint8_t>(i);
    }
    return out;
}
constexpr auto kValues = make_values();

tl::unexpected<Error> bad_base64() {
    return error(ErrorCode::kInvalidArgument,
                 "the data is no base64 (RFC 4648, padded, without white space)");
}

/// Of four characters the three bytes, or over 24 bits where one is not of the alphabet.
std::uint32_t group(const char* at) {
    std::uint32_t bits = 0;
    std::uint32_t wrong = 0;
    for (int i = 0; i < 4; ++i) {
        const std::uint8_t value = kValues[static_cast<std::uint8_t>(at[i])];
        wrong |= value & 0xC0U;
        bits = bits << 6U | (value & 0x3FU);
    }
    return bits | wrong << 24U;
}

}  // namespace

bool is_data_url(std::string_view url) {
    constexpr std::string_view kScheme = "data:";
    if (url.size() < kScheme.size()) return false;
    for (std::size_t i = 0; i < kScheme.size(); ++i) {
        if ((url[i] | 0x20) != (kScheme[i] | 0x20)) return false;
    }
    return true;
}

Result<std::string> read_base64(std::string_view text, std::size_t max_bytes) {
    if (text.empty() || text.size() % 4 != 0) return bad_base64();
    const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
    const std::size_t bytes = text.size() / 4 * 3 - padding;
    if (bytes > max_bytes) {
        return error(ErrorCode::kTooLarge, "the data has {} bytes; at most {} are taken", bytes,
                     max_bytes);
    }
    std::string out;
    out.resize(text.size() / 4 * 3);
    char* to = out.data();
    const std::size_t whole = padding > 0 ? text.size() - 4 : text.size();
    const auto put = [&to](std::uint32_t bits) {
        *to++ = static_cast<char>(bits >> 16U);
        *to++ = static_cast<char>(bits >> 8U);
        *to++ = static_cast<char>(bits);
    };
    for (std::size_t at = 0; at < whole; at += 4) {
        const std::uint32_t bits = group(text.data() + at);
        if (bits >> 24U != 0) return bad_base64();
        put(bits);
    }
    if (padding > 0) {
        std::array<char, 4> last{'A', 'A', 'A', 'A'};
        text.copy(last.data(), 4 - padding, whole);
        const std::uint32_t bits = group(last.data());
        const std::uint32_t unused = padding == 2 ? 0xFFFFU : 0xFFU;
        if (bits >> 24U != 0 || (bits & unused) != 0) return bad_base64();
        put(bits);
    }
    out.resize(bytes);
    return out;
}

Result<std::string> read_data_url(std::string_view url, std::size_t max_bytes) {
    constexpr std::size_t kMaxHead = 256;
    const std::size_t comma = url.substr(0, kMaxHead).find(',');
    if (!is_data_url(url) || comma == std::string_view::npos ||
        !url.substr(0, comma).ends_with(";base64")) {
        return error(ErrorCode::kInvalidArgument,
                     "the data URL is not of the form data:image/png;base64,…");
    }
    return read_base64(url.substr(comma + 1), max_bytes);
}

}  // namespace stator::media
