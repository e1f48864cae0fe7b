#pragma once

#include <cstdint>
#include <unordered_map>

#include "stator/estimate/scale_filter.h"

namespace stator::router {

/// Between which places a handoff goes. Zones by number; 0 is one that is not known.
struct HandoffWay {
    std::uint32_t from_zone = 0;
    std::uint32_t to_zone = 0;
    bool same_host = false;
};

/// How long handoffs really take, against what was thought: for each pair of zones, and within one
/// host, a factor that is learned from those that were made.
/// What was learned fades (half of the factor's logarithm in kHalfLife_s), so that a way that is
/// not used any more because it was slow is tried again. Bounded: of further pairs nothing is
/// learned. Not thread-safe.
class HandoffTimes {
  public:
    /// Seconds, where `usual_s` is what it takes within a zone. Before anything is known, twice
    /// that from zone to zone, and half of it on one host.
    [[nodiscard]] double seconds(const HandoffWay& way, double usual_s, double now_s) const;
    /// One has taken so long. `prior_std`: how far off what is thought may be, to begin with.
    void observe(const HandoffWay& way, double usual_s, double observed_s, double prior_std,
                 double now_s);

    static constexpr std::size_t kMostWays = 4096;
    static constexpr double kHalfLife_s = 60;

  private:
    [[nodiscard]] static std::uint64_t key(const HandoffWay& way);
    [[nodiscard]] static double prior(const HandoffWay& way, double usual_s);

    struct Learned {
        estimate::ScaleFilter scale;
        double at_s = 0;
    };
    std::unordered_map<std::uint64_t, Learned> ways_;
};

}  // namespace stator::router
