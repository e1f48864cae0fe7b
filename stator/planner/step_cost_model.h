#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "stator/planner/profile.h"

namespace stator::planner {

/// Learns what steps cost from what a role's workers report of windows: seconds inside the model =
/// base · steps + prefill · prompt tokens + decode · generated tokens, by least squares with
/// factors that are not negative. Old windows fade. Of a profile the scale is taken from what is
/// observed at once, the shape counts as observations made beforehand, which fade too. Always
/// finite.
class StepCostModel {
  public:
    StepCostModel() : StepCostModel(std::nullopt) {}
    explicit StepCostModel(const std::optional<RoleProfile>& profile);

    /// What one worker did in a window. Values that make no sense are ignored.
    void observe(double steps, double prefill_tokens, double decode_tokens, double seconds);
    /// So many images took an encoder so long.
    void observe_images(double images, double seconds);
    /// Before the observations of the next window.
    void fade();

    [[nodiscard]] bool known() const { return known_; }
    [[nodiscard]] const StepCost& cost() const { return cost_; }
    /// What is observed over what the profile says, as a factor of time: 1 = it is right. Without
    /// profile always 1.
    [[nodiscard]] double contradiction() const;

  private:
    static constexpr std::size_t kFactors = 3;
    using Vector = std::array<double, kFactors>;

    void add_row(const Vector& x, double y, double weight);
    void solve();

    std::array<Vector, kFactors> squares_{};
    Vector products_{};
    // The profile's points: its shape, at the scale that is observed.
    std::array<Vector, kFactors> prior_squares_{};
    Vector prior_products_{};
    double images_ = 0;
    double image_seconds_ = 0;
    double log_ratio_ = 0;
    double ratio_weight_ = 0;
    bool known_ = false;
    std::optional<StepCost> prior_;
    StepCost cost_;
};

}  // namespace stator::planner
