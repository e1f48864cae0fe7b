#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/protocol/generate.h"
#include "stator/protocol/load.h"
#include "stator/protocol/worker_info.h"

namespace stator::requests {

/// The payloads of frames as values, each with its encoding (MessagePack maps with short text keys,
/// unknown keys skipped; kTokens is packed by hand). Decoders never trust a length, an enumerator
/// or a relation; their errors name the field.

using Nonce = std::array<std::uint8_t, 32>;

/// Which connection of a link this is.
enum class LaneKind : std::uint8_t { kControl = 1, kBulk = 2 };

/// Drawn at random by the client; binds the connections of one link together.
struct LinkId {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    auto operator<=>(const LinkId&) const = default;
};

struct Hello {
    std::uint32_t version = 0;
    std::vector<std::string> features;  ///< what the sender can do; both use what both can
    Nonce nonce{};
    // Client:
    std::string name;  ///< of the client process, for logs
    protocol::Incarnation incarnation;
    LaneKind lane = LaneKind::kControl;
    LinkId link;
    // Worker:
    bool secret_wanted = false;  ///< the client must send kAuth next
    std::optional<Nonce> proof;  ///< the worker's own proof, where a secret is configured
    bool operator==(const Hello&) const = default;
};

/// What a worker's load report carries besides the load.
struct LoadMessage {
    std::uint32_t rank = 0;
    protocol::LoadReport load;
    std::uint64_t booking = 0;  ///< highest booking number seen from this client
    std::uint64_t steps =
        0;  ///< engine steps so far: goes up while the engine is alive and has work
    bool operator==(const LoadMessage&) const = default;
};

struct GoAway {
    std::string reason;
    std::uint32_t grace_ms = 0;  ///< streams that are open may go on for so long
    bool operator==(const GoAway&) const = default;
};

/// What a client asks for on a bulk lane.
struct Fetch {
    enum class Kind : std::uint8_t { kArtifact = 1, kSnapshot, kEventRange };
    Kind kind = Kind::kArtifact;
    std::string sha256;      ///< artifact
    std::string topic;       ///< snapshot, range
    std::uint32_t rank = 0;  ///< snapshot, range
    std::uint64_t from = 0;  ///< snapshot: at least this sequence; range: first
    std::uint64_t to = 0;    ///< range: last
    bool operator==(const Fetch&) const = default;
};

void append_hello(std::string& out, const Hello& hello);
[[nodiscard]] Result<Hello> read_hello(std::string_view payload);
void append_info(std::string& out, const protocol::WorkerInfo& info);
/// Refuses a worker that lies about itself: no ranks, ranks with gaps, no role, a digest that is
/// none, more than 1024 ranks, names over 256 bytes, labels over 64.
[[nodiscard]] Result<protocol::WorkerInfo> read_info(std::string_view payload);
void append_load(std::string& out, const LoadMessage& load);
[[nodiscard]] Result<LoadMessage> read_load(std::string_view payload);
void append_go_away(std::string& out, const GoAway& go_away);
[[nodiscard]] Result<GoAway> read_go_away(std::string_view payload);
void append_fetch(std::string& out, const Fetch& fetch);
[[nodiscard]] Result<Fetch> read_fetch(std::string_view payload);
/// Code, message, param, retryable, retry_after_ms. The reader's `where` is its own.
void append_error(std::string& out, const Error& error);
[[nodiscard]] Result<Error> read_error(std::string_view payload);

/// What follows a prompt, one part behind the other, filled up to whole tokens with zeros: parts of
/// a request that are too long for its head.
struct BehindPrompt {
    std::uint32_t constraint = 0;  ///< bytes of the constraint's text
    std::uint32_t legs = 0;        ///< … of a map with the keys `!handoff` and `!media`
    std::uint32_t pixels = 0;      ///< … of an encode leg's content
    [[nodiscard]] std::uint64_t bytes() const { return std::uint64_t{constraint} + legs + pixels; }
    [[nodiscard]] std::uint64_t words() const { return (bytes() + 3) / 4; }
    bool operator==(const BehindPrompt&) const = default;
};

/// A request without its prompt. The deadline travels as what is left of it (`now` makes it so),
/// since clocks of two machines have nothing in common.
struct OpenHead {
    protocol::GenerateRequest request;  ///< id 0, prompt empty; without what is `behind`
    std::uint64_t booking = 0;
    std::uint32_t rank = 0;
    std::uint32_t credit = 0;         ///< tokens that may be sent at first
    std::uint32_t prompt_tokens = 0;  ///< what follows in 4 bytes each, the prompt and the rest
    BehindPrompt behind;
};
void append_open(std::string& out, const OpenHead& head, TimePoint now);
/// `rest`: what lies behind the head in the payload (the prompt's first bytes). What can be said
/// against the request without its prompt is said here.
[[nodiscard]] Result<OpenHead> read_open(std::string_view payload, TimePoint now,
                                         std::string_view& rest);

/// Where a leg's result lies: the payload of a handoff frame, with the data frames behind it.
void append_handoff(std::string& out, const protocol::Handoff& handoff, TimePoint now);
/// Refuses one that contradicts itself; see check_handoff().
[[nodiscard]] Result<protocol::Handoff> read_handoff(std::string_view payload, TimePoint now);
/// Everything within the bounds of protocol/handoff.h; parts in order, without gaps and within the
/// bytes; pieces that have as many rows as the handoff.
[[nodiscard]] Result<void> check_handoff(const protocol::Handoff& handoff);
/// A handoff's map has at most so many bytes.
inline constexpr std::size_t kMaxHandoffMapBytes = 256 * 1024;

}  // namespace stator::requests
