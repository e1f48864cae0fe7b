#include "stator/requests/handshake.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <cstring>

#include "stator/base/check.h"
#include "stator/codec/msgpack.h"
#include "stator/requests/fields.h"

namespace stator::requests {
namespace {

void append_raw(std::string& to, const void* bytes, std::size_t n) {
    to.append(static_cast<const char*>(bytes), n);
}

Nonce hmac(std::string_view key, std::string_view text) {
    Nonce digest{};
    unsigned int size = 0;
    const auto* ok = HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                          reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                          digest.data(), &size);
    STATOR_CHECK(ok != nullptr && size == digest.size(), "HMAC-SHA256 gives 32 bytes");
    return digest;
}

}  // namespace

Nonce prove(std::string_view secret, Prover prover, const Hello& client,
            const Nonce& worker_nonce) {
    std::string text(prover == Prover::kClient ? "stator link client" : "stator link worker");
    append_raw(text, client.nonce.data(), client.nonce.size());
    append_raw(text, worker_nonce.data(), worker_nonce.size());
    text += static_cast<char>(client.lane);
    append_raw(text, &client.link.high, 8);
    append_raw(text, &client.link.low, 8);
    return hmac(secret, text);
}

bool same_proof(const Nonce& a, const Nonce& b) {
    return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

Nonce make_nonce(std::uint64_t seed, std::uint64_t counter, const LinkId& link) {
    std::string key;
    append_raw(key, &seed, 8);
    std::string text("stator link nonce");
    append_raw(text, &counter, 8);
    append_raw(text, &link.high, 8);
    append_raw(text, &link.low, 8);
    return hmac(key, text);
}

std::vector<std::string> own_features(bool legs) {
    std::vector<std::string> all{std::string(kFeatureBulk)};
    if (legs) all.emplace_back(kFeatureLegs);
    return all;
}

std::vector<std::string> common_features(const std::vector<std::string>& theirs) {
    std::vector<std::string> both;
    for (auto& feature : own_features()) {
        if (std::ranges::find(theirs, feature) != theirs.end()) both.push_back(std::move(feature));
    }
    return both;
}

void put_error(std::string& out, std::uint32_t stream, const Error& error) {
    put_frame(out, FrameType::kError, stream, [&](std::string& to) { append_error(to, error); });
}

void put_credit(std::string& out, std::uint32_t stream, std::string_view key, std::uint32_t n) {
    put_frame(out, FrameType::kCredit, stream, [&](std::string& to) {
        codec::MsgpackWriter w(to);
        w.map(1).string(key).number(n);
    });
}

Result<std::uint32_t> read_credit(std::string_view payload, std::string_view key) {
    std::uint32_t n = 0;
    auto read = each_field_of(payload, [&](std::string_view k, codec::MsgpackReader& r) -> Field {
        if (k == key) return read_value(r, n);
        return Field::unknown();
    });
    return finish_reading(std::move(read), n, "credit");
}

}  // namespace stator::requests
