#pragma once

#include "stator/base/error.h"
#include "stator/config/settings.h"
#include "stator/engine/attached/attached_engine.h"
#include "stator/engine/dialects/kv_connector.h"

namespace stator::cli {

/// How the attached engine hands KV to others of its kind, by the settings alone. kNone: it does
/// not, or there is none. Errors are sentences for the terminal.
[[nodiscard]] Result<engine::KvConnector> connector_of(const config::Settings& settings);

/// Sets what `options` say of that, for an engine that was found. Asks Mooncake's bootstrap server
/// for its engine's id. kUnavailable: it does not answer.
[[nodiscard]] Result<void> set_connector(const config::Settings& settings,
                                         const engine::FoundEngine& found,
                                         engine::AttachOptions& options);

}  // namespace stator::cli
