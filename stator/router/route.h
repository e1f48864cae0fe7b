#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/strong.h"
#include "stator/protocol/worker_info.h"

namespace stator::router {

/// Time since whatever zero the router's owner keeps.
using Nanos = std::chrono::nanoseconds;

/// A rank's place in the router's tables; what add_rank() gave.
using RankIndex = std::uint32_t;
constexpr RankIndex kNoRank = ~RankIndex{0};

/// A booked request. Its upper bits count up: a later booking of the same router is greater.
using BookingId = Strong<std::uint64_t, struct BookingIdTag>;

/// How far a request's prefix is present on a rank, in its blocks from the first on.
struct Overlap {
    RankIndex rank = 0;
    std::uint32_t device_blocks = 0;  ///< in device memory
    std::uint32_t any_blocks = 0;     ///< there, in host memory or on disk; >= device_blocks
    bool operator==(const Overlap&) const = default;
};

/// What a rank does: one or several of the roles.
class Roles {
  public:
    constexpr Roles() = default;
    // NOLINTNEXTLINE(google-explicit-constructor): a role is a set of one
    constexpr Roles(protocol::Role role) { add(role); }
    constexpr Roles(std::initializer_list<protocol::Role> roles) {
        for (const auto role : roles) add(role);
    }
    constexpr void add(protocol::Role role) {
        bits_ |= bit(role);
        if (role == protocol::Role::kAggregated || role == protocol::Role::kDecode) bits_ |= kWhole;
    }
    constexpr void remove(protocol::Role role) {
        bits_ &= static_cast<std::uint8_t>(~bit(role));
        if (!has(protocol::Role::kAggregated) && !has(protocol::Role::kDecode)) takes_no_whole();
    }
    /// A rank that decodes, and can't compute a prompt.
    constexpr void takes_no_whole() { bits_ &= static_cast<std::uint8_t>(~kWhole); }
    [[nodiscard]] constexpr bool has(protocol::Role role) const { return (bits_ & bit(role)) != 0; }
    /// One bit a role, and one for whole requests; 0 = none.
    [[nodiscard]] constexpr std::uint8_t bits() const { return bits_; }
    /// Of ranks that take what is asked of `role`: whole requests (kAggregated) go to those that
    /// decode, too.
    [[nodiscard]] static constexpr std::uint8_t takers(protocol::Role role) {
        return role == protocol::Role::kAggregated ? kWhole : bit(role);
    }
    [[nodiscard]] static constexpr std::uint8_t bit(protocol::Role role) {
        return static_cast<std::uint8_t>(1U << std::to_underlying(role));
    }
    bool operator==(const Roles&) const = default;

  private:
    static constexpr std::uint8_t kWhole = 1;  // no role's bit
    std::uint8_t bits_ = 0;
};

/// A label that a rank bears and a request may ask for or tolerate, as "zone=a" or "gpu=old".
using Label = std::string;

/// What a decision depends on. The spans must live as long as the call alone.
struct RouteRequest {
    std::uint32_t prompt_tokens = 0;
    std::uint32_t block_tokens = 16;
    std::uint32_t expected_output_tokens = 128;
    /// Sequence hashes of the prompt's whole blocks: siblings of bookings are found by them.
    /// May be empty.
    std::span<const std::uint64_t> blocks;
    /// Ranks that hold some of the prefix; those not named hold none. Each rank once.
    std::span<const Overlap> overlaps;
    /// The leg: kAggregated is a whole request.
    protocol::Role role = protocol::Role::kAggregated;
    /// With role kPrefill: a decode rank is chosen and booked together with it.
    bool pair = false;
    /// With role kAggregated: such a pair instead, where PolicyOptions::disaggregation says so.
    bool split = false;
    std::int32_t priority = 0;  ///< higher goes first
    std::uint32_t adapter = 0;  ///< LoRA adapter; 0 = the model itself
    std::uint64_t session = 0;  ///< 0 = none
    bool session_hard = false;  ///< the session's rank and no other while it can take requests
    /// Media to encode, at a usual rank: before the prompt, or (kEncode) instead of one. Ranks in
    /// `overlaps` of a kEncode leg hold the embeddings.
    double encode_s = 0.0;
    std::optional<RankIndex> pinned;  ///< policy direct, or any: this rank alone
    /// Book only where prompts of no more seconds are before it; else it is to come again: then
    /// Decision::booking is 0.
    std::optional<double> most_queue_s;
    /// With it: a rank that has all it can run at once and this share of it more (at least one) is
    /// full. More than that does nothing for it, and could still be chosen for elsewhere. So is one
    /// where requests wait for KV memory, and what is left is not enough for the prompt.
    double most_waiting_share = 1e9;
    std::optional<Nanos> deadline;        ///< refuse where the first token is predicted later
    std::span<const Label> required;      ///< only ranks that bear all of these
    std::span<const Label> preferred;     ///< rather ranks that bear these
    std::span<const Label> tolerated;     ///< taints, and things to avoid, that do not matter
    std::span<const RankIndex> excluded;  ///< tried already
    /// How the embeddings of its media can be had: only ranks with one of these methods. Empty: it
    /// has none to take over.
    std::span<const std::string> media_methods;
};

/// One rank's predicted seconds, by what they are spent on, and what was counted.
struct Candidate {
    RankIndex rank = kNoRank;
    RankIndex decode_rank = kNoRank;  ///< of a pair
    double queue_s = 0;               ///< prompts before it and the step under way
    double prefill_s = 0;             ///< of what is not cached
    double onboarding_s = 0;          ///< cached blocks that come from host memory or disk
    double encode_s = 0;
    double adapter_s = 0;     ///< loading the LoRA adapter
    double handoff_s = 0;     ///< KV to the decode rank
    double preference_s = 0;  ///< charged for labels that it should have, or should not
    double harm_s = 0;        ///< to others: what the policy charges for work and held-up decoding
    double cost = 0;          ///< what the policy compares: seconds, or its own unit
    std::uint32_t cached_tokens = 0;

    [[nodiscard]] double ttft_s() const {
        return queue_s + prefill_s + onboarding_s + encode_s + adapter_s + handoff_s;
    }
};

/// Where a request goes.
struct Decision {
    BookingId booking;  ///< of book(); 0 of select()
    Candidate chosen;
    /// Standard deviation of chosen.ttft_s().
    double ttft_std_s = 0;
    std::vector<RankIndex> fallbacks;  ///< the next best, in order
    bool by_session = false;           ///< it goes where its session is
};

}  // namespace stator::router
