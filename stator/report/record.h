#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace stator::report {

/// How a request ended, as its client saw it.
enum class Outcome : std::uint8_t {
    kOk = 1,
    kRefused,      ///< 429 or 503: the server said no before any work
    kHttpError,    ///< any other status but 2xx
    kConnect,      ///< no connection
    kReset,        ///< closed or reset before the answer's end
    kTimeout,      ///< nothing came for too long
    kBadAnswer,    ///< an answer that is not what the protocol says
    kServerError,  ///< an error in the stream
    kUnfinished,   ///< still running when the run ended or was stopped
};
std::string_view to_string(Outcome outcome);

/// What happened to one request. All times are seconds since the run's begin, on the client's
/// clock (load generator) or virtual (simulation). Latencies count from `intended`, the start that
/// was fixed in advance, so that a stall of the server or of the client is not hidden.
struct RequestRecord {
    std::uint64_t index = 0;
    double intended = 0.0;
    double sent = 0.0;        ///< when it was really sent; negative: never
    double first_token = -1;  ///< -1: none came
    double end = 0.0;         ///< last token, or the error
    Outcome outcome = Outcome::kOk;
    std::string reason;  ///< with a failure: a short kind, such as "http 500"; few distinct ones
    std::uint32_t input_tokens = 0;
    std::uint32_t cached_tokens = 0;  ///< of the input, as the server says
    std::uint32_t output_tokens = 0;
    /// Seconds between neighbouring tokens, in order: output_tokens - 1 where every token was seen
    /// alone. Tokens that came in one chunk share its gap evenly.
    std::span<const float> gaps;
    std::uint32_t worker = 0;  ///< simulation: who generated it
};

}  // namespace stator::report
