#pragma once

#include <initializer_list>

namespace stator::cli {

/// SIGINT and SIGTERM of a server. At first they end the process at once, as they would without
/// this; from begin_serving() on the first one is handed to wait(), and a second one ends the
/// process at once. `others` (SIGHUP, SIGUSR2) never end the process while this lives: wait() hands
/// them over too, as often as they come (several of one kind before a wait() count once). One
/// instance at a time; made before other threads start.
class StopSignal {
  public:
    explicit StopSignal(std::initializer_list<int> others = {});
    ~StopSignal();  ///< the signals do again what they did before
    StopSignal(const StopSignal&) = delete;
    StopSignal& operator=(const StopSignal&) = delete;

    void begin_serving();
    /// Blocks until a signal and returns its number; one that ends the server goes first.
    [[nodiscard]] int wait();
    static bool ends(int signal);  ///< SIGINT or SIGTERM

  private:
    static constexpr int kMaxOthers = 4;
    int others_[kMaxOthers] = {};
    int other_count_ = 0;
};

}  // namespace stator::cli
