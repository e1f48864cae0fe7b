#pragma once

#include <string>
#include <string_view>

#include "stator/base/clock.h"
#include "stator/loadgen/load_run.h"

namespace stator::cli {

/// "  12 s  48 started, 3 running, 45 ok  TTFT 85 ms (p99 210 ms)  1,230 tokens/s"
[[nodiscard]] std::string progress_text(const loadgen::Progress& progress);

/// How a run goes, on standard error: one line that is written over on a terminal, else a line now
/// and then.
class BenchProgress {
  public:
    BenchProgress(std::string title, const Clock& clock);
    ~BenchProgress();  ///< the line is gone
    BenchProgress(const BenchProgress&) = delete;
    BenchProgress& operator=(const BenchProgress&) = delete;

    void show(const loadgen::Progress& progress);

  private:
    std::string title_;
    const Clock& clock_;
    bool terminal_;
    TimePoint next_;
    bool shown_ = false;
};

}  // namespace stator::cli
