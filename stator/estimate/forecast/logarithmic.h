#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "stator/estimate/forecast/model.h"

namespace stator::forecast {

/// A model of the values' logarithm (of one more than them): its levels are geometric means, which
/// single large windows don't carry away.
class Logarithmic final : public Model {
  public:
    explicit Logarithmic(std::unique_ptr<Model> of) : of_(std::move(of)) {}
    void observe(double value) override { of_->observe(std::log1p(value)); }
    void skip() override { of_->skip(); }
    [[nodiscard]] double point(int steps) const override {
        return std::expm1(std::min(of_->point(steps), std::log(kLargest)));
    }

  private:
    std::unique_ptr<Model> of_;
};

}  // namespace stator::forecast
