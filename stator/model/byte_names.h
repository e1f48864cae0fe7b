#pragma once

#include <string>

namespace stator::model {

/// For tests: GPT-2's name of a byte in byte-level vocabularies: printable ones stand for
/// themselves, the others for U+0100 and up.
inline std::string byte_name(unsigned byte) {
    const auto printable = [](unsigned b) {
        return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    };
    unsigned code = byte;
    if (!printable(byte)) {
        code = 0x100;
        for (unsigned b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
    }
    if (code < 0x80) return {static_cast<char>(code)};
    return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

}  // namespace stator::model
