#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/protocol/generate.h"

namespace stator::legs {

/// The life of one request over the ranks that compute it: what was delivered so far, which leg
/// comes next, and what a rank must be asked for to go on after another was lost. Pure: no threads,
/// no I/O; time is passed in.
///
///                ┌──────── lost, media could not be had ────────┐
///                ▼                                              │
///   ┌────────────────┐  all there   ┌─────────┐   whole   ┌───────────┐
///   │ encode, one    │ ───────────► │ prompt  │ ────────► │ generating│ ──► ended
///   │ item at a time │              └─────────┘           └───────────┘
///   └────────────────┘                │  ▲  ▲                   ▲
///                             prefill │  │  │ lost, handoff     │
///                                     ▼  │  │ given up          │
///                            (refused,│  │  │ (then whole)      │
///                             lost)   └──┘ ┌────────┐  decode   │
///                                     └──► │ decode │ ──────────┘
///                             handoff      └────────┘
///
/// A leg is one rank's part, from next_request() to the next one. Without media and without a
/// prefill leg there is one kind of leg, whole, and a loss moves it, at most max_migrations times.
///
/// What goes on exactly: the tokens, penalties, stop tokens, limits, usage (the prompt's size and
/// its cached tokens are those of the rank that computed the prompt first), logprobs. What does
/// not: the random numbers of a sampled request without a seed (they were never reproducible). With
/// a seed the numbers go on at the position reached (GenerateRequest::resumed_tokens). Relies on an
/// engine giving an end in the same event as the token that brings it about, as engines and the
/// wire do.
///
/// Handoffs. Each that comes in (embeddings with the request or of an encode leg, KV of a prefill
/// leg) goes out once: it was used, which shows when the leg that got it gives something, or it is
/// among take_releases(). A rank claims before it computes, so that after a loss nobody can know:
/// then it is released, and made again. A refused leg keeps it: a rank that refuses has mostly
/// claimed nothing, and one that finds it gone computes the prompt itself.
///
/// The submitter's own encode leg (original().leg is kEncode) is one leg, whose handoff is the
/// submitter's.
class RequestLife {
  public:
    RequestLife(protocol::GenerateRequest request, std::uint32_t max_migrations);

    enum class Step : std::uint8_t {
        kEncode,  ///< an item of its media
        kPrompt,  ///< as a leg kWhole, or, where may_split(), kPrefill
        kDecode,  ///< from a prefill leg's handoff
    };
    /// What is to be computed next. Embeddings that expire before `by` are given up.
    [[nodiscard]] Step next_step(TimePoint by);
    /// Whether its prompt may be computed by a leg of its own: not once tokens are out, or after
    /// that has failed.
    [[nodiscard]] bool may_split() const { return !whole_only_ && output_.empty(); }
    /// … and where no rank computes whole requests: again after a handoff has failed, once, and
    /// after a loss, with the tokens so far as part of the prompt.
    [[nodiscard]] bool may_split_again() const { return failed_splits_ < kMostSplits; }
    /// Its prompt and limits as of now, for the choice of a rank. Not a leg.
    [[nodiscard]] std::shared_ptr<const protocol::GenerateRequest> to_route() const;

    /// Of an encode leg: the item, the first without embeddings.
    [[nodiscard]] const protocol::MediaItem& item_to_encode() const;

    /// How the embeddings of its media can be had, of the item with the fewest ways. Empty: it has
    /// none, or they don't say.
    [[nodiscard]] std::vector<std::string> media_methods() const;

    /// Begins a leg, or the same again: what to ask a rank for. kWhole of a request without media:
    /// the request itself at first, then prompt + tokens so far with the limits lowered. Never
    /// empty of work: a request whose last token is out has ended.
    [[nodiscard]] std::shared_ptr<const protocol::GenerateRequest> next_request(
        protocol::Leg leg = protocol::Leg::kWhole);
    /// Of the leg that was begun last.
    [[nodiscard]] protocol::Leg leg() const { return leg_; }

    enum class Taken : std::uint8_t {
        kPassOn,   ///< `event` is for the client; with `finish` the request has ended
        kNextLeg,  ///< nothing for the client: go on with next_step(). Nobody is to be left out.
        kRefused,  ///< the leg has given nothing: ask another rank. Costs no move.
        kLost,     ///< as if the rank were lost, or it has failed: go on with lost()
    };
    /// Takes a rank's share of a step in; `event` is changed to what the client is to see.
    [[nodiscard]] Taken take(protocol::StepEvent& event,
                             std::span<const protocol::TokenOutput> tokens);

