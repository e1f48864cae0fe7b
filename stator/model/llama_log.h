#pragma once

#include <string>

namespace stator::model {

/// Routes the log of llama.cpp and ggml into ours: errors and warnings as warnings (what they mean
/// for us is ours to say), all else at debug level. Once per process is enough; further calls do
/// nothing. Thread-safe.
void route_llama_log();

/// While one is alive, llama.cpp's errors on this thread are kept for the caller's own error
/// message, and they and its warnings are logged at debug level only. One at a time per thread.
class LlamaErrors {
  public:
    LlamaErrors();
    ~LlamaErrors();
    LlamaErrors(const LlamaErrors&) = delete;
    LlamaErrors& operator=(const LlamaErrors&) = delete;

    /// The first error since construction, without the name of llama.cpp's function: the most
    /// specific one, as callers add theirs later. Empty if there was none.
    [[nodiscard]] std::string first() const;
};

}  // namespace stator::model
