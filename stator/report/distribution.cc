#include "stator/report/distribution.h"

#include <array>
#include <cmath>

#include "stator/base/check.h"

namespace stator::report {
namespace {

/// Shares of the curve: every percent, finer towards the end that matters.
std::vector<double> curve_shares() {
    std::vector<double> shares{0.0, 0.001, 0.005};
    for (int percent = 1; percent < 99; ++percent) shares.push_back(percent / 100.0);
    for (const double share : {0.99, 0.9925, 0.995, 0.9965, 0.998, 0.999, 0.9995, 0.9999, 1.0}) {
        shares.push_back(share);
    }
    return shares;
}

}  // namespace

void Distribution::reserve_buckets() { buckets_.assign(bucket_count(), 0); }

double Distribution::bucket_value(std::size_t bucket) const {
    if (bucket == 0) return min_;
    if (bucket + 1 == buckets_.size()) return max_;
    const std::int64_t code = first_code() + static_cast<std::int64_t>(bucket) - 1;
    const auto low = std::bit_cast<double>(code << (52 - bits_));
    const auto high = std::bit_cast<double>((code + 1) << (52 - bits_));
    return std::clamp(low + (high - low) / 2, min_, max_);
}

void Distribution::merge(const Distribution& other) {
    STATOR_ASSERT(bits_ == other.bits_);
    if (other.count_ == 0) return;
    if (buckets_.empty()) reserve_buckets();
    for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
    count_ += other.count_;
    sum_ += other.sum_;
    min_ = std::min(min_, other.min_);
    max_ = std::max(max_, other.max_);
}

std::vector<double> Distribution::percentiles(std::span<const double> shares) const {
    std::vector<double> values(shares.size(), 0.0);
    if (count_ == 0) return values;
    /// Walks to the bucket of the k-th smallest sample; k ascends.
    struct Cursor {
        const Distribution& of;
        std::size_t bucket = 0;
        std::uint64_t before = 0;
        double at(std::uint64_t k) {
            if (k == 0) return of.min_;
            if (k + 1 >= of.count_) return of.max_;
            while (before + of.buckets_[bucket] <= k) before += of.buckets_[bucket++];
            return of.bucket_value(bucket);
        }
    };
    Cursor lower{*this};
    Cursor upper{*this};
    for (std::size_t i = 0; i < shares.size(); ++i) {
        const double share = std::clamp(shares[i], 0.0, 1.0);
        const double rank = share * static_cast<double>(count_ - 1);
        const auto k = std::min(static_cast<std::uint64_t>(rank), count_ - 1);
        const double low = lower.at(k);
        const double high = upper.at(std::min(k + 1, count_ - 1));
        values[i] = low + (high - low) * (rank - static_cast<double>(k));
    }
    return values;
}

double Distribution::percentile(double share) const {
    return percentiles(std::span(&share, 1)).front();
}

Summary Distribution::summary() const {
    Summary s;
    if (count_ == 0) return s;
    s.count = count_;
    s.mean = mean();
    s.min = min();
    s.max = max();
    constexpr std::array kNamed{0.5, 0.9, 0.95, 0.99, 0.999};
    const std::vector<double> named = percentiles(kNamed);
    s.p50 = named[0];
    s.p90 = named[1];
    s.p95 = named[2];
    s.p99 = named[3];
    s.p999 = named[4];
    static const std::vector<double> kShares = curve_shares();
    const std::vector<double> curve = percentiles(kShares);
    for (std::size_t i = 0; i < curve.size(); ++i) s.quantiles.push_back({kShares[i], curve[i]});
    return s;
}

}  // namespace stator::report
