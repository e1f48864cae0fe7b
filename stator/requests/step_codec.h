#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/generate.h"
#include "stator/requests/wire.h"

namespace stator::requests {

/// kTokens, packed: the shares of many streams in one engine step, one behind the other. A share is
///
///   varint  stream, as zigzag difference to the share before it in the frame (first: to 0)
///   u8      flags: 1 count, 2 usage, 4 finish, 8 logprobs, 16 error
///   varint  position: how many tokens of this stream came before
///   varint  count of tokens (flag 1; else it is 1)
///   varint  prompt tokens, varint cached tokens (flag 2)
///   u8      finish reason (flag 4)
///   varint  bytes of an error map, and the map (flag 16)
///   u32     count times: token
///   f32, varint k, k times (u32 token, f32 logprob)    count times (flag 8)
///
/// varint: 7 bits a byte, low ones first, at most 5 bytes.

constexpr std::size_t kMaxTopPerToken = 1024;

/// Collects shares into as few frames as they fit in. A share that is too long for a frame goes on
/// in the next: usage is on its first piece, finish and error on its last.
class StepWriter {
  public:
    /// `tokens` and `top` are the event's own: event.first is not looked at,
    /// TokenOutput::top_first counts from `top`'s beginning.
    void add(std::string& out, std::uint32_t stream, std::uint32_t position, bool logprobs,
             const protocol::StepEvent& event, std::span<const protocol::TokenOutput> tokens,
             std::span<const protocol::TokenLogprob> top);
    /// Ends the frame that is being filled, if there is one.
    void finish(std::string& out);

  private:
    void head(std::uint32_t stream, std::uint32_t position, std::uint8_t flags,
              std::uint32_t count);
    void number(std::uint32_t v);
    template <typename T>
    void raw(T v);
    [[nodiscard]] std::size_t room() const { return kMaxPayloadBytes - used_; }
    void add_long(std::string& out, std::uint32_t stream, std::uint32_t position, bool logprobs,
                  const protocol::StepEvent& event, std::span<const protocol::TokenOutput> tokens,
                  std::span<const protocol::TokenLogprob> top);

    std::array<char, kMaxPayloadBytes> buffer_;
    std::size_t used_ = 0;
    std::uint32_t last_ = 0;
};

/// One stream's share as read. Used again from share to share, so that nothing is allocated.
struct Share {
    std::uint32_t stream = 0;
    std::uint32_t position = 0;
    std::optional<protocol::FinishReason> finish;
    std::uint32_t prompt_tokens = 0;
    std::uint32_t cached_tokens = 0;
    std::optional<Error> error;
    std::vector<protocol::TokenOutput> tokens;
    std::vector<protocol::TokenLogprob> top;
};

class StepReader {
  public:
    explicit StepReader(std::string_view payload)
        : at_(payload.data()), end_(payload.data() + payload.size()) {}
    /// False at the end. kInvalidArgument: truncated, an unknown flag or finish reason, more tokens
    /// than there are bytes.
    [[nodiscard]] Result<bool> next(Share& share);

  private:
    [[nodiscard]] bool number(std::uint32_t& v);
    template <typename T>
    [[nodiscard]] bool raw(T& v);
    [[nodiscard]] bool tokens(Share& share, std::uint32_t count);
    [[nodiscard]] bool logprobs(Share& share);
    [[nodiscard]] Result<void> ending(Share& share, std::uint8_t flags);

    const char* at_;
    const char* end_;
    std::uint32_t last_ = 0;
};

}  // namespace stator::requests
