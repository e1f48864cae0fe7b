#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "stator/engine/probe/probe.h"

namespace stator::engine {

/// Asks the engine with POST and waits.
using PostToEngine = std::function<EngineAnswer(std::string_view path, std::string body)>;

/// What an engine reads besides text.
struct FoundMedia {
    std::vector<std::string> kinds;             ///< "image", "video"; empty: nothing that is known
    std::vector<tokens::TokenId> placeholders;  ///< what stands for items in its prompts
    std::vector<tokens::TokenId> around;        ///< EngineMedia::around, of SGLang
};

/// vLLM: has it render a small picture, and a video of two frames. Others, and a vLLM that renders
/// nothing: kinds is empty.
[[nodiscard]] FoundMedia probe_media(const FoundEngine& found, const PostToEngine& post);

/// What a model's config.json says: of an engine that can't be asked. Empty: it reads texts alone.
[[nodiscard]] FoundMedia media_of_config(std::string_view config_json);

}  // namespace stator::engine
