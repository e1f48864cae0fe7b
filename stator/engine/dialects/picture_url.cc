#include "stator/engine/dialects/picture_url.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace stator::engine {
namespace {

constexpr std::size_t kChannels = 3;
constexpr std::size_t kMostStored = 65'535;  // a stored block's length has 16 bits
constexpr std::uint32_t kCrcPolynomial = 0xEDB8'8320;
constexpr std::uint32_t kAdlerModulus = 65'521;
/// So many bytes can be summed before the sums must be reduced (RFC 1950's NMAX).
constexpr std::size_t kAdlerRun = 5'552;

constexpr auto kCrcTable = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t n = 0; n < table.size(); ++n) {
        std::uint32_t c = n;
        for (int bit = 0; bit < 8; ++bit) c = (c & 1U) != 0 ? kCrcPolynomial ^ (c >> 1U) : c >> 1U;
        table[n] = c;
    }
    return table;
}();

std::uint32_t crc_of(std::string_view bytes) {
    std::uint32_t c = UINT32_MAX;
    for (const char b : bytes) {
        c = kCrcTable[(c ^ static_cast<std::uint8_t>(b)) & 0xFFU] ^ (c >> 8U);
    }
    return ~c;
}

void append_u32(std::string& out, std::uint32_t n) {
    for (const unsigned shift : {24U, 16U, 8U, 0U}) out += static_cast<char>(n >> shift & 0xFFU);
}

/// What is behind `from`, which is the chunk's type and data, gets its checksum.
void end_chunk(std::string& out, std::size_t from) {
    append_u32(out, crc_of(std::string_view(out).substr(from)));
}

class Adler {
  public:
    void add(std::string_view bytes) {
        while (!bytes.empty()) {
            const std::size_t n = std::min(bytes.size(), kAdlerRun);
            for (const char b : bytes.substr(0, n)) {
                a_ += static_cast<std::uint8_t>(b);
                b_ += a_;
            }
            a_ %= kAdlerModulus;
            b_ %= kAdlerModulus;
            bytes.remove_prefix(n);
        }
    }
    [[nodiscard]] std::uint32_t sum() const { return b_ << 16U | a_; }

  private:
    std::uint32_t a_ = 1;
    std::uint32_t b_ = 0;
};

}  // namespace

std::string plain_png(std::uint32_t width, std::uint32_t height, std::string_view rgb) {
    const std::size_t row = std::size_t{width} * kChannels;
    const std::size_t raw = (row + 1) * height;
    const std::size_t blocks = (raw + kMostStored - 1) / kMostStored;
    const std::size_t data = 2 + raw + blocks * 5 + 4;
    std::string out;
    out.reserve(data + 64);
    out += "\x89PNG\r\n\x1a\n";
    append_u32(out, 13);
    std::size_t from = out.size();
    out += "IHDR";
    append_u32(out, width);
    append_u32(out, height);
    out.append("\x08\x02\0\0\0", 5);  // 8 bits, RGB, no interlace
    end_chunk(out, from);

    append_u32(out, static_cast<std::uint32_t>(data));
    from = out.size();
    out += "IDAT\x78\x01";
    std::string rows;
    rows.reserve(raw);
    for (std::size_t y = 0; y < height; ++y) {
        rows += '\0';  // not filtered
        rows += rgb.substr(y * row, row);
    }
    Adler adler;
    adler.add(rows);
    for (std::size_t at = 0; at < raw; at += kMostStored) {
        const std::size_t n = std::min(kMostStored, raw - at);
        out += at + n == raw ? '\1' : '\0';
        for (const std::size_t length : {n, ~n}) {
            out += static_cast<char>(length & 0xFFU);
            out += static_cast<char>(length >> 8U & 0xFFU);
        }
        out.append(rows, at, n);
    }
    append_u32(out, adler.sum());
    end_chunk(out, from);

    append_u32(out, 0);
    from = out.size();
    out += "IEND";
    end_chunk(out, from);
    return out;
}

void append_base64(std::string& out, std::string_view bytes) {
    static constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.reserve(out.size() + (bytes.size() + 2) / 3 * 4);
    const auto at = [&](std::size_t i) {
        return i < bytes.size() ? std::uint32_t{static_cast<std::uint8_t>(bytes[i])} : 0U;
    };
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        const std::uint32_t three = at(i) << 16U | at(i + 1) << 8U | at(i + 2);
        out += kDigits[three >> 18U];
        out += kDigits[three >> 12U & 63U];
        out += i + 1 < bytes.size() ? kDigits[three >> 6U & 63U] : '=';
        out += i + 2 < bytes.size() ? kDigits[three & 63U] : '=';
    }
}

std::string picture_url(const protocol::MediaContent& content) {
    const bool video = content.kind == protocol::MediaContent::Kind::kVideo;
    std::string out = video ? "data:video/jpeg;base64," : "data:image/png;base64,";
    const std::size_t frame = std::size_t{content.width} * content.height * kChannels;
    for (std::size_t i = 0; i < content.frames; ++i) {
        if (i > 0) out += ',';
        append_base64(out, plain_png(content.width, content.height,
                                     std::string_view(content.pixels).substr(i * frame, frame)));
    }
    return out;
}

}  // namespace stator::engine
