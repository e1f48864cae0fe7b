#pragma once

#include <cstddef>
#include <vector>

#include "stator/estimate/forecast/model.h"

namespace stator::forecast {

/// What came at this time of the season before, times how much more or less than then comes now.
/// The profile has up to kBins bins over a season; a bin is the mean of its windows, and earlier
/// seasons fade. Where the profile is not known yet, the level of late. Time passes by windows:
/// seasons begin where the series does.
class Seasonal final : public Model {
  public:
    static constexpr std::size_t kBins = 288;  ///< of a day: five minutes each

    Seasonal(double window_s, double season_s);

    void observe(double value) override;
    void skip() override;
    [[nodiscard]] double point(int steps) const override;

  private:
    static constexpr double kUnknown = -1;
    [[nodiscard]] double profile(std::size_t window) const;
    void pass();

    std::size_t season_;  ///< in windows
    std::size_t bins_;
    std::vector<double> profile_;  ///< kUnknown where no season told
    std::size_t window_ = 0;       ///< of the season, that comes next
    double bin_sum_ = 0;
    double bin_seen_ = 0;
    double seen_ = 0;
    double level_ = 0;           ///< mean of late
    double profile_level_ = -1;  ///< the same of the profile at those times
};

}  // namespace stator::forecast
