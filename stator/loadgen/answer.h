#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/clock.h"
#include "stator/codec/json.h"
#include "stator/codec/sse.h"
#include "stator/report/record.h"

namespace stator::loadgen {

/// Why an answer is not a good one, as records have it, with what a person should know.
struct Fault {
    report::Outcome outcome = report::Outcome::kBadAnswer;
    std::string reason;   ///< short, few distinct ones: "http 500"
    std::string message;  ///< a sentence; from the server where it gave one
};

/// The server's count of tokens.
struct Usage {
    std::uint32_t prompt_tokens = 0;
    std::uint32_t cached_tokens = 0;
    std::uint32_t output_tokens = 0;
};

/// Reads one streamed answer of /v1/chat/completions or /v1/completions: when which piece came, the
/// text, the usage. Bytes in, no I/O.
class StreamedAnswer {
  public:
    /// `json`: shared by all answers of a loop, its buffers are kept. `keep_text`: text() is
    /// wanted.
    StreamedAnswer(codec::JsonDocument& json, bool keep_text)
        : json_(json), keep_text_(keep_text) {}

    /// More of the body, and when it was read. Nothing happens after a fault.
    void feed(std::string_view bytes, TimePoint at);
    /// The body has ended in order.
    void end();

    [[nodiscard]] const std::optional<Fault>& fault() const { return fault_; }
    /// When each piece with text came. An answer without any text at all has its finish here.
    [[nodiscard]] std::span<const TimePoint> pieces() const { return pieces_; }
    [[nodiscard]] const std::optional<Usage>& usage() const { return usage_; }
    /// As the usage says, else as many as pieces.
    [[nodiscard]] std::uint32_t output_tokens() const;
    [[nodiscard]] std::string& text() { return text_; }

  private:
    void on_event(std::string_view data, TimePoint at);
    void on_choice(codec::JsonView choice, TimePoint at);
    void fail(report::Outcome outcome, std::string reason, std::string message);

    codec::JsonDocument& json_;
    bool keep_text_;
    codec::SseReader events_{kMaxEvent};
    std::vector<TimePoint> pieces_;
    std::optional<TimePoint> finish_;
    std::optional<Usage> usage_;
    std::string text_;
    bool done_ = false;
    std::optional<Fault> fault_;
    static constexpr std::size_t kMaxEvent = 4 * 1024 * 1024;
};

/// Seconds between neighbouring tokens of an answer of `tokens` tokens that came in these pieces:
/// the first piece counts as one token, the others share the rest as evenly as whole tokens can,
/// and the tokens of one piece share its gap. Max(tokens, pieces) - 1 numbers, or none for one
/// piece.
[[nodiscard]] std::vector<float> token_gaps(std::span<const TimePoint> pieces,
                                            std::uint32_t tokens);

/// The `error.message` of an OpenAI-shaped body, else its beginning, on one line; for sentences.
[[nodiscard]] std::string error_message(codec::JsonDocument& json, std::string_view body);

}  // namespace stator::loadgen
