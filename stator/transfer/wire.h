#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/handoff.h"

namespace stator::transfer {

/// What two planes say to each other: over a Unix socket (SOCK_SEQPACKET) one frame a packet, over
/// TCP one behind the other. All numbers are little-endian.
///
///   0   4  payload bytes, at most kMaxPayloadBytes
///   4   1  type
///   5   3  zero
///   8      payload: the message's fields in the order in which they stand below; texts and lists
///          after their length (u32)
///
/// A kChunk is followed by `bytes` bytes of the handoff, which do not count as payload.
constexpr std::uint16_t kWireVersion = 1;
constexpr std::size_t kFrameHeaderBytes = 8;
constexpr std::size_t kMaxPayloadBytes = 256 * 1024;
constexpr std::size_t kMaxChunkBytes = 1 << 20;
constexpr std::size_t kMaxRefusalBytes = 512;
constexpr std::size_t kMaxMetadataBytes = 64 * 1024;

using Nonce = std::array<std::uint8_t, 32>;
/// Tells one plane from all others that ever were.
using PlaneId = std::array<std::uint8_t, 16>;
/// The claimer's own name for a claim: with it the same claim may be made again another way.
using ClaimKey = std::array<std::uint8_t, 16>;

/// claimer: the first message. `plane` is whom it wants.
struct Hello {
    std::array<std::uint8_t, 8> magic{'S', 'T', 'A', 'T', 'O', 'R', 'T', 'R'};
    std::uint16_t version = kWireVersion;
    PlaneId plane{};
    Nonce nonce{};
    bool operator==(const Hello&) const = default;
};
/// producer: the answer.
struct Welcome {
    std::uint16_t version = kWireVersion;
    std::uint8_t prove = 0;  ///< 1: nothing goes on before both have sent kProof, the claimer first
    Nonce nonce{};
    bool operator==(const Welcome&) const = default;
};
struct Proof {
    Nonce proof{};
    bool operator==(const Proof&) const = default;
};
/// claimer: takes the handoff over. Bytes [push_from, push_from + push_bytes) are sent without a
/// kFetch (TCP).
struct Claim {
    std::uint64_t request = 0;  ///< the claimer's number for it on this connection
    protocol::HandoffId id{};
    ClaimKey key{};
    std::uint64_t push_from = 0;
    std::uint64_t push_bytes = 0;
    std::uint8_t check = 0;  ///< 1: what is pushed comes with checksums
    bool operator==(const Claim&) const = default;
};
/// producer: it is the claimer's, until kDone or the end of this connection.
struct Grant {
    std::uint64_t request = 0;
    std::uint64_t grant = 0;
    std::uint64_t offset = 0;  ///< in the producer's arena (Unix: whose descriptor came before)
    std::uint64_t bytes = 0;
    std::uint64_t arena_bytes = 0;
    bool operator==(const Grant&) const = default;
};
/// producer: the claim failed. Request 0: the connection ends.
struct Refusal {
    std::uint64_t request = 0;
    std::uint8_t code = 0;  ///< ErrorCode
    std::string text;
    bool operator==(const Refusal&) const = default;
};
/// claimer: wants a range of what was granted, on any connection to the same producer.
struct Fetch {
    std::uint64_t grant = 0;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    std::uint8_t check = 0;  ///< 1: with checksums
    bool operator==(const Fetch&) const = default;
};
/// producer: a piece of what was fetched; pieces of one kFetch come in order.
struct Chunk {
    std::uint64_t grant = 0;
    std::uint64_t offset = 0;
    std::uint32_t bytes = 0;
    std::uint8_t checked = 0;  ///< 1: `check` holds
    std::uint64_t check = 0;   ///< XXH3-64 of the bytes
    bool operator==(const Chunk&) const = default;
};
/// claimer: needs the bytes no longer.
struct Done {
    std::uint64_t grant = 0;
    bool operator==(const Done&) const = default;
};
/// claimer: nobody will claim it.
struct Release {
    protocol::HandoffId id{};
    bool operator==(const Release&) const = default;
};
/// claimer: write the ranges into my memory by NIXL.
struct Write {
    struct Range {
        std::uint64_t offset = 0;
        std::uint64_t bytes = 0;
        std::uint64_t address = 0;  ///< in the claimer
        bool operator==(const Range&) const = default;
    };
    std::uint64_t grant = 0;
    std::string metadata;  ///< of the claimer's agent
    std::vector<Range> ranges;
    bool operator==(const Write&) const = default;
};
/// producer: that is done, or has failed; it writes no more.
struct Written {
    std::uint64_t grant = 0;
    std::uint8_t code = 0;  ///< 0 or ErrorCode
    std::string text;
    bool operator==(const Written&) const = default;
};

/// In the order of their types' numbers, which begin with 1 and travel: never reorder.
using Message = std::variant<Hello, Welcome, Proof, Claim, Grant, Refusal, Fetch, Chunk, Done,
                             Release, Write, Written>;

/// Appends the message's frame. STATOR_CHECK: it fits.
void append_message(std::string& out, const Message& message);

/// Takes the first frame off `bytes`; nothing: it is not complete yet. kDataLoss: it is none.
[[nodiscard]] Result<std::optional<Message>> take_message(std::string_view& bytes);

}  // namespace stator::transfer
