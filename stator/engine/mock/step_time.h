#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "stator/base/error.h"

namespace stator::engine::mock {

/// What one step computes: what its time depends on.
struct StepShape {
    std::uint32_t prefill_tokens = 0;  ///< prompt tokens computed
    std::uint32_t prefill_sequences = 0;
    std::uint64_t prefill_context =
        0;  ///< sum over computed prompt tokens of the tokens before them
    std::uint32_t decode_sequences = 0;
    std::uint64_t decode_context = 0;  ///< sum over decoding sequences of their tokens so far
    std::uint32_t images = 0;          ///< encoded in this step
    std::uint32_t image_tokens = 0;
    bool operator==(const StepShape&) const = default;
};

/// A step that always takes the same.
struct ConstantTime {
    double step_ms = 10.0;
};

/// base + the sum of each part of the shape times its factor: compute bound prefill with attention,
/// memory bound decode.
struct LinearTime {
    double base_ms = 0.0;
    double prefill_token_us = 0.0;
    double prefill_context_ns = 0.0;
    double decode_sequence_us = 0.0;
    double decode_context_ns = 0.0;
};

/// Prefill: polynomial of the step's prompt tokens; decode: polynomial of the decoding sequences'
/// context. Milliseconds; coefficients from the constant up. They add up.
struct PolynomialTime {
    std::vector<double> prefill_ms;
    std::vector<double> decode_ms;
};

/// Measured points, interpolated linearly and held at the edges. Axes ascend.
struct TableTime {
    std::vector<double> prefill_tokens;
    std::vector<double> prefill_ms;  ///< one per prefill_tokens
    std::vector<double> decode_sequences;
    std::vector<double> decode_context;  ///< mean tokens per sequence
    std::vector<double> decode_ms;       ///< row by row: sequences × context
};

/// What the images of a step add.
struct EncoderTime {
    double image_ms = 0.0;
    double token_us = 0.0;
};

/// How long a step takes. A value.
class StepTime {
  public:
    using Form = std::variant<ConstantTime, LinearTime, PolynomialTime, TableTime>;

    StepTime() = default;
    explicit StepTime(Form form, EncoderTime encoder = {})
        : form_(std::move(form)), encoder_(encoder) {}

    [[nodiscard]] std::chrono::nanoseconds of(const StepShape& shape) const;
    [[nodiscard]] const EncoderTime& encoder() const { return encoder_; }
    void set_encoder(EncoderTime encoder) { encoder_ = encoder; }

  private:
    Form form_;
    EncoderTime encoder_;
};

/// A kind of engine by name: step time, memory and what else depends on model and device.
struct Preset {
    std::string_view name;     ///< "llama-3.1-8b-h100"
    std::string_view meaning;  ///< one line for --help
    std::string_view source;   ///< where the figures were published
    StepTime step_time;
    std::uint64_t kv_bytes_per_token = 0;
    std::uint32_t blocks = 0;  ///< of 16 tokens, that fit beside the weights
};
[[nodiscard]] std::span<const Preset> presets();
/// Unknown: an error that names the ones there are.
[[nodiscard]] Result<const Preset*> find_preset(std::string_view name);

}  // namespace stator::engine::mock
