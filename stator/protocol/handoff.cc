#include "stator/protocol/handoff.h"

#include <openssl/sha.h>

#include <bit>
#include <cstring>

#include "stator/base/check.h"

namespace stator::protocol {

std::string_view to_string(Leg leg) {
    switch (leg) {
        case Leg::kWhole:
            return "whole";
        case Leg::kPrefill:
            return "prefill";
        case Leg::kDecode:
            return "decode";
        case Leg::kEncode:
            return "encode";
    }
    return "unknown";
}

Digest kv_content(std::span<const tokens::TokenId> prompt, std::uint64_t salt) {
    static_assert(std::endian::native == std::endian::little);
    std::string bytes(sizeof salt + prompt.size_bytes(), '\0');
    std::memcpy(bytes.data(), &salt, sizeof salt);
    if (!prompt.empty()) {
        std::memcpy(bytes.data() + sizeof salt, prompt.data(), prompt.size_bytes());
    }
    Digest out;
    SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), out.data());
    return out;
}

}  // namespace stator::protocol
