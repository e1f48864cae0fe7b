#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/codec/json.h"
#include "stator/engine/dialects/request_body.h"
#include "stator/protocol/generate.h"

namespace stator::engine {

/// Reads one streamed answer, event by event (the data of the server's "data:" lines), into tokens.
/// Pure; one thread at a time.
///
/// The tokens of the last event are kept back until the usage behind it has come, so that an end
/// comes with its tokens and with all that is to be said of it.
class AnswerReader {
  public:
    /// `logprobs`: the request asked for them.
    AnswerReader(Dialect dialect, bool logprobs) : dialect_(dialect), logprobs_(logprobs) {}

    /// What an event gave. Cleared by take(). TokenOutput::top_first counts from `top`'s beginning.
    struct Piece {
        std::vector<protocol::TokenOutput> tokens;
        std::vector<protocol::TokenLogprob> top;
        std::optional<protocol::FinishReason> finish;
        std::optional<Error> error;  ///< with kError: what the engine said in mid-stream
        std::uint32_t prompt_tokens = 0;
        std::uint32_t cached_tokens = 0;
        bool cached_told = false;  ///< the engine has said how many
    };
    /// kDataLoss: not what this dialect says; the answer is of no further use.
    [[nodiscard]] Result<void> take(std::string_view data, Piece& out);
    /// The stream's end. Where the engine had not ended the answer: kUnavailable.
    [[nodiscard]] Result<void> end(Piece& out);

    [[nodiscard]] bool ended() const { return ended_; }
    [[nodiscard]] std::uint64_t tokens() const { return produced_; }

  private:
    [[nodiscard]] Result<void> openai(codec::JsonView root, Piece& out);
    [[nodiscard]] Result<void> choice(codec::JsonView choice, Piece& out);
    [[nodiscard]] Result<void> named_logprobs(codec::JsonView logprobs, Piece& out,
                                              std::size_t first) const;
    [[nodiscard]] Result<void> generate_logprobs(codec::JsonView logprobs, Piece& out,
                                                 std::size_t first) const;
    [[nodiscard]] Result<void> sglang(codec::JsonView root, Piece& out);
    [[nodiscard]] Result<void> sglang_logprobs(codec::JsonView meta, Piece& out, std::size_t first,
                                               std::size_t skip) const;
    [[nodiscard]] Result<void> tokens_of(codec::JsonView ids, std::size_t skip, Piece& out);
    void usage(codec::JsonView usage);
    void fail(codec::JsonView error, Piece& out);
    void give_end(Piece& out);

    const Dialect dialect_;
    const bool logprobs_;
    codec::JsonDocument document_;
    Piece last_;  ///< kept back
    bool finishing_ = false;
    bool ended_ = false;
    std::uint64_t produced_ = 0;
    std::uint32_t prompt_tokens_ = 0;
    std::uint32_t cached_tokens_ = 0;
    bool cached_told_ = false;
};

}  // namespace stator::engine