    /// Whether this leg has given nothing.
    [[nodiscard]] bool refused() const { return output_.size() == leg_first_; }

    /// The rank was lost. nullopt: go on with next_step(). Else how the request ends now: kStop or
    /// kLength where all its tokens are out, else kError with a reason that says how often it was
    /// moved.
    [[nodiscard]] std::optional<protocol::StepEvent> lost(const Error& why);

    /// Whether a prefill leg's KV waits to be taken, and until when.
    [[nodiscard]] bool has_handoff() const { return handoff_ != nullptr; }
    [[nodiscard]] Deadline handoff_expires() const { return handoff_->expires; }
    [[nodiscard]] const protocol::HandoffId& handoff_id() const { return handoff_->id; }
    /// … while its prompt is still being computed.
    [[nodiscard]] bool handoff_is_early() const { return handoff_ && handoff_->early; }
    /// No rank will decode from it, in time: the prompt is computed again by who generates. As
    /// lost(), but that it costs no move.
    [[nodiscard]] std::optional<protocol::StepEvent> give_up_handoff();
    /// Handoffs that nobody will claim because of what has happened since the last call. To be
    /// asked for after every other call.
    [[nodiscard]] std::vector<std::shared_ptr<const protocol::Handoff>> take_releases() {
        return std::exchange(releases_, {});
    }

    /// Ends the request from this side: kCancelled (no error), or kError with one.
    [[nodiscard]] protocol::StepEvent end(protocol::FinishReason how,
                                          std::optional<Error> why = std::nullopt);

    /// Whether an error that a rank gave should be taken to another one: kOverloaded,
    /// kUnavailable, kAborted.
    [[nodiscard]] static bool worth_another_try(const Error& error);
    /// The rank did not get the embeddings that it was told of: they are to be made again.
    [[nodiscard]] static bool lacks_media(const Error& error);

    [[nodiscard]] const protocol::GenerateRequest& original() const { return *original_; }
    [[nodiscard]] std::uint32_t migrations() const { return migrations_; }
    [[nodiscard]] std::uint64_t delivered_tokens() const { return output_.size(); }
    [[nodiscard]] bool ended() const { return ended_; }
    /// Its prompt is computed, here or by a leg of its own.
    [[nodiscard]] bool past_prompt() const { return !output_.empty() || handoff_ != nullptr; }

  private:
    static constexpr int kMostSplits = 2;
    using HandoffPtr = std::shared_ptr<const protocol::Handoff>;

    [[nodiscard]] bool encodes() const { return original_->leg == protocol::Leg::kEncode; }
    [[nodiscard]] std::shared_ptr<const protocol::GenerateRequest> encode_request() const;
    [[nodiscard]] Taken take_end_of_leg(protocol::StepEvent& event);
    [[nodiscard]] std::optional<Taken> take_failure(protocol::StepEvent& event);
    [[nodiscard]] bool fits(const HandoffPtr& handoff) const;
    void used();
    void release(HandoffPtr& handoff);
    void release_media();
    void forget_prefill();
    void split_failed();
    [[nodiscard]] bool can_encode_again() const;
    [[nodiscard]] std::optional<protocol::StepEvent> end_without_media();
    [[nodiscard]] std::uint32_t usage_of(const protocol::StepEvent& event) const;
    void fill_usage(protocol::StepEvent& event) const;
    /// How the request has ended by its own rules, if it has.
    [[nodiscard]] std::optional<protocol::FinishReason> complete() const;

    std::shared_ptr<const protocol::GenerateRequest> original_;
    std::vector<protocol::TokenId> output_;
    std::uint64_t leg_first_ = 0;  ///< output_'s size where the present leg began
    protocol::Leg leg_ = protocol::Leg::kWhole;
    std::uint32_t max_migrations_;
    std::uint32_t migrations_ = 0;
    std::optional<std::uint32_t> prompt_tokens_;
    std::uint32_t cached_tokens_ = 0;
    bool usage_open_ = false;        ///< the present leg computed the prompt, and has not ended
    HandoffPtr handoff_;             ///< of a prefill leg, not known to be used
    std::vector<HandoffPtr> media_;  ///< embeddings by item, not known to be used; null: none
    std::vector<HandoffPtr> releases_;
    bool whole_only_ = false;
    int failed_splits_ = 0;
    bool split_counted_ = false;  ///< the present one is among them
    bool ended_ = false;
};

}  // namespace stator::legs
