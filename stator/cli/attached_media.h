#pragma once

#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/cli/attached_setup.h"
#include "stator/config/settings.h"
#include "stator/protocol/worker_info.h"
#include "stator/text/tokenizer.h"

namespace stator::cli {

/// Whether the one attached engine's worker only encodes: --role encode and no other.
[[nodiscard]] bool only_encodes(const config::Settings& settings);

/// What the settings ask of an engine that can't do it, before it is asked anything:
/// kInvalidArgument as a sentence for the terminal.
[[nodiscard]] Result<void> check_encoder(const config::Settings& settings);

/// Finds out what images and videos the engine takes, and sets `attached.options.media`. Says in
/// the log what would have to be different, where its model reads them and it can't be given any.
[[nodiscard]] Result<void> find_media(const config::Settings& settings, FoundAttached& attached);

/// Engines that compute prompts and take media say, by a role, what items become in a prompt.
void add_media_role(const engine::AttachOptions& options, std::vector<protocol::Role>& roles);

/// What the model's chat template writes where an item stands: the engine's placeholder, where the
/// template has it; else empty.
[[nodiscard]] std::string media_mark_of(const engine::EngineMedia& media,
                                        const text::Tokenizer& tokenizer,
                                        const std::string& template_source);

}  // namespace stator::cli
