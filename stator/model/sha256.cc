#include "stator/model/sha256.h"

#include <openssl/evp.h>

#include <array>

#include "stator/base/check.h"

namespace stator::model {

void Sha256::Free::operator()(evp_md_ctx_st* c) const { EVP_MD_CTX_free(c); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
    STATOR_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
                 "SHA-256 is not there");
}

void Sha256::add(std::string_view bytes) {
    EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
}

void Sha256::add_number(std::uint64_t n) {
    std::array<char, 8> bytes{};
    for (char& b : bytes) {
        b = static_cast<char>(n & 0xFFU);
        n >>= 8U;
    }
    add({bytes.data(), bytes.size()});
}

std::string Sha256::hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), digest.data(), &size);
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string out;
    for (unsigned i = 0; i < size; ++i) {
        out += kDigits[digest[i] >> 4U];
        out += kDigits[digest[i] & 0xFU];
    }
    return out;
}

std::string sha256_hex(std::string_view bytes) {
    Sha256 sha;
    sha.add(bytes);
    return sha.hex();
}

}  // namespace stator::model
