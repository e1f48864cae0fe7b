#include "stator/model/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>

#include "stator/base/check.h"

namespace stator::model {

void Sha256::Free::operator()(evp_md_ctx_st* c) const { EVP_MD_CTX_free(c); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
    const bool ok = context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
    STATOR_CHECK(ok, "OpenSSL has SHA-256");
}

void Sha256::add(std::string_view bytes) {
    const int ok = EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
    STATOR_CHECK(ok == 1, "OpenSSL takes bytes");
}

std::string Sha256::hex() {
    std::array<unsigned char, 32> digest{};
    const int ok = EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr);
    STATOR_CHECK(ok == 1, "a digest is asked for once");
    std::string out;
    for (const unsigned char byte : digest) out += fmt::format("{:02x}", byte);
    return out;
}

std::string sha256_hex(std::string_view bytes) {
    Sha256 digest;
    digest.add(bytes);
    return digest.hex();
}

bool is_sha256_hex(std::string_view text) {
    return text.size() == 64 && std::ranges::all_of(text, [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
           });
}

}  // namespace stator::model
