#pragma once

#include "stator/base/error.h"
#include "stator/cli/served_engine.h"
#include "stator/config/settings.h"
#include "stator/engine/attached/attached_engine.h"

namespace stator::cli {

/// An engine in another process, found and not yet used.
struct FoundAttached {
    engine::AttachOptions options;
    engine::FoundEngine found;
};

/// Waits for the one attached engine of the settings, with a line in the log now and then, for as
/// long as they allow. Errors are sentences for the terminal.
[[nodiscard]] Result<FoundAttached> find_attached(const config::Settings& settings);

/// Tokenizer, chat template and names to offer it with: from the settings' model, else from the
/// folder that the engine says it has its own from. Sets the block and context of `attached`.
[[nodiscard]] Result<ServedEngine> text_of_attached(const config::Settings& settings,
                                                    FoundAttached& attached);

}  // namespace stator::cli
