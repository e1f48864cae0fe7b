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
/// What goes on exactly: the tokens, penalties, stop tokens, limits, usage (the prompt's size and
/// its cached tokens are those of the first worker), logprobs. What does not: the random numbers of
/// a sampled request without a seed (they were never reproducible). With a seed the numbers go on
/// at the position reached (protocol::GenerateRequest::resumed_tokens).
class RequestLife {
  public:
    RequestLife(protocol::GenerateRequest request, std::uint32_t max_migrations);

    /// What to ask a worker for now: the request itself at first, then prompt + tokens so far with
    /// the limits lowered. Never empty of work: a request whose last token is out has ended.
    [[nodiscard]] std::shared_ptr<const protocol::GenerateRequest> next_request();

    /// Takes a worker's share of a step in; `event` is changed to what the client is to see (usage
    /// of the first leg, positions). True where it is to be passed on: an end that another worker
    /// can still turn into a success (see worth_another_try) is not.
    [[nodiscard]] bool take(protocol::StepEvent& event,
                            std::span<const protocol::TokenOutput> tokens);

    /// The worker was lost. nullopt: ask another one with next_request(). Else how the request ends
    /// now: kStop or kLength where all its tokens are out, else kError with a reason that says how
    /// often it was moved.
    [[nodiscard]] std::optional<protocol::StepEvent> lost(const Error& why);

    /// Whether an error that a worker gave before any token of this leg should be taken to another
    /// one: kOverloaded, kUnavailable, kAborted.
    [[nodiscard]] static bool worth_another_try(const Error& error);

    [[nodiscard]] const protocol::GenerateRequest& original() const;
    [[nodiscard]] std::uint32_t migrations() const { return migrations_; }
    [[nodiscard]] std::uint64_t delivered_tokens() const { return output_.size(); }
    [[nodiscard]] bool ended() const { return ended_; }

  private:
    std::shared_ptr<const protocol::GenerateRequest> original_;
    std::vector<protocol::TokenId> output_;
    std::uint32_t max_migrations_;
    std::uint32_t migrations_ = 0;
    std::optional<std::uint32_t> prompt_tokens_;
    std::uint32_t cached_tokens_ = 0;
    bool ended_ = false;
};

}  // namespace stator::legs
