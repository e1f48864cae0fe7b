#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "stator/engine/engine.h"

namespace stator::engine {

struct EchoOptions {
    std::uint32_t context_tokens = 131'072;
    std::uint32_t max_running = 256;
    std::uint32_t max_waiting = 1024;
    std::chrono::nanoseconds step{0};     ///< time of one step; 0 = as fast as it goes
    std::uint32_t tokens_per_step = 1;    ///< per request; 0 counts as 1
    std::uint32_t fail_after_tokens = 0;  ///< end with kError after so many tokens; 0 = never
    std::uint32_t cached_tokens = 0;      ///< reported as cached, at most prompt - 1; nothing is
};

/// Token i of the output is token i mod prompt length of the prompt; ends with kLength at
/// max_tokens, or with kStop at one of the request's stop tokens (once min_tokens are out). The
/// chosen token's logprob is 0; of k alternatives the j-th is token + j with logprob -j (the chosen
/// one itself is j = 0). A resumed request goes on where its output stopped: with r resumed tokens
/// the next token is number r, and the prompt is what lies before them.
[[nodiscard]] std::unique_ptr<Engine> make_echo_engine(EchoOptions options);

}  // namespace stator::engine
