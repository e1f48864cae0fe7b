#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/generate.h"

namespace stator::legs {

/// The life of one request over the workers that compute it: what was delivered so far, and what a
/// worker must be asked for to go on after another was lost. Pure: no time, no threads, no I/O.
///
///   asking ──► running ──► ended
///     ▲           │ lost
///     └───────────┘  at most max_migrations times
///
/// A leg is one worker's part, from next_request() to the next one. What goes on exactly: the
/// tokens, penalties, stop tokens, limits, usage (the prompt's size and its cached tokens are those
/// of the first worker that gave a token), logprobs. What does not: the random numbers of a sampled
/// request without a seed (they were never reproducible). With a seed the numbers go on at the
/// position reached (protocol::GenerateRequest::resumed_tokens). Relies on an engine giving an end
/// in the same event as the token that brings it about, as engines and the wire do.
class RequestLife {
  public:
    RequestLife(protocol::GenerateRequest request, std::uint32_t max_migrations);

    /// What to ask a worker for now: the request itself at first, then prompt + tokens so far with
    /// the limits lowered. Never empty of work: a request whose last token is out has ended.
    [[nodiscard]] std::shared_ptr<const protocol::GenerateRequest> next_request();

    /// Takes a worker's share of a step in; `event` is changed to what the client is to see (usage
    /// of the first leg). True where it is to be passed on. False: an end that another worker can
    /// still turn into a success (see worth_another_try); nothing of it is to be passed on, and the
    /// caller takes the request elsewhere: after refused() with next_request(), else with lost().
    [[nodiscard]] bool take(protocol::StepEvent& event,
                            std::span<const protocol::TokenOutput> tokens);

    /// Whether this leg has given nothing: its worker's end is a refusal and costs no migration.
    [[nodiscard]] bool refused() const { return output_.size() == leg_first_; }

    /// The worker was lost. nullopt: ask another one with next_request(). Else how the request ends
    /// now: kStop or kLength where all its tokens are out, else kError with a reason that says how
    /// often it was moved.
    [[nodiscard]] std::optional<protocol::StepEvent> lost(const Error& why);

    /// Ends the request from this side: kCancelled (no error), or kError with one.
    [[nodiscard]] protocol::StepEvent end(protocol::FinishReason how,
                                          std::optional<Error> why = std::nullopt);

    /// Whether an error that a worker gave should be taken to another one: kOverloaded,
    /// kUnavailable, kAborted.
    [[nodiscard]] static bool worth_another_try(const Error& error);

    [[nodiscard]] const protocol::GenerateRequest& original() const { return *original_; }
    [[nodiscard]] std::uint32_t migrations() const { return migrations_; }
    [[nodiscard]] std::uint64_t delivered_tokens() const { return output_.size(); }
    [[nodiscard]] bool ended() const { return ended_; }

  private:
    void fill_usage(protocol::StepEvent& event) const;
    /// How the request has ended by its own rules, if it has.
    [[nodiscard]] std::optional<protocol::FinishReason> complete() const;

    std::shared_ptr<const protocol::GenerateRequest> original_;
    std::vector<protocol::TokenId> output_;
    std::uint64_t leg_first_ = 0;  ///< output_'s size where the present leg began
    std::uint32_t max_migrations_;
    std::uint32_t migrations_ = 0;
    std::optional<std::uint32_t> prompt_tokens_;
    std::uint32_t cached_tokens_ = 0;
    bool ended_ = false;
};

}  // namespace stator::legs
