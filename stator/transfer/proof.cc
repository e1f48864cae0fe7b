#include "stator/transfer/proof.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <string>

#include "stator/base/check.h"

namespace stator::transfer {

Nonce prove(std::string_view secret, Prover prover, const Hello& hello,
            const Nonce& producer_nonce) {
    std::string text(prover == Prover::kClaimer ? "stator transfer claimer"
                                                : "stator transfer producer");
    const auto add = [&text](const auto& bytes) {
        text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
    add(hello.nonce);
    add(producer_nonce);
    add(hello.plane);
    Nonce digest{};
    unsigned int size = 0;
    const auto* ok = HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
                          reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                          digest.data(), &size);
    STATOR_CHECK(ok != nullptr && size == digest.size(), "HMAC-SHA256 gives 32 bytes");
    return digest;
}

bool same_proof(const Nonce& a, const Nonce& b) {
    return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace stator::transfer
