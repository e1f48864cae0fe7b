#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/workload/content.h"
#include "stator/workload/request_spec.h"

namespace stator::loadgen {

enum class Api : std::uint8_t {
    kChat,         ///< /v1/chat/completions
    kCompletions,  ///< /v1/completions
    kTokens,       ///< /v1/completions with prompts of token ids
};

/// How requests are written for one server.
struct Dialect {
    Api api = Api::kChat;
    std::string model;
    /// Only fields of OpenAI's own: no ignore_eos, min_tokens, priority. Then an answer may be
    /// shorter than asked.
    bool strict = false;
    std::string
        extra;  ///< members of a JSON object, as they stand between its braces; may be empty
    double tokens_per_word = 1.0;  ///< of made-up words, as the server counts
    double frame_tokens = 0.0;     ///< what the server adds around a prompt (a chat template)
    workload::TokenRange tokens{};
};

/// What a request gave, for those that go on from it.
struct Output {
    std::string text;
    std::uint32_t tokens = 0;
};
/// Null: not known (it failed); then made-up content stands in, of the length that was asked.
using FindOutput = std::function<const Output*(std::uint64_t index)>;

[[nodiscard]] std::string_view request_path(Api api);

/// The JSON of a request, streamed and with usage. Words are counted out so that the prompt has its
/// number of tokens; prompts that begin with equal segments begin with equal text. Chat: outputs of
/// earlier requests are the assistant's, what lies between them the user's. kInvalidArgument:
/// images, or a chat from a file, for a completion.
[[nodiscard]] Result<std::string> request_body(const workload::RequestSpec& spec,
                                               const Dialect& dialect, const FindOutput& find);

/// A request of `words` made-up words for one token: to learn how the server counts.
[[nodiscard]] std::string calibration_body(const Dialect& dialect, std::uint32_t words);

}  // namespace stator::loadgen
