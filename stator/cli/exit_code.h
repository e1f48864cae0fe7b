#pragma once

namespace stator::cli {

/// What the program returns. Scripts rely on the numbers.
enum class ExitCode : int {
    kDone = 0,
    kFailed = 1,  ///< went wrong while running
    kUsage = 2,   ///< wrong words, configuration, model file or address: nothing was started
    /// What a worker was told does not fit the engine that it found, and will not by another try: a
    /// supervisor starts it again a few times only.
    kSetup = 78,
};

}  // namespace stator::cli
