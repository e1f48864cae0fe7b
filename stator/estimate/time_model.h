#pragma once

namespace stator::estimate {

/// How long a prompt takes to compute on an otherwise idle rank, in seconds. A prior for a whole
/// pool: what a rank really needs is this times its scale (ScaleFilter).
struct PrefillTime {
    double base_s = 0.01;
    double per_token_s = 1e-4;
    double per_token_context_s = 0.0;  ///< for a token and each token before it: attention

    /// base + per_token · n + per_token_context · n · (context + n/2), where n tokens are to be
    /// computed after `context` others that are there already. Never negative.
    [[nodiscard]] double seconds(double tokens, double context) const {
        return base_s + token_seconds(tokens, context);
    }
    /// The same without the base: what it adds where others are computed in the same steps.
    [[nodiscard]] double token_seconds(double tokens, double context) const {
        return tokens * (per_token_s + per_token_context_s * (context + 0.5 * tokens));
    }
    bool operator==(const PrefillTime&) const = default;
};

/// How long one step of decoding takes, in seconds.
struct DecodeStepTime {
    double base_s = 0.01;
    double per_sequence_s = 0.0;
    double per_kv_token_s = 0.0;  ///< of all sequences' contexts together

    [[nodiscard]] double seconds(double sequences, double kv_tokens) const {
        return base_s + per_sequence_s * sequences + per_kv_token_s * kv_tokens;
    }
    bool operator==(const DecodeStepTime&) const = default;
};

/// All factors finite and not negative, and not all of them zero.
[[nodiscard]] bool is_valid(const PrefillTime& time);
[[nodiscard]] bool is_valid(const DecodeStepTime& time);

}  // namespace stator::estimate
