#include "stator/media/content.h"

#include <openssl/evp.h>

#include <bit>
#include <memory>
#include <span>

#include "stator/base/check.h"

namespace stator::media {
namespace {

static_assert(std::endian::native == std::endian::little);

class Sha256 {
  public:
    Sha256() {
        STATOR_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
                     "OpenSSL has no SHA-256");
    }
    void add(const void* data, std::size_t size) { EVP_DigestUpdate(context_.get(), data, size); }
    void add(std::uint32_t number) { add(&number, sizeof number); }
    protocol::Digest end() {
        protocol::Digest out;
        EVP_DigestFinal_ex(context_.get(), out.data(), nullptr);
        return out;
    }

  private:
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_{EVP_MD_CTX_new(),
                                                                     &EVP_MD_CTX_free};
};

}  // namespace

protocol::Digest content_digest(const protocol::MediaContent& content) {
    Sha256 hash;
    hash.add(static_cast<std::uint32_t>(content.kind));
    hash.add(content.width);
    hash.add(content.height);
    hash.add(content.frames);
    hash.add(static_cast<std::uint32_t>(content.frame_ms.size()));
    for (const std::uint32_t ms : content.frame_ms) hash.add(ms);
    hash.add(content.pixels.data(), content.pixels.size());
    return hash.end();
}

protocol::Digest source_digest(protocol::MediaContent::Kind kind, std::uint32_t limit,
                               std::string_view bytes) {
    Sha256 hash;
    hash.add(static_cast<std::uint32_t>(kind));
    hash.add(limit);
    hash.add(bytes.data(), bytes.size());
    return hash.end();
}

}  // namespace stator::media
