#pragma once

namespace stator::forecast {

/// Variances of a local linear trend: of what the level and the trend wander from one window to the
/// next, and of one observation's noise.
struct TrendNoise {
    double level = 1;
    double trend = 0.1;
    double observation = 10;
};

/// Kalman filter of a level with a trend: level' = level + trend, trend' = trend, both with noise;
/// the level is observed with noise. Two by two, written out. A trend's variance of 0 and a start
/// without trend make it the local level model. Source: Durbin and Koopman, "Time Series Analysis
/// by State Space Methods", 2.2 and 3.2.
class TrendFilter {
  public:
    /// What the next observation will be, as the filter sees it before it comes.
    struct Prediction {
        double mean = 0;
        double variance = 1;
    };

    /// Starts at `level`, with no trend, both uncertain by these variances.
    TrendFilter(TrendNoise noise, double level, double level_variance, double trend_variance);

    /// One window passes.
    void predict();
    /// Of the observation of the window that predict() has come to.
    [[nodiscard]] Prediction prediction() const {
        return {level_, level_variance_ + noise_.observation};
    }
    void update(double value);

    [[nodiscard]] double level() const { return level_; }
    [[nodiscard]] double trend() const { return trend_; }
    [[nodiscard]] double level_variance() const { return level_variance_; }
    [[nodiscard]] double trend_variance() const { return trend_variance_; }
    [[nodiscard]] double covariance() const { return covariance_; }
    /// The level so many windows on.
    [[nodiscard]] double ahead(int steps) const { return level_ + trend_ * steps; }

  private:
    TrendNoise noise_;
    double level_;
    double trend_ = 0;
    double level_variance_;
    double trend_variance_;
    double covariance_ = 0;
};

}  // namespace stator::forecast
