#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "stator/engine/engine.h"
#include "stator/metrics/registry.h"
#include "stator/text/tokenizer.h"
#include "stator/transfer/handoff_store.h"

namespace stator::engine {

inline constexpr std::uint32_t kMaxTopLogprobs = 20;

struct LlamaOptions {
    std::string model_path;            ///< a GGUF file
    std::uint32_t context_tokens = 0;  ///< cells of the KV cache, all requests together; 0 = auto
    std::uint32_t max_sequence_tokens =
        0;  ///< longest prompt + output; 0 = the smaller of the model's and 8192
    std::uint32_t max_running = 16;   ///< requests computed at the same time, 1..128
    std::uint32_t max_waiting = 256;  ///< requests beyond that which may queue
    std::uint32_t step_tokens = 512;  ///< most tokens of one forward pass
    std::uint32_t block_tokens = 16;  ///< granularity of prefix reuse and KV events
    /// Host memory for the KV of prefixes that no running request holds, on top of the KV cache.
    std::uint64_t prefix_cache_bytes = 512ULL << 20;
    bool prefix_cache = true;
    /// ggml's threads spin at a barrier after every operation: more threads than idle cores make it
    /// far slower, not faster. 0 = half of the usable cores, at least 1.
    int threads = 0;
    int gpu_layers = -1;  ///< layers on the GPU, where built with CUDA; -1 = all
    /// The model's: what its tokens stand for, for constraints on the output. Null: requests with
    /// a constraint are refused.
    std::shared_ptr<const text::Tokenizer> tokenizer;
    /// Where prefill and encode legs leave what they made. Null: they are refused.
    std::shared_ptr<transfer::HandoffStore> handoffs;
    /// A GGUF file that encodes pictures for this model (llama.cpp's mmproj); empty: encode legs
    /// are refused.
    std::string mmproj_path;
    std::uint64_t embeddings_cache_bytes = 256ULL << 20;  ///< of pictures encoded lately
    /// Where what the encoder does is counted (stator_encoder_*); outlives the engine. Null:
    /// nowhere.
    metrics::Registry* registry = nullptr;
    std::uint64_t seed = 0;  ///< base of the seeds of requests that give none; 0 = random
    std::function<void(float)> progress;  ///< 0..1 while loading, on the caller's thread
};

/// Loads a GGUF model into llama.cpp and starts its thread. Errors, one sentence each: kNotFound,
/// kInvalidArgument (not a model, bad options), kExhausted (no memory for the KV cache).
/// `kv_events` may be empty. One unified KV cache; prefixes are shared between requests where the
/// model's memory allows it (not with sliding windows or recurrent layers: there every request
/// computes its whole prompt).
///
/// Legs: a prefill leg needs a prompt of at least two tokens and a model whose KV can be handed
/// over (EngineInfo::kv_layout is not empty), else kUnsupported. A decode leg whose KV did not come
/// or does not fit computes its prompt like a whole request.
///
/// Media: with `mmproj_path` encode legs are taken, on a thread beside the engine's. A prompt with
/// media needs the embeddings of its items (MediaItem::arrived) where it is computed, whoever has
/// encoded them: without, kUnavailable, retryable, param "media". Models with positions in two
/// dimensions (M-RoPE) take no media: kUnsupported.
[[nodiscard]] Result<std::unique_ptr<Engine>> make_llama_engine(LlamaOptions options,
                                                                KvEventSink kv_events);

/// An engine that takes encode legs alone: it loads `mmproj_path` and the model's file without its
/// weights. Needs `handoffs`. Errors as above, and those of the encoder's file: kNotFound,
/// kInvalidArgument (damaged, of another model), kUnsupported (no pictures; M-RoPE; pictures whose
/// rows attend to later ones).
[[nodiscard]] Result<std::unique_ptr<Engine>> make_llama_encoder(LlamaOptions options);

}  // namespace stator::engine
