#pragma once

#include <llama.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "stator/base/error.h"
#include "stator/engine/llama/kv_blob.h"
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
    /// Copies the KV of the positions [begin, end) of `sequence` to `out`, which has
    /// handoff_format()->bytes(end - begin) bytes. False if llama.cpp could not.
    [[nodiscard]] bool export_range(SeqId sequence, std::uint32_t begin, std::uint32_t end,
                                    std::span<std::byte> out);
    /// Gives the import's sequence its positions, part by part. Returns up to which position that
    /// went well; `why` says what was wrong with the part that did not. Nothing that a part holds
    /// is trusted but its rows (KvBlobFormat).
    [[nodiscard]] std::uint32_t import_parts(const KvImport& import, std::string& why);
    /// Null: this model's KV can't be handed over.
    [[nodiscard]] const KvBlobFormat* handoff_format() const {
        return handoff_format_ ? &*handoff_format_ : nullptr;
    }
    /// Engines with equal ones read each other's KV; empty where there is no handoff_format().
    [[nodiscard]] const std::string& kv_layout() const { return kv_layout_; }

    /// Floats of a row of embeddings that a media token stands for; 0 = the model takes none.
    [[nodiscard]] std::uint32_t embedding_width() const { return embedding_width_; }
    [[nodiscard]] const llama_model* model() const { return model_; }

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
    void learn_handoff_format();
    [[nodiscard]] bool save(const KvOp& op);
    [[nodiscard]] bool load(const KvOp& op);

    [[nodiscard]] int decode_run(std::span<const BatchToken> run);
    void undo(std::span<const BatchToken> done);

    struct Saved {
        std::unique_ptr<std::uint8_t[]> bytes;  // not a vector: nobody needs it zeroed
        std::size_t size = 0;
    };

    llama_model* model_ = nullptr;
    llama_context* context_ = nullptr;
    llama_memory_t memory_ = nullptr;
    llama_batch batch_{};
    bool batch_made_ = false;
    llama_batch rows_{};  ///< for rows of embeddings in place of tokens; made when first needed
    bool rows_made_ = false;
    std::uint32_t embedding_width_ = 0;
    std::uint32_t last_run_ = 0;  ///< index in the batch where the last pass' last run began
    /// Of earlier runs of the last pass, by index in the batch.
    std::unordered_map<std::uint32_t, std::vector<float>> kept_logits_;
    int threads_ = 1;
    std::uint32_t vocab_size_ = 0;
    std::vector<TokenId> end_tokens_;
    SchedulerOptions scheduler_;
    std::optional<KvBlobFormat> handoff_format_;
    std::string kv_layout_;
    SeqId scratch_ = 0;                              ///< segments pass through this sequence
    std::unordered_map<SegmentId, Saved> segments_;  ///< bound: scheduler_.parked_tokens
};

}  // namespace stator::engine::llama
