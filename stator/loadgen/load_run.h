#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "stator/base/clock.h"
#include "stator/loadgen/server.h"
#include "stator/report/collector.h"
#include "stator/runtime/loop.h"
#include "stator/workload/request_spec.h"

namespace stator::loadgen {

struct RunOptions {
    /// Closed loop: so many requests at a time. 0: open loop.
    std::size_t concurrency = 0;
    /// Open loop: the most that run at once; beyond, requests start late, which is measured.
    std::size_t max_in_flight = 10'000;
    /// How long requests may go on once the last one has started; 0: as long as they take.
    std::chrono::nanoseconds drain{0};
    /// So many connections in a row that can't be made end the run.
    std::uint32_t max_connect_failures = 50;
    report::CollectorOptions report = {};
};

struct Progress {
    report::Snapshot figures;
    double seconds = 0;  ///< since the begin
    std::uint64_t started = 0;
    std::size_t in_flight = 0;
    bool stopping = false;
};

enum class RunEnd : std::uint8_t {
    kDone = 1,
    kStopped,     ///< by stop()
    kServerGone,  ///< max_connect_failures
    kBadRequest,  ///< a request of the workload can't be written for this server
};

/// Sends a workload to a server and measures. Everything happens on the loop; the methods are for
/// one other thread. Once per run.
class LoadRun {
  public:
    LoadRun(runtime::Loop& loop, const Server& server, std::unique_ptr<workload::Workload> workload,
            RunOptions options, const Clock& clock);
    /// Stops and waits.
    ~LoadRun();
    LoadRun(const LoadRun&) = delete;
    LoadRun& operator=(const LoadRun&) = delete;

    void start();
    /// Starts nothing more and cancels what runs; those requests are kUnfinished. Any thread.
    void stop();
    /// True once it has ended and everything is recorded.
    [[nodiscard]] bool wait(std::chrono::milliseconds patience);
    /// Some quarter of a second old at most.
    [[nodiscard]] Progress progress() const;

    /// After wait() was true.
    [[nodiscard]] RunEnd end() const;
    [[nodiscard]] const std::string& why() const;  ///< a sentence, unless kDone
    [[nodiscard]] report::Report report() const;
    /// CPU seconds of the loop's thread during the run, and pieces of text that came: what the
    /// generator itself cost.
    [[nodiscard]] double cpu_seconds() const;
    [[nodiscard]] std::uint64_t pieces() const;

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace stator::loadgen
