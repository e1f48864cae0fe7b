#pragma once

#include <cstdint>
#include <vector>

#include "stator/report/record.h"
#include "stator/report/report.h"

namespace stator::report {

/// Counts per worker. Workers are numbered from 0; those numbered kMaxWorkers or above are left out
/// and counted. Not thread-safe.
class WorkerTally {
  public:
    static constexpr std::uint32_t kMaxWorkers = 65'536;

    void add(const RequestRecord& record);
    [[nodiscard]] WorkerSummary summary() const;
    [[nodiscard]] std::uint64_t left_out() const { return left_out_; }

  private:
    std::vector<WorkerRow> rows_;  // by worker
    std::uint64_t left_out_ = 0;
};

}  // namespace stator::report
