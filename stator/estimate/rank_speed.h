#pragma once

#include "stator/estimate/scale_filter.h"
#include "stator/estimate/time_model.h"

namespace stator::estimate {

/// What is expected of one rank: its pool's priors and how far it is off them. A value; not
/// thread-safe.
class RankSpeed {
  public:
    RankSpeed() = default;
    /// `prior_std`: ScaleFilterOptions::initial_std.
    RankSpeed(const PrefillTime& prefill, const DecodeStepTime& step,
              double prior_std = ScaleFilterOptions().initial_std)
        : prefill_(prefill), step_(step) {
        ScaleFilterOptions options;
        options.initial_std = prior_std;
        prefill_scale_ = ScaleFilter(options);
        step_scale_ = ScaleFilter(options);
    }

    [[nodiscard]] const PrefillTime& prefill_prior() const { return prefill_; }
    [[nodiscard]] const DecodeStepTime& step_prior() const { return step_; }
    [[nodiscard]] const ScaleFilter& prefill_scale() const { return prefill_scale_; }
    [[nodiscard]] const ScaleFilter& step_scale() const { return step_scale_; }

    [[nodiscard]] double prefill_s(double tokens, double context) const {
        return prefill_.seconds(tokens, context) * prefill_scale_.scale();
    }
    [[nodiscard]] double step_s(double sequences, double kv_tokens) const {
        return step_.seconds(sequences, kv_tokens) * step_scale_.scale();
    }

    /// Of a rank of which nothing is known: what its pool turned out to be.
    void start_prefill_at(double scale) { prefill_scale_.start_at(scale); }
    /// Prefill work that the prior puts at `prior_s` took `observed_s`.
    void observe_prefill(double observed_s, double prior_s, double weight = 1.0) {
        prefill_scale_.observe(observed_s, prior_s, weight);
    }
    /// A step that computed no prompt.
    void observe_step(double observed_s, double sequences, double kv_tokens) {
        step_scale_.observe(observed_s, step_.seconds(sequences, kv_tokens));
    }

  private:
    PrefillTime prefill_;
    DecodeStepTime step_;
    ScaleFilter prefill_scale_;
    ScaleFilter step_scale_;
};

}  // namespace stator::estimate
