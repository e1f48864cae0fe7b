#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace stator::metrics {

/// Label names and values of one time series, e.g. {{"route", "/v1/models"}, {"status", "200"}}.
using Labels = std::vector<std::pair<std::string, std::string>>;

/// Only goes up. Thread-safe.
class Counter {
  public:
    void add(std::uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

/// Goes up and down. Thread-safe.
class Gauge {
  public:
    void set(double v) { value_.store(v, std::memory_order_relaxed); }
    void add(double v) { value_.fetch_add(v, std::memory_order_relaxed); }
    [[nodiscard]] double value() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<double> value_{0.0};
};

/// Counts of observations by upper bound, with their sum. Thread-safe; a concurrent reader may see
/// an observation in the buckets and not yet in the sum.
class Histogram {
  public:
    /// Bounds are finite and strictly ascending (STATOR_CHECK); the last bucket, up to +Inf, is
    /// added.
    explicit Histogram(std::vector<double> upper_bounds);
    /// NaN is not counted: it belongs to no bucket and would spoil the sum for good.
    void observe(double v);
    [[nodiscard]] std::uint64_t count() const;
    [[nodiscard]] double sum() const { return sum_.value(); }
    [[nodiscard]] std::span<const double> bounds() const { return bounds_; }
    /// Observations <= bounds()[i]; i == bounds().size() is +Inf.
    [[nodiscard]] std::uint64_t cumulative(std::size_t i) const;
    /// Observations in bucket i alone.
    [[nodiscard]] std::uint64_t in_bucket(std::size_t i) const;

  private:
    std::vector<double> bounds_;
    std::unique_ptr<std::atomic<std::uint64_t>[]> buckets_;
    Gauge sum_;
};

/// Owns metrics and renders them as Prometheus text (exposition format 0.0.4). References stay
/// valid for the registry's life; asking twice for the same name and labels, in any order, gives
/// the same metric. Names and label names must match [a-zA-Z_][a-zA-Z0-9_]*; one name has one kind,
/// one help text and, for histograms, one set of bounds, no label comes twice and `le` is the
/// histograms' own (STATOR_CHECK: a programming error). Thread-safe. Bound: callers must not put
/// client-chosen text into labels.
class Registry {
  public:
    Registry();
    ~Registry();
    Counter& counter(std::string_view name, std::string_view help, Labels labels = {});
    Gauge& gauge(std::string_view name, std::string_view help, Labels labels = {});
    Histogram& histogram(std::string_view name, std::string_view help,
                         std::vector<double> upper_bounds, Labels labels = {});
    /// A value asked for when the text is rendered; `is_counter` decides the TYPE line. `f` must be
    /// thread-safe, must not use the registry, and what it refers to must outlive it. For the same
    /// name and labels the last `f` is asked.
    void callback(std::string_view name, std::string_view help, bool is_counter,
                  std::function<double()> f, Labels labels = {});
    /// All metrics, by name and then by labels, each name with its HELP and TYPE line.
    [[nodiscard]] std::string render() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Upper bounds growing by `factor` from `first`, `n` of them.
[[nodiscard]] std::vector<double> exponential_bounds(double first, double factor, std::size_t n);

}  // namespace stator::metrics
