#pragma once

// For tests: an engine that says what it is told to.
#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

#include "stator/engine/engine.h"
#include "stator/text/byte_tokenizer.h"

namespace stator::frontend {

/// Answers every request with the tokens of one text and the end token, all within submit(); ends
/// with kLength where max_tokens comes first.
class ScriptedEngine final : public engine::Engine {
  public:
    /// `text` is tokenised by `tokenizer`, special tokens included.
    ScriptedEngine(const text::Tokenizer& tokenizer, std::string_view text,
                   std::uint32_t tokens_per_step, bool structured_output = true)
        : per_step_(tokens_per_step) {
        info_.structured_output = structured_output;
        info_.kind = "scripted";
        info_.context_tokens = 8192;
        info_.max_top_logprobs = 5;
        (void)tokenizer.encode(text, text::SpecialTokens::kParse, false, tokens_);
        tokens_.push_back(text::ByteTokenizer::kEnd);
    }

    [[nodiscard]] const engine::EngineInfo& info() const override { return info_; }

    [[nodiscard]] Result<void> submit(protocol::GenerateRequest request,
                                      std::shared_ptr<engine::StepSink> sink) override {
        const std::size_t most = std::min<std::size_t>(tokens_.size(), request.max_tokens);
        for (std::size_t at = 0; at < most;) {
            protocol::StepBatch batch;
            protocol::StepEvent& event = batch.events.emplace_back();
            event.id = request.id;
            event.prompt_tokens = static_cast<std::uint32_t>(request.prompt.size());
            for (; event.count < per_step_ && at < most; ++event.count, ++at) {
                batch.tokens.push_back({tokens_[at], -0.5F, 0, 0});
            }
            if (at == most) {
                event.finish = tokens_[most - 1] == text::ByteTokenizer::kEnd
                                   ? protocol::FinishReason::kStop
                                   : protocol::FinishReason::kLength;
            }
            sink->on_step(std::move(batch));
        }
        const std::scoped_lock lock(mutex_);
        requests_.push_back(std::move(request));
        return {};
    }
    void cancel(protocol::RequestId) override {
        const std::scoped_lock lock(mutex_);
        ++cancelled_;
    }
    [[nodiscard]] protocol::LoadReport load() const override { return {}; }
    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override { return {}; }
    [[nodiscard]] bool healthy() const override { return true; }
    void stop(Deadline) override {}

    [[nodiscard]] std::vector<protocol::GenerateRequest> requests() const {
        const std::scoped_lock lock(mutex_);
        return requests_;
    }
    [[nodiscard]] int cancelled() const {
        const std::scoped_lock lock(mutex_);
        return cancelled_;
    }

  private:
    std::uint32_t per_step_;
    engine::EngineInfo info_;
    std::vector<tokens::TokenId> tokens_;
    mutable std::mutex mutex_;
    std::vector<protocol::GenerateRequest> requests_;
    int cancelled_ = 0;
};

}  // namespace stator::frontend
