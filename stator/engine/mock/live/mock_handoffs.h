#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "stator/base/error.h"
#include "stator/protocol/generate.h"
#include "stator/transfer/handoff_store.h"

namespace stator::engine::mock {

struct HandoffOptions {
    /// Where prefill and encode legs leave what they made. Null: they are refused.
    std::shared_ptr<transfer::HandoffStore> store;
    /// Real bytes that stand for a token's KV, at least 8; 0 = the core's kv_bytes_per_token.
    std::uint64_t kv_bytes_per_token = 0;
    bool encodes = false;                  ///< takes encode legs
    std::uint32_t pixels_per_row = 784;    ///< an image of so many pixels becomes one token, …
    std::uint32_t most_rows = 1024;        ///< … but a frame no more than so many
    std::uint32_t embedding_width = 1024;  ///< floats of a row
};

/// Made-up bytes in place of KV and embeddings: of the real size, with a stamp where each token or
/// row begins that depends on all before it (the picture, of embeddings), so that the engine at the
/// other end sees any mix-up. What lies between the stamps is not written. Thread-safe.
class MockHandoffs {
  public:
    /// `kv_bytes_per_token` and `block_tokens` are the core's.
    MockHandoffs(HandoffOptions options, std::uint64_t kv_bytes_per_token,
                 std::uint32_t block_tokens);

    [[nodiscard]] const std::string& kv_layout() const { return kv_layout_; }
    [[nodiscard]] std::uint64_t kv_bytes_per_token() const { return kv_bytes_; }
    [[nodiscard]] bool exports() const { return options_.store != nullptr; }
    [[nodiscard]] bool encodes() const { return options_.encodes && exports(); }
    /// Tokens that a picture or a frame becomes.
    [[nodiscard]] std::uint32_t rows(const protocol::MediaContent& content) const;

    using Published = Result<std::shared_ptr<const protocol::Handoff>>;
    /// KV of `tokens`, all of them; `seed` names the template that they were made with.
    /// kOverloaded, retryable: no memory.
    [[nodiscard]] Published leave_kv(std::span<const tokens::TokenId> tokens, std::uint64_t salt,
                                     std::uint64_t seed) const;
    [[nodiscard]] Published leave_embeddings(const protocol::MediaItem& item) const;

    /// Empty if the request's KV is of its prompt and all of it from token `cached` on is here;
    /// else what is wrong.
    [[nodiscard]] std::string why_not_kv(const protocol::GenerateRequest& request,
                                         std::uint64_t seed, std::uint32_t cached) const;
    /// The item's embeddings are here and are of this picture; or kUnavailable, retryable, param
    /// "media".
    [[nodiscard]] Result<void> check_embeddings(const protocol::MediaItem& item) const;

  private:
    HandoffOptions options_;
    std::uint64_t kv_bytes_;
    std::uint32_t part_tokens_;
    std::string kv_layout_;
    std::string embeddings_layout_;
};

}  // namespace stator::engine::mock
