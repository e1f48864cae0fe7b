#pragma once

#include <llama.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "stator/base/error.h"
#include "stator/engine/llama/llama_engine.h"
#include "stator/engine/llama/scheduler.h"

namespace stator::engine::llama {

/// A model and its context: carries out KvOps and forward passes. Private to this room (it names
/// llama.cpp's types). Single-threaded: the engine's thread.
class LlamaContext {
  public:
    [[nodiscard]] static Result<std::unique_ptr<LlamaContext>> load(const LlamaOptions& options);
    ~LlamaContext();
    LlamaContext(const LlamaContext&) = delete;
    LlamaContext& operator=(const LlamaContext&) = delete;

    enum class Pass : std::uint8_t { kDone, kNoRoom, kFailed };

    /// Carries the ops out. False if one failed (llama.cpp found no cells for a segment): the cache
    /// is then undefined and must be cleared.
    [[nodiscard]] bool apply(std::span<const KvOp> ops);
    /// One forward pass; its logits stay readable until the next one.
    [[nodiscard]] Pass forward(std::span<const BatchToken> batch);
    /// Logits of batch[index] of the last pass, which must have `output` set. May be changed in
    /// place.
    [[nodiscard]] std::span<float> logits(std::uint32_t index);
    void clear();

    [[nodiscard]] bool is_end(TokenId token) const;
    [[nodiscard]] const std::vector<TokenId>& end_tokens() const { return end_tokens_; }
    [[nodiscard]] std::uint32_t vocab_size() const { return vocab_size_; }
    [[nodiscard]] const SchedulerOptions& scheduler_options() const { return scheduler_; }
    [[nodiscard]] int threads() const { return threads_; }
    [[nodiscard]] std::string device() const;

  private:
    LlamaContext() = default;
    [[nodiscard]] Result<void> size(const LlamaOptions& options);
    [[nodiscard]] Result<void> make_context();
    [[nodiscard]] Result<void> warm_up(const LlamaOptions& options);
    [[nodiscard]] bool save(const KvOp& op);
    [[nodiscard]] bool load(const KvOp& op);

    struct Saved {
        std::unique_ptr<std::uint8_t[]> bytes;  // not a vector: nobody needs it zeroed
        std::size_t size = 0;
    };

    llama_model* model_ = nullptr;
    llama_context* context_ = nullptr;
    llama_memory_t memory_ = nullptr;
    llama_batch batch_{};
    bool batch_made_ = false;
    int threads_ = 1;
    std::uint32_t vocab_size_ = 0;
    std::vector<TokenId> end_tokens_;
    SchedulerOptions scheduler_;
    SeqId scratch_ = 0;                              ///< segments pass through this sequence
    std::unordered_map<SegmentId, Saved> segments_;  ///< bound: scheduler_.parked_tokens
};

}  // namespace stator::engine::llama
