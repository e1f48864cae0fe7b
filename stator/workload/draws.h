#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "stator/workload/options.h"
#include "stator/workload/request_spec.h"

namespace stator::workload {

/// Everything random about requests but their start.
class Draws {
  public:
    Draws(const WorkloadOptions& options, std::uint64_t seed);

    /// A length with this mean and coefficient of variation, log-normal, at least 1.
    [[nodiscard]] std::uint32_t length(std::uint32_t mean, double cv);
    [[nodiscard]] std::uint32_t input() { return length(options_.isl, options_.isl_cv); }
    [[nodiscard]] std::uint32_t output() {
        return length(options_.osl.value_or(kStandardOutput), options_.osl_cv);
    }
    /// A group, by the Zipf exponent.
    [[nodiscard]] std::uint32_t group();
    /// Think time: exponential with the option's mean.
    [[nodiscard]] std::chrono::nanoseconds think();
    /// Images and adapter of a request.
    void decorate(RequestSpec& request);
    /// Content that no other piece of the run has.
    [[nodiscard]] std::uint64_t fresh_content();

    static constexpr std::uint32_t kStandardOutput = 100;

  private:
    const WorkloadOptions options_;
    std::uint64_t seed_;
    std::uint64_t fresh_ = 0;
    std::mt19937_64 random_;
    std::vector<double> popularity_;  ///< of groups, summed up
};

}  // namespace stator::workload
