#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>

#include "stator/protocol/load.h"

namespace stator::router {

/// Finds the least loaded of the ranks that it is shown: by what it runs and has waiting relative
/// to what it can run, then by how many streams are our own, then at random. Full ranks are passed
/// over.
class RankChoice {
  public:
    explicit RankChoice(std::minstd_rand& random) : random_(random) {}

    /// `load` is what the rank says; `pending` was chosen for it and is not in there yet.
    void consider(std::size_t index, const protocol::LoadReport& load, std::uint32_t pending,
                  std::uint32_t own);
    [[nodiscard]] std::optional<std::size_t> best() const { return best_; }

  private:
    std::minstd_rand& random_;
    std::optional<std::size_t> best_;
    double best_load_ = 0;
    std::uint32_t best_own_ = 0;
    std::uint32_t equals_ = 0;
};

}  // namespace stator::router
