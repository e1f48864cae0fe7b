#pragma once

#include <cstddef>
#include <cstdint>

#include "stator/index/reserved.h"
#include "stator/index/run.h"

namespace stator::index {

/// All runs, by number; 0 stands for none. One writer; readers may read any run at any time.
class RunTable {
  public:
    explicit RunTable(std::size_t max_runs) : runs_(max_runs + 1) {}

    [[nodiscard]] Run& operator[](std::uint32_t run) const { return runs_[run]; }
    /// A run without blocks and holders, being changed: the caller ends it with finish(). 0 if all
    /// are used.
    [[nodiscard]] std::uint32_t allocate();
    void finish(std::uint32_t run);
    void free(std::uint32_t run);

    [[nodiscard]] std::uint32_t end() const { return top_; }  ///< numbers are below
    [[nodiscard]] std::size_t used() const { return used_; }
    void release_unused();
    [[nodiscard]] std::size_t used_bytes() const { return used_ * sizeof(Run); }
    [[nodiscard]] std::size_t memory_bytes() const { return touched_ * sizeof(Run); }

  private:
    ReservedArray<Run> runs_;
    std::uint32_t free_ = 0;  // a list through `base`
    std::uint32_t top_ = 1;
    std::uint32_t touched_ = 1;
    std::uint32_t versions_ = 0;
    std::size_t used_ = 0;
};

}  // namespace stator::index
