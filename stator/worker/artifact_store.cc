#include "stator/worker/artifact_store.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>

#include "stator/base/check.h"

namespace stator::worker {
namespace {

std::string sha256_hex(const std::string& bytes) {
    std::array<unsigned char, 32> digest{};
    unsigned int size = 0;
    const int ok =
        EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr);
    STATOR_CHECK(ok == 1 && size == digest.size(), "OpenSSL has SHA-256");
    std::string hex;
    for (const unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
    return hex;
}

}  // namespace

protocol::Artifact ArtifactStore::add(std::string kind, std::string bytes) {
    protocol::Artifact name;
    name.kind = std::move(kind);
    name.sha256 = sha256_hex(bytes);
    name.bytes = bytes.size();
    by_sha256[name.sha256] = std::make_shared<const std::string>(std::move(bytes));
    return name;
}

}  // namespace stator::worker
