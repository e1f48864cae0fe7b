// Any bytes as the body of both generation routes: readers must refuse with a client's error or
// give a request that keeps its own promises. Never a crash, and never an error that blames the
// server.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "stator/codec/json.h"
#include "stator/frontend/chat_request.h"
#include "stator/frontend/completion_request.h"

namespace {

using stator::ErrorCode;

constexpr std::uint32_t kVocab = 50'000;
constexpr std::uint32_t kMaxChoices = 16;

void demand(bool holds) {
    if (!holds) std::abort();
}

void check_error(const stator::Error& error) {
    demand(error.code == ErrorCode::kInvalidArgument || error.code == ErrorCode::kUnsupported);
    demand(!error.message.empty() && !error.param.empty());
}

void check_fields(const stator::frontend::GenerationFields& f) {
    const auto& s = f.sampling;
    demand(!f.model.empty());
    demand(s.temperature >= 0 && s.temperature <= 2);
    demand(s.top_p > 0 && s.top_p <= 1);
    demand(s.top_k >= 0);
    demand(s.min_p >= 0 && s.min_p < 1);
    demand(s.frequency_penalty >= -2 && s.frequency_penalty <= 2);
    demand(s.presence_penalty >= -2 && s.presence_penalty <= 2);
    demand(s.repetition_penalty > 0 && s.repetition_penalty <= 2);
    demand(f.n >= 1 && f.n <= kMaxChoices);
    demand(!f.max_tokens || *f.max_tokens >= 1);
    demand(f.top_logprobs >= -1 && f.top_logprobs <= 20);
    demand(!f.include_usage || f.stream);
    for (const auto& [id, bias] : s.logit_bias) demand(id < kVocab && bias >= -100 && bias <= 100);
    for (const auto& stop : f.stop) demand(!stop.empty());
    for (const auto id : f.stop_token_ids) demand(id < kVocab);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static stator::codec::JsonDocument document;
    const auto root = document.parse({reinterpret_cast<const char*>(data), size});
    if (!root || root->type() != stator::codec::JsonType::kObject) return 0;
    stator::frontend::RequestRules rules;
    rules.vocab_size = kVocab;
    rules.max_choices = kMaxChoices;
    rules.images = rules.videos = size % 2 == 0;

    if (const auto chat = stator::frontend::read_chat_request(*root, rules)) {
        check_fields(chat->fields);
        demand(!chat->messages.empty());
        for (const auto& m : chat->messages) {
            const bool other = !m.tool_calls.empty() || !m.reasoning.empty();
            demand(m.content || (m.role == "assistant" && other));
        }
    } else {
        check_error(chat.error());
    }
    if (const auto completion = stator::frontend::read_completion_request(*root, rules)) {
        check_fields(completion->fields);
        demand(!completion->prompts.empty());
        demand(completion->prompts.size() * completion->fields.n <= kMaxChoices);
    } else {
        check_error(completion.error());
    }
    return 0;
}
