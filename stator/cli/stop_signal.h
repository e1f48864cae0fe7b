#pragma once

namespace stator::cli {

/// SIGINT and SIGTERM of a server. At first they end the process at once, as they would without
/// this; from begin_serving() on the first one is handed to wait(), and a second one ends the
/// process at once. One instance at a time; made before other threads start.
class StopSignal {
  public:
    StopSignal();
    ~StopSignal();  ///< both signals do again what they did before
    StopSignal(const StopSignal&) = delete;
    StopSignal& operator=(const StopSignal&) = delete;

    void begin_serving();
    /// Blocks until the first signal and returns its number.
    [[nodiscard]] int wait();
};

}  // namespace stator::cli
