#pragma once

// For tests: an engine that says what it is told to.
#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "stator/engine/engine.h"
#include "stator/text/byte_tokenizer.h"

namespace stator::frontend {

/// Answers every request with the tokens of one text and the end token, all within submit(); ends
/// with kLength where max_tokens comes first. Encode legs are answered with embeddings of `rows`
/// rows between two tokens, or as `encode` says.
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
        if (request.leg == protocol::Leg::kEncode) return submit_encode(std::move(request), sink);
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
    /// What an encode leg ends with; nullopt: it goes on until end_encodes().
    using Encode =
        std::function<std::optional<protocol::StepEvent>(const protocol::GenerateRequest&)>;
    static constexpr tokens::TokenId kOpen = 40;   // "("
    static constexpr tokens::TokenId kClose = 41;  // ")"
    static constexpr std::uint32_t kRows = 3;
    /// Before the first request.
    void set_encode(Encode encode) { encode_ = std::move(encode); }
    [[nodiscard]] static std::shared_ptr<protocol::Handoff> embeddings(
        const protocol::GenerateRequest& request, std::uint32_t rows = kRows) {
        auto out = std::make_shared<protocol::Handoff>();
        out->kind = protocol::Handoff::Kind::kEmbeddings;
        out->id[0] = static_cast<std::uint8_t>(request.id.value);
        out->content = request.media.front().digest;
        out->tokens = rows;
        out->pieces = {{{kOpen}, 0}, {{}, rows}, {{kClose}, 0}};
        return out;
    }
    [[nodiscard]] std::vector<protocol::GenerateRequest> encodes() const {
        const std::scoped_lock lock(mutex_);
        return encodes_;
    }
    /// Those that go on end with embeddings, cancelled or not.
    void end_encodes() {
        std::vector<Held> held;
        {
            const std::scoped_lock lock(mutex_);
            held.swap(held_);
        }
        for (const Held& h : held) {
            protocol::StepBatch batch;
            protocol::StepEvent& event = batch.events.emplace_back();
            event.id = h.request.id;
            event.finish = protocol::FinishReason::kHandoff;
            event.handoff = embeddings(h.request);
            h.sink->on_step(std::move(batch));
        }
    }
    void cancel(protocol::RequestId) override {
        const std::scoped_lock lock(mutex_);
        ++cancelled_;
    }
    void release(std::shared_ptr<const protocol::Handoff> handoff) override {
        const std::scoped_lock lock(mutex_);
        released_.push_back(std::move(handoff));
    }
    [[nodiscard]] std::size_t released() const {
        const std::scoped_lock lock(mutex_);
        return released_.size();
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
    struct Held {
        protocol::GenerateRequest request;
        std::shared_ptr<engine::StepSink> sink;
    };
    Result<void> submit_encode(protocol::GenerateRequest request,
                               const std::shared_ptr<engine::StepSink>& sink) {
        std::optional<protocol::StepEvent> event;
        if (encode_) {
            event = encode_(request);
        } else {
            event.emplace();
            event->finish = protocol::FinishReason::kHandoff;
            event->handoff = embeddings(request);
        }
        if (event) {
            event->id = request.id;
            protocol::StepBatch batch;
            batch.events.push_back(*event);
            sink->on_step(std::move(batch));
        }
        const std::scoped_lock lock(mutex_);
        if (!event) held_.push_back({request, sink});
        encodes_.push_back(std::move(request));
        return {};
    }

    Encode encode_;
    std::vector<protocol::GenerateRequest> encodes_;
    std::vector<Held> held_;
    std::vector<std::shared_ptr<const protocol::Handoff>> released_;
    std::uint32_t per_step_;
    engine::EngineInfo info_;
    std::vector<tokens::TokenId> tokens_;
    mutable std::mutex mutex_;
    std::vector<protocol::GenerateRequest> requests_;
    int cancelled_ = 0;
};

}  // namespace stator::frontend
