#pragma once

namespace stator::cli {

/// Ctrl-C (and SIGTERM) of a command that has something to show when it is stopped: the first one
/// is only noted, a second one ends the process at once. One instance at a time.
class Interrupt {
  public:
    Interrupt();
    ~Interrupt();  ///< the signals do again what they did before
    Interrupt(const Interrupt&) = delete;
    Interrupt& operator=(const Interrupt&) = delete;

    /// Thread-safe.
    [[nodiscard]] static bool requested();
};

}  // namespace stator::cli
