#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "stator/base/error.h"
#include "stator/engine/llama/llama_context.h"
#include "stator/protocol/generate.h"
#include "stator/transfer/handoff_store.h"

namespace stator::engine::llama {

/// What a handoff of KV says of itself and whether a decode leg may use it. export_kv() is the
/// engine's thread's; why_not() and the rest from anywhere.
class KvHandoffs {
  public:
    /// `store` may be null (nothing is exported), `layout` empty (neither is anything imported).
    KvHandoffs(std::shared_ptr<transfer::HandoffStore> store, std::string layout,
               std::uint32_t block_tokens);

    [[nodiscard]] bool exports() const { return store_ != nullptr && !layout_.empty(); }

    /// Copies the KV of prompt[0 .. n-1), which `sequence` holds, straight into a buffer of the
    /// store and publishes it. In parts of about 128 tokens that end at multiples of block_tokens,
    /// the last one excepted: who has the beginning cached need not fetch it. kOverloaded,
    /// retryable: what nobody has claimed yet takes all the memory.
    [[nodiscard]] Result<std::shared_ptr<const protocol::Handoff>> export_kv(
        LlamaContext& context, SeqId sequence, std::span<const TokenId> prompt,
        std::uint64_t salt) const;

    /// Empty if a decode leg's `kv` is of its prompt and of our form; else a cause, short and the
    /// same for all of its kind. What the parts hold is looked at when they are imported.
    [[nodiscard]] std::string why_not(const protocol::GenerateRequest& request) const;

  private:
    std::shared_ptr<transfer::HandoffStore> store_;
    std::string layout_;
    std::uint32_t block_tokens_;
};

}  // namespace stator::engine::llama
