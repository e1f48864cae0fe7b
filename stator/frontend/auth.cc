#include "stator/frontend/auth.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "stator/base/check.h"

namespace stator::frontend {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

KeyRing::KeyRing(std::span<const std::string> keys) {
    if (keys.empty()) return;
    STATOR_CHECK(RAND_bytes(secret_.data(), static_cast<int>(secret_.size())) == 1,
                 "the system gives no random bytes");
    for (const std::string& key : keys) {
        STATOR_CHECK(!key.empty(), "an API key is empty");
        digests_.push_back(digest(key));
    }
}

std::optional<std::size_t> KeyRing::find(std::string_view presented) const {
    const Digest mine = digest(presented);
    std::size_t found = 0;  // one more than its place
    for (std::size_t i = 0; i < digests_.size(); ++i) {
        const auto same = static_cast<std::size_t>(
            CRYPTO_memcmp(digests_[i].data(), mine.data(), mine.size()) == 0);
        found |= same * (i + 1);
    }
    if (found == 0) return std::nullopt;
    return found - 1;
}

KeyRing::Digest KeyRing::digest(std::string_view key) const {
    Digest out{};
    unsigned length = 0;
    const auto* ok =
        HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()),
             reinterpret_cast<const unsigned char*>(key.data()), key.size(), out.data(), &length);
    STATOR_CHECK(ok != nullptr && length == out.size(), "HMAC-SHA-256 failed");
    return out;
}

std::string_view presented_key(const net::HttpRequest& request) {
    constexpr std::string_view kScheme = "bearer ";
    const std::string_view value = request.header("authorization");
    if (value.empty()) return request.header("x-api-key");
    if (value.size() <= kScheme.size()) return {};
    for (std::size_t i = 0; i < kScheme.size(); ++i) {
        if (lower(value[i]) != kScheme[i]) return {};
    }
    std::string_view key = value.substr(kScheme.size());
    while (key.starts_with(' ')) key.remove_prefix(1);
    while (key.ends_with(' ')) key.remove_suffix(1);
    return key;
}

}  // namespace stator::frontend
