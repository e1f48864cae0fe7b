#include "stator/codec/utf8.h"

#include <cstdint>
#include <cstring>

namespace stator::codec {
namespace {

/// What a lead byte promises: how many bytes, and which second bytes (the Unicode Standard, 3.9,
/// table 3-7). All further bytes are 80..BF. Length 0: no character begins so.
struct Lead {
    std::uint8_t length;
    std::uint8_t second_low;
    std::uint8_t second_high;
};

Lead lead_of(unsigned char c) {
    if (c < 0x80) return {1, 0, 0};
    if (c < 0xC2) return {0, 0, 0};
    if (c < 0xE0) return {2, 0x80, 0xBF};
    if (c == 0xE0) return {3, 0xA0, 0xBF};
    if (c == 0xED) return {3, 0x80, 0x9F};
    if (c < 0xF0) return {3, 0x80, 0xBF};
    if (c == 0xF0) return {4, 0x90, 0xBF};
    if (c < 0xF4) return {4, 0x80, 0xBF};
    if (c == 0xF4) return {4, 0x80, 0x8F};
    return {0, 0, 0};
}

/// The character that begins at text[at]: how many bytes of it are there and good, out of how many.
struct Part {
    std::size_t good;  // 0: the first byte begins no character
    std::size_t whole;
    [[nodiscard]] bool complete() const { return whole != 0 && good == whole; }
};

Part part_at(std::string_view text, std::size_t at) {
    const Lead lead = lead_of(static_cast<unsigned char>(text[at]));
    if (lead.length <= 1) return {lead.length, lead.length};
    std::size_t good = 1;
    for (; good < lead.length && at + good < text.size(); ++good) {
        const auto c = static_cast<unsigned char>(text[at + good]);
        const unsigned char low = good == 1 ? lead.second_low : 0x80;
        const unsigned char high = good == 1 ? lead.second_high : 0xBF;
        if (c < low || c > high) break;
    }
    return {good, lead.length};
}

std::size_t ascii_run(std::string_view text, std::size_t at) {
    constexpr std::uint64_t kHigh = 0x8080808080808080U;
    std::size_t i = at;
    for (; i + 8 <= text.size(); i += 8) {
        std::uint64_t x = 0;
        std::memcpy(&x, text.data() + i, sizeof(x));
        if ((x & kHigh) != 0) break;
    }
    while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
    return i - at;
}

/// End of the well-formed run that begins at `at`.
std::size_t valid_run_end(std::string_view text, std::size_t at) {
    for (;;) {
        at += ascii_run(text, at);
        if (at == text.size()) return at;
        const Part part = part_at(text, at);
        if (!part.complete()) return at;
        at += part.whole;
    }
}

}  // namespace

std::size_t utf8_valid_prefix(std::string_view text) { return valid_run_end(text, 0); }

bool utf8_valid(std::string_view text) { return utf8_valid_prefix(text) == text.size(); }

std::size_t utf8_complete_prefix(std::string_view text) {
    const std::size_t reach = text.size() < 3 ? text.size() : 3;
    for (std::size_t back = 1; back <= reach; ++back) {
        const std::size_t at = text.size() - back;
        if ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) continue;  // not a first byte
        const Part part = part_at(text, at);
        return part.good == back && part.good < part.whole ? at : text.size();
    }
    return text.size();
}

void utf8_append_lossy(std::string& out, std::string_view text) {
    std::size_t at = 0;
    for (;;) {
        const std::size_t end = valid_run_end(text, at);
        out.append(text.substr(at, end - at));
        if (end == text.size()) return;
        out.append("\xEF\xBF\xBD");
        const std::size_t good = part_at(text, end).good;
        at = end + (good == 0 ? 1 : good);
    }
}

}  // namespace stator::codec
