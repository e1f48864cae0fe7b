#include "stator/protocol/worker_info.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include <bit>

namespace stator::protocol {
namespace {

/// A card's identity as bytes: every field in order, numbers in 8 bytes, texts behind their length,
/// so that no two cards are the same bytes unless they are the same pool. Adding a field with its
/// default value changes the id, which opens a new pool at a rolling upgrade: that is harmless.
class Canonical {
  public:
    void number(std::uint64_t v) {
        for (int i = 0; i < 8; ++i) bytes_ += static_cast<char>(v >> (8 * i));
    }
    void text(std::string_view v) {
        number(v.size());
        bytes_ += v;
    }
    void artifact(const Artifact& v) {
        text(v.kind);
        text(v.sha256);
        number(v.bytes);
    }
    template <typename T>
    void maybe(const std::optional<T>& v) {
        number(v ? 1 : 0);
        if (!v) return;
        if constexpr (std::is_same_v<T, float>) {
            number(std::bit_cast<std::uint32_t>(*v));
        } else if constexpr (std::is_same_v<T, Artifact>) {
            artifact(*v);
        } else {
            number(static_cast<std::uint64_t>(*v));
        }
    }
    [[nodiscard]] std::uint64_t hash() const { return XXH3_64bits(bytes_.data(), bytes_.size()); }

  private:
    std::string bytes_;
};

}  // namespace

std::string_view to_string(Role role) {
    switch (role) {
        case Role::kAggregated:
            return "aggregated";
        case Role::kPrefill:
            return "prefill";
        case Role::kDecode:
            return "decode";
        case Role::kEncode:
            return "encode";
    }
    return "unknown";
}

bool same_pool(const ModelCard& a, const ModelCard& b) {
    return a.name == b.name && a.weights_digest == b.weights_digest && a.tokenizer == b.tokenizer &&
           a.chat_template == b.chat_template && a.vocab_size == b.vocab_size &&
           a.context_tokens == b.context_tokens && a.block_tokens == b.block_tokens &&
           a.hash_scheme == b.hash_scheme && a.kv_layout == b.kv_layout &&
           a.max_top_logprobs == b.max_top_logprobs && a.structured_output == b.structured_output &&
           a.sampling == b.sampling && a.tool_format == b.tool_format &&
           a.reasoning_format == b.reasoning_format;
}

std::string pool_id(const ModelCard& card) {
    Canonical c;
    c.text(card.name);
    c.text(card.weights_digest);
    c.artifact(card.tokenizer);
    c.maybe(card.chat_template);
    c.number(card.vocab_size);
    c.number(card.context_tokens);
    c.number(card.block_tokens);
    c.text(card.hash_scheme);
    c.text(card.kv_layout);
    c.number(card.max_top_logprobs);
    c.maybe(card.sampling.temperature);
    c.maybe(card.sampling.top_p);
    c.maybe(card.sampling.top_k);
    c.maybe(card.sampling.min_p);
    // Later fields are only written where they say something, so that ids stay as they were.
    if (!card.tool_format.empty() || !card.reasoning_format.empty()) {
        c.text(card.tool_format);
        c.text(card.reasoning_format);
    }
    if (card.structured_output) c.number(1);
    return fmt::format("{:016x}", c.hash());
}

}  // namespace stator::protocol
