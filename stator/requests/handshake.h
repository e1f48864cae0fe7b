#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stator/requests/messages.h"
#include "stator/requests/wire.h"

namespace stator::requests {

/// What both sides of the handshake share. Inside the room only.

/// Who proves that it knows the secret; part of what is proved, so that a proof is of no use to the
/// other side.
enum class Prover : std::uint8_t { kClient, kWorker };

/// HMAC-SHA256 under the secret over the role, both nonces, the lane's kind and the link's id.
[[nodiscard]] Nonce prove(std::string_view secret, Prover prover, const Hello& client,
                          const Nonce& worker_nonce);
/// In constant time.
[[nodiscard]] bool same_proof(const Nonce& a, const Nonce& b);

/// 32 bytes that don't repeat: two of them from one seed differ by `counter`.
[[nodiscard]] Nonce make_nonce(std::uint64_t seed, std::uint64_t counter, const LinkId& link);

/// Large prompts and fetches may use further connections.
constexpr std::string_view kFeatureBulk = "bulk";
/// Requests may be legs and have media; handoff frames come back.
constexpr std::string_view kFeatureLegs = "legs";

/// Without `legs`: those of a program that does not know legs.
[[nodiscard]] std::vector<std::string> own_features(bool legs = true);
[[nodiscard]] std::vector<std::string> common_features(const std::vector<std::string>& theirs);

/// The flags that go with a type: everything but load, ping and pong must be understood.
[[nodiscard]] constexpr std::uint8_t flags_of(FrameType type) {
    return type == FrameType::kLoad || type == FrameType::kPing || type == FrameType::kPong
               ? 0
               : kFlagCritical;
}

/// A frame of one message: `append` appends the payload.
template <typename Append>
void put_frame(std::string& out, FrameType type, std::uint32_t stream, Append&& append,
               std::uint8_t more = 0) {
    const std::size_t at = begin_frame(out);
    append(out);
    end_frame(out, at, type, static_cast<std::uint8_t>(flags_of(type) | more), stream);
}

void put_error(std::string& out, std::uint32_t stream, const Error& error);
/// kCredit: `key` is "n" (client: tokens) or "data" (worker: prompt tokens).
void put_credit(std::string& out, std::uint32_t stream, std::string_view key, std::uint32_t n);
[[nodiscard]] Result<std::uint32_t> read_credit(std::string_view payload, std::string_view key);

}  // namespace stator::requests
