#include "stator/engine/llama/kv_handoff.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace stator::engine::llama {
namespace {

/// A part of a 135M model is 3 MB, of an 8B model 16 MB: small beside what its place in a list
/// costs, large enough that a claim has few of them.
constexpr std::uint32_t kPartTokens = 128;

std::vector<protocol::HandoffPart> cut(std::uint32_t tokens, std::uint32_t block_tokens,
                                       const KvBlobFormat& format) {
    const auto blocks_in = [&](std::uint64_t n) { return (n + block_tokens - 1) / block_tokens; };
    const std::uint64_t at_least = blocks_in(tokens / protocol::kMaxHandoffParts + 1);
    const std::uint64_t blocks =
        std::max({std::uint64_t{1}, std::uint64_t{kPartTokens / block_tokens}, at_least});
    const auto step = static_cast<std::uint32_t>(blocks * block_tokens);
    std::vector<protocol::HandoffPart> parts;
    std::uint64_t offset = 0;
    for (std::uint32_t first = 0; first < tokens; first += step) {
        const std::uint32_t count = std::min(step, tokens - first);
        parts.push_back({first, count, offset, format.bytes(count)});
        offset += parts.back().bytes;
    }
    return parts;
}

}  // namespace

KvHandoffs::KvHandoffs(std::shared_ptr<transfer::HandoffStore> store, std::string layout,
                       std::uint32_t block_tokens)
    : store_(std::move(store)), layout_(std::move(layout)), block_tokens_(block_tokens) {}

Result<std::shared_ptr<const protocol::Handoff>> KvHandoffs::export_kv(
    LlamaContext& context, SeqId sequence, std::span<const TokenId> prompt,
    std::uint64_t salt) const {
    const auto full = [](const Error& why) -> tl::unexpected<Error> {
        auto refused =
            error(ErrorCode::kOverloaded, "The prompt's KV could not be left: {}", why.message);
        refused.value().retryable = true;
        return refused;
    };
    const auto tokens = static_cast<std::uint32_t>(prompt.size() - 1);
    protocol::Handoff what;
    what.kind = protocol::Handoff::Kind::kKv;
    what.layout = layout_;
    what.content = protocol::kv_content(prompt.first(tokens), salt);
    what.tokens = tokens;
    what.parts = cut(tokens, block_tokens_, *context.handoff_format());
    const std::uint64_t bytes = what.parts.back().offset + what.parts.back().bytes;
    auto buffer = store_->reserve(bytes);
    if (!buffer) return full(buffer.error());
    for (const protocol::HandoffPart& part : what.parts) {
        const auto to = (*buffer)->bytes().subspan(static_cast<std::size_t>(part.offset),
                                                   static_cast<std::size_t>(part.bytes));
        if (!context.export_range(sequence, part.first, part.first + part.tokens, to)) {
            return error(ErrorCode::kInternal, "llama.cpp could not copy the prompt's KV.");
        }
    }
    auto published = store_->publish(std::move(*buffer), std::move(what));
    if (!published) return full(published.error());
    return published;
}

std::string KvHandoffs::why_not(const protocol::GenerateRequest& request) const {
    const protocol::HandoffBytes& kv = *request.kv;
    if (!kv.what || kv.what->kind != protocol::Handoff::Kind::kKv) return "it is no KV";
    if (layout_.empty() || kv.what->layout != layout_) return "its layout is not this engine's";
    const auto tokens = static_cast<std::uint32_t>(request.prompt.size() - 1);
    if (kv.what->tokens != tokens) return "it covers another number of tokens";
    if (kv.parts.size() != kv.what->parts.size()) return "its parts do not match their list";
    std::uint64_t next = 0;
    for (std::size_t i = 0; i < kv.parts.size(); ++i) {
        const protocol::HandoffPart& part = kv.what->parts[i];
        const bool whole = kv.parts[i].empty() || kv.parts[i].size() == part.bytes;
        if (part.first != next || part.tokens == 0 || !whole) return "its parts have gaps";
        next += part.tokens;
    }
    if (next != tokens) return "its parts do not cover it";
    if (kv.what->content !=
        protocol::kv_content(std::span(request.prompt).first(tokens), request.cache_salt)) {
        return "it is of another prompt";
    }
    return {};
}

}  // namespace stator::engine::llama
