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
    std::chrono::nanoseconds step{0};      ///< time of one step; 0 = as fast as it goes
    std::uint32_t tokens_per_step = 1;     ///< per request
    std::uint32_t fail_after_tokens = 0;   ///< end with kError after so many tokens; 0 = never
};

/// Token i of the output is token i mod prompt length of the prompt; ends with kLength at max_tokens. Logprobs are 0.
[[nodiscard]] std::unique_ptr<Engine> make_echo_engine(EchoOptions options);

}  // namespace stator::engine
