#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "stator/report/report.h"

namespace stator::report {

/// A distribution of non-negative figures in constant memory: a log-linear histogram, every octave
/// cut into 2^bits equal buckets. Count, mean, least and greatest are exact; a percentile is off by
/// at most max_relative_error() within [kLeast, kGreatest]. Below kLeast all values are one bucket,
/// above kGreatest too, and percentiles there are no better than the exact ends. Negative values
/// and NaN count as zero, those above kBeyond as kBeyond. Not thread-safe.
class Distribution {
  public:
    static constexpr int kLeastOctave = -20;    ///< 2^-20 ms is a nanosecond
    static constexpr int kGreatestOctave = 34;  ///< 2^34 ms are 198 days
    static constexpr double kLeast = 0x1p-20;
    static constexpr double kGreatest = 0x1p34;
    static constexpr double kBeyond = 1e18;

    /// 9 bits: 0.1 %, 220 kB. 6 bits: 0.8 %, 28 kB. Memory is taken by the first value.
    explicit Distribution(unsigned bits = 9) : bits_(bits) {}

    void add(double value) { add_many(std::span<const double>(&value, 1), 1.0); }

    /// Adds each value times `scale`.
    template <typename Number>
    void add_many(std::span<const Number> values, double scale);

    /// Adds what the other one holds, which must have the same bits.
    void merge(const Distribution& other);

    [[nodiscard]] std::uint64_t count() const { return count_; }
    [[nodiscard]] double mean() const {
        return count_ == 0 ? 0.0 : sum_ / static_cast<double>(count_);
    }
    [[nodiscard]] double sum() const { return sum_; }
    [[nodiscard]] double min() const { return count_ == 0 ? 0.0 : min_; }
    [[nodiscard]] double max() const { return count_ == 0 ? 0.0 : max_; }
    [[nodiscard]] double max_relative_error() const {
        return 0.5 / static_cast<double>(1u << bits_);
    }

    /// The values below which these shares of the samples lie, linear between neighbouring samples
    /// (numpy.percentile's default). `shares` ascend, each within [0, 1]. Zeros where empty.
    [[nodiscard]] std::vector<double> percentiles(std::span<const double> shares) const;
    [[nodiscard]] double percentile(double share) const;

    /// All a report says of it. The curve's points lie closer towards both ends.
    [[nodiscard]] Summary summary() const;

  private:
    [[nodiscard]] std::size_t bucket_count() const {
        return (static_cast<std::size_t>(kGreatestOctave - kLeastOctave) << bits_) + 2;
    }
    /// The middle of a bucket, not beyond the exact ends.
    [[nodiscard]] double bucket_value(std::size_t bucket) const;
    [[nodiscard]] std::int64_t first_code() const;
    void reserve_buckets();

    unsigned bits_;
    std::uint64_t count_ = 0;
    double sum_ = 0;
    double min_ = std::numeric_limits<double>::infinity();
    double max_ = 0;
    // [0]: below kLeast; the last: kGreatest and above. Empty until the first value.
    std::vector<std::uint64_t> buckets_;
};

inline std::int64_t Distribution::first_code() const {
    // The upper bits of a double (exponent, then mantissa) ascend with it, and number the buckets.
    return std::bit_cast<std::int64_t>(kLeast) >> (52 - bits_);
}

template <typename Number>
void Distribution::add_many(std::span<const Number> values, double scale) {
    if (values.empty()) return;
    if (buckets_.empty()) reserve_buckets();
    // Locals: the compiler can't know that counting in a bucket leaves the members alone.
    std::uint64_t* const buckets = buckets_.data();
    const auto last = static_cast<std::int64_t>(buckets_.size()) - 1;
    const std::int64_t before = first_code() - 1;
    const unsigned shift = 52 - bits_;
    double sum = 0;
    double least = min_;
    double greatest = max_;
    for (const Number raw : values) {
        double value = static_cast<double>(raw) * scale;
        value = value > 0 ? std::min(value, kBeyond) : 0.0;
        sum += value;
        least = std::min(least, value);
        greatest = std::max(greatest, value);
        const std::int64_t code = (std::bit_cast<std::int64_t>(value) >> shift) - before;
        ++buckets[std::clamp<std::int64_t>(code, 0, last)];
    }
    count_ += values.size();
    sum_ += sum;
    min_ = least;
    max_ = greatest;
}

}  // namespace stator::report
