#pragma once

#include <cstdint>
#include <string_view>

#include "stator/transfer/wire.h"

namespace stator::transfer {

/// Who proves that it knows the secret; part of what is proved, so that a proof is of no use to the
/// other side.
enum class Prover : std::uint8_t { kClaimer, kProducer };

/// HMAC-SHA256 under the secret over the role, both nonces and the producer's plane.
[[nodiscard]] Nonce prove(std::string_view secret, Prover prover, const Hello& hello,
                          const Nonce& producer_nonce);
/// In constant time.
[[nodiscard]] bool same_proof(const Nonce& a, const Nonce& b);

}  // namespace stator::transfer
