#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <string_view>

#include "stator/media/decode/video.h"

namespace stator::media::helper {
namespace {

constexpr std::size_t kFourCc = 4;

std::string_view text_at(Bytes bytes, std::size_t at) {
    return {reinterpret_cast<const char*>(bytes.data()) + at, kFourCc};
}

std::uint64_t big_endian(Bytes bytes) {
    std::uint64_t out = 0;
    for (const std::uint8_t byte : bytes) out = out << 8U | byte;
    return out;
}

/// RIFF pieces one behind the other: the first is "AVI ", others continue it.
bool avi_is_cut_short(Bytes bytes) {
    constexpr std::size_t kHead = 8;
    constexpr std::uint64_t kUnknown = 0xFFFF'FFFF;  // written to where nothing can be changed
    std::uint64_t at = 0;
    while (at + kHead <= bytes.size() && text_at(bytes, at) == "RIFF") {
        std::array<std::uint8_t, 4> size{};
        std::ranges::reverse_copy(bytes.subspan(at + 4, 4), size.begin());
        const std::uint64_t inside = big_endian(size);
        if (inside == kUnknown) return false;
        if (inside > bytes.size() - at - kHead) return true;
        at += kHead + inside + inside % 2;
    }
    return false;
}

/// What MP4 files begin with; QuickTime's may have no "ftyp".
bool is_box(std::string_view type) {
    constexpr std::array<std::string_view, 6> kFirst = {"ftyp", "moov", "mdat",
                                                        "wide", "free", "skip"};
    return std::ranges::find(kFirst, type) != kFirst.end();
}

bool mp4_is_cut_short(Bytes bytes) {
    constexpr std::size_t kHead = 8;
    constexpr std::size_t kLongHead = 16;
    std::uint64_t at = 0;
    while (at + kHead <= bytes.size()) {
        const std::string_view type = text_at(bytes, at + 4);
        std::uint64_t size = big_endian(bytes.subspan(at, 4));
        if (size == 0) return false;  // to the end
        if (size == 1) {
            if (at + kLongHead > bytes.size()) return false;
            size = big_endian(bytes.subspan(at + kHead, 8));
        }
        if (size < kHead) return false;
        if (size > bytes.size() - at) {
            // Anything may stand behind what counts.
            return type == "moov" || type == "mdat" || type == "moof";
        }
        at += size;
    }
    return false;
}

/// EBML's numbers: as many bytes as the first one has leading zeros, and one.
struct VariableSize {
    std::uint64_t value = 0;
    std::size_t bytes = 0;  ///< 0: none
    bool unknown = false;   ///< all ones
};

VariableSize variable_size(Bytes bytes) {
    if (bytes.empty() || bytes[0] == 0) return {};
    const auto count = static_cast<std::size_t>(std::countl_zero(bytes[0])) + 1;
    if (count > bytes.size()) return {};
    const std::uint64_t most = (std::uint64_t{1} << (7 * count)) - 1;
    const std::uint64_t value = big_endian(bytes.first(count)) & most;
    return {value, count, value == most};
}

bool matroska_is_cut_short(Bytes bytes) {
    constexpr std::size_t kIdBytes = 4;
    constexpr std::string_view kSegment = "\x18\x53\x80\x67";
    std::uint64_t at = 0;
    while (at + kIdBytes < bytes.size()) {
        const std::string_view id = text_at(bytes, at);
        const VariableSize size = variable_size(bytes.subspan(at + kIdBytes));
        if (size.bytes == 0 || size.unknown) return false;
        const std::uint64_t begin = at + kIdBytes + size.bytes;
        if (size.value > bytes.size() - begin) return id == kSegment;
        if (id == kSegment) return false;
        at = begin + size.value;
    }
    return false;
}

}  // namespace

bool is_cut_short(Bytes bytes) {
    constexpr std::size_t kLeast = 12;
    if (bytes.size() < kLeast) return false;
    if (text_at(bytes, 0) == "RIFF" && text_at(bytes, 8) == "AVI ") return avi_is_cut_short(bytes);
    if (is_box(text_at(bytes, 4))) return mp4_is_cut_short(bytes);
    if (text_at(bytes, 0) == "\x1A\x45\xDF\xA3") return matroska_is_cut_short(bytes);
    return false;
}

}  // namespace stator::media::helper
