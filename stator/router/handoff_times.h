#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>

namespace stator::router {

/// How fast a transfer method is taken to be before a handoff has gone that way.
struct TransferSpeed {
    double latency_s = 0;
    double gb_per_s = 1;  ///< 1e9 bytes
};
/// "shm" 20 GB/s, "nixl" 10, "tcp" 2, with what it takes to say that a handoff is there and to take
/// it up: rounded down from what ./dev bench transfer shows. Others: 1 GB/s.
[[nodiscard]] TransferSpeed speed_of(std::string_view method);

/// Between which places a handoff goes, and how. Zones and methods by number; 0 is one that is not
/// known.
struct HandoffWay {
    std::uint32_t from_zone = 0;
    std::uint32_t to_zone = 0;
    std::uint32_t method = 0;
    bool same_host = false;
};

/// What a handoff is thought to take: seconds whatever it holds, and seconds for its size.
struct HandoffPrior {
    double fixed_s = 0;
    double size_s = 0;
    [[nodiscard]] double total_s() const { return fixed_s + size_s; }
};

/// How long handoffs really take, against what was thought: for each way two factors, one of the
/// fixed part and one of the part that grows with the size, learned from those that were made by
/// least squares (of relative errors, with the prior as an observation of its own: Bayesian linear
/// regression). So a few small handoffs don't say how long a large one takes, and a slow link shows
/// however short its latency is.
/// What was learned fades (its weight halves in kHalfLife_s), so that a way that is not used any
/// more because it was slow is tried again. Bounded: of further ways nothing is learned. Not
/// thread-safe.
class HandoffTimes {
  public:
    [[nodiscard]] double seconds(const HandoffWay& way, HandoffPrior prior, double now_s) const;
    /// One has taken so long. `prior_std`: how far off what is thought may be, to begin with, as
    /// the standard deviation of a logarithm.
    void observe(const HandoffWay& way, HandoffPrior prior, double observed_s, double prior_std,
                 double now_s);

    static constexpr std::size_t kMostWays = 4096;
    static constexpr double kHalfLife_s = 60;

  private:
    [[nodiscard]] static std::uint64_t key(const HandoffWay& way);

    struct Factors {
        double fixed = 1;
        double size = 1;
        [[nodiscard]] double of(HandoffPrior p) const {
            return fixed * p.fixed_s + size * p.size_s;
        }
    };
    /// Sums over what was observed of u, v (the parts' shares of the prior) and z (what it took,
    /// relative to the prior).
    struct Learned {
        double prior_weight = 1;  ///< in observations
        double uu = 0, uv = 0, vv = 0, uz = 0, vz = 0;
        double at_s = 0;
        [[nodiscard]] Factors factors(double now_s) const;
    };
    std::unordered_map<std::uint64_t, Learned> ways_;
};

}  // namespace stator::router
