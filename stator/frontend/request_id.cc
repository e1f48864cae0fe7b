#include "stator/frontend/request_id.h"

namespace stator::frontend {

bool valid_request_id(std::string_view id) {
    constexpr std::size_t kLongest = 128;
    if (id.empty() || id.size() > kLongest) return false;
    for (const char c : id) {
        const bool alnum =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && c != '.' && c != '_' && c != ':' && c != '-') return false;
    }
    return true;
}

std::uint64_t IdSource::draw() {
    // SplitMix64 (Steele, Lea, Flood 2014): a bijection, so ids of one process never meet.
    std::uint64_t z = next_.fetch_add(0x9e3779b97f4a7c15ULL, std::memory_order_relaxed);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

std::string IdSource::next(std::string_view prefix) {
    const std::uint64_t z = draw();
    constexpr int kDigits = 16;
    std::string out;
    out.reserve(prefix.size() + kDigits);
    out += prefix;
    for (int i = kDigits - 1; i >= 0; --i) out += "0123456789abcdef"[(z >> (4 * i)) & 15];
    return out;
}

std::string IdSource::next_call() {
    constexpr std::string_view kAlphabet =
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    constexpr int kDraws = 3;
    constexpr int kDigitsOfOne = 8;  // of the 10.7 that 64 bits have
    std::string out = "call_";
    for (int i = 0; i < kDraws; ++i) {
        std::uint64_t z = draw();
        for (int d = 0; d < kDigitsOfOne; ++d, z /= kAlphabet.size()) {
            out += kAlphabet[z % kAlphabet.size()];
        }
    }
    return out;
}

}  // namespace stator::frontend
