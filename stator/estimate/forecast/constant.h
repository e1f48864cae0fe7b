#pragma once

#include "stator/estimate/forecast/model.h"

namespace stator::forecast {

/// The last value, for ever.
class Constant final : public Model {
  public:
    void observe(double value) override { last_ = value; }
    void skip() override {}
    [[nodiscard]] double point(int) const override { return last_; }

  private:
    double last_ = 0;
};

}  // namespace stator::forecast
