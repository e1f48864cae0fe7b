#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "stator/engine/llama/media_encoder.h"
#include "stator/protocol/handoff.h"

namespace stator::engine::llama {

/// What was encoded, by the picture's digest; beyond its budget the least recently used go. Not
/// thread-safe.
class EncodedCache {
  public:
    explicit EncodedCache(std::uint64_t budget_bytes) : budget_(budget_bytes) {}

    /// Null: not here.
    [[nodiscard]] std::shared_ptr<const Encoded> find(const protocol::Digest& digest);
    /// How many others had to go for it. Not kept: one larger than the budget.
    std::uint64_t put(const protocol::Digest& digest, std::shared_ptr<const Encoded> encoded);
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  private:
    struct Entry {
        std::string name;
        std::shared_ptr<const Encoded> encoded;
    };
    std::uint64_t budget_;
    std::uint64_t bytes_ = 0;
    std::list<Entry> entries_;  ///< most recently used first
    std::unordered_map<std::string, std::list<Entry>::iterator> by_name_;
};

}  // namespace stator::engine::llama
