#pragma once

namespace stator::cli {

/// What the program returns. Scripts rely on the numbers.
enum class ExitCode : int {
    kDone = 0,
    kFailed = 1,  ///< went wrong while running
    kUsage = 2,   ///< wrong words, configuration, model file or address: nothing was started
};

}  // namespace stator::cli
