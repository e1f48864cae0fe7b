#include "stator/engine/mock/live/mock_handoffs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace stator::engine::mock {
namespace {

using protocol::Handoff;
using protocol::HandoffPart;

constexpr std::uint32_t kPartTokens = 128;
constexpr std::uint64_t kStampBytes = sizeof(std::uint64_t);

/// One step of SplitMix64 (Steele, Lea, Flood 2014).
std::uint64_t mix(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/// Of each token: it depends on all up to it.
std::vector<std::uint64_t> stamps(std::span<const tokens::TokenId> tokens, std::uint64_t seed) {
    std::vector<std::uint64_t> out;
    out.reserve(tokens.size());
    std::uint64_t state = seed;
    for (const tokens::TokenId token : tokens) out.push_back(state = mix(state ^ token));
    return out;
}

/// Of each row of a picture's embeddings.
std::vector<std::uint64_t> stamps(const protocol::Digest& digest, std::uint32_t rows) {
    std::uint64_t state = 0;
    std::memcpy(&state, digest.data(), sizeof state);
    std::vector<std::uint64_t> out;
    for (std::uint32_t i = 0; i < rows; ++i) out.push_back(state = mix(state));
    return out;
}

std::vector<HandoffPart> cut(std::uint32_t count, std::uint32_t step, std::uint64_t bytes_each) {
    std::vector<HandoffPart> parts;
    for (std::uint32_t first = 0; first < count; first += step) {
        const std::uint32_t n = std::min(step, count - first);
        parts.push_back({first, n, first * bytes_each, n * bytes_each});
    }
    return parts;
}

MockHandoffs::Published leave(transfer::HandoffStore& store, Handoff what,
                              std::span<const std::uint64_t> stamps, std::uint64_t bytes_each) {
    auto buffer = store.reserve(stamps.size() * bytes_each);
    if (!buffer) {
        auto full = error(ErrorCode::kOverloaded, "What the leg has made could not be left: {}",
                          buffer.error().message);
        full.value().retryable = true;
        return full;
    }
    const std::span<std::byte> bytes = (*buffer)->bytes();
    for (std::size_t i = 0; i < stamps.size(); ++i) {
        std::memcpy(bytes.data() + i * bytes_each, &stamps[i], kStampBytes);
    }
    what.tokens = static_cast<std::uint32_t>(stamps.size());
    return store.publish(std::move(*buffer), std::move(what));
}

/// The stamps of those parts that have come are right.
bool stamped(const protocol::HandoffBytes& bytes, std::span<const std::uint64_t> stamps,
             std::uint64_t bytes_each) {
    std::uint64_t next = 0;
    for (std::size_t i = 0; i < bytes.parts.size(); ++i) {
        const HandoffPart& part = bytes.what->parts[i];
        if (part.first != next || part.tokens == 0 || part.tokens > stamps.size() - next) {
            return false;
        }
        next += part.tokens;
        const std::span<const std::byte> in = bytes.parts[i];
        if (in.empty()) continue;
        if (in.size() != part.tokens * bytes_each) return false;
        for (std::uint32_t k = 0; k < part.tokens; ++k) {
            if (std::memcmp(in.data() + k * bytes_each, &stamps[part.first + k], kStampBytes) !=
                0) {
                return false;
            }
        }
    }
    return next == stamps.size();
}

}  // namespace

MockHandoffs::MockHandoffs(HandoffOptions options, std::uint64_t kv_bytes_per_token,
                           std::uint32_t block_tokens)
    : options_(std::move(options)),
      kv_bytes_(std::max(kStampBytes, options_.kv_bytes_per_token != 0 ? options_.kv_bytes_per_token
                                                                       : kv_bytes_per_token)),
      part_tokens_(std::max(1U, kPartTokens / block_tokens) * block_tokens),
      kv_layout_(fmt::format("mock/{}", kv_bytes_)),
      embeddings_layout_(fmt::format("f32:{}:mock", options_.embedding_width)) {
    options_.embedding_width = std::max(2U, options_.embedding_width);
}

std::uint32_t MockHandoffs::rows(const protocol::MediaContent& content) const {
    const std::uint64_t pixels = std::uint64_t{content.width} * content.height;
    return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
        pixels / std::max(1U, options_.pixels_per_row), 1, std::max(1U, options_.most_rows)));
}

MockHandoffs::Published MockHandoffs::leave_kv(std::span<const tokens::TokenId> tokens,
                                               std::uint64_t salt, std::uint64_t seed) const {
    const auto count = static_cast<std::uint32_t>(tokens.size());
    const std::uint32_t at_least = count / protocol::kMaxHandoffParts + 1;
    const std::uint32_t parts = (at_least + part_tokens_ - 1) / part_tokens_;
    Handoff what;
    what.kind = Handoff::Kind::kKv;
    what.layout = kv_layout_;
    what.content = protocol::kv_content(tokens, salt);
    what.parts = cut(count, parts * part_tokens_, kv_bytes_);
    return leave(*options_.store, std::move(what), stamps(tokens, seed), kv_bytes_);
}

MockHandoffs::Published MockHandoffs::leave_embeddings(const protocol::MediaItem& item) const {
    const std::uint32_t each = rows(*item.content);
    const std::uint32_t frames =
        std::clamp<std::uint32_t>(item.content->frames, 1, protocol::kMaxMediaPieces);
    Handoff what;
    what.kind = Handoff::Kind::kEmbeddings;
    what.layout = embeddings_layout_;
    what.content = item.digest;
    what.pieces.assign(frames, {.text = {}, .rows = each});
    const std::uint64_t row_bytes = std::uint64_t{options_.embedding_width} * sizeof(float);
    what.parts = cut(frames * each, frames * each, row_bytes);
    return leave(*options_.store, std::move(what), stamps(item.digest, frames * each), row_bytes);
}

std::string MockHandoffs::why_not_kv(const protocol::GenerateRequest& request, std::uint64_t seed,
                                     std::uint32_t cached) const {
    const protocol::HandoffBytes& kv = *request.kv;
    const auto prompt = std::span(request.prompt).first(request.prompt.size() - 1);
    if (!kv.what || kv.what->kind != Handoff::Kind::kKv) return "it is no KV";
    if (kv.what->layout != kv_layout_) return "its layout is not this engine's";
    if (kv.what->tokens != prompt.size()) return "it covers another number of tokens";
    if (kv.parts.size() != kv.what->parts.size()) return "its parts do not match their list";
    if (kv.what->content != protocol::kv_content(prompt, request.cache_salt)) {
        return "it is of another prompt";
    }
    if (!stamped(kv, stamps(prompt, seed), kv_bytes_)) return "its bytes are of something else";
    for (std::size_t i = 0; i < kv.parts.size(); ++i) {
        const HandoffPart& part = kv.what->parts[i];
        if (kv.parts[i].empty() && part.first + part.tokens > cached) {
            return "parts of it have not come";
        }
    }
    return {};
}

Result<void> MockHandoffs::check_embeddings(const protocol::MediaItem& item) const {
    const auto refuse = [](std::string_view why) -> Result<void> {
        auto refused = error(ErrorCode::kUnavailable, "A media item can't be used: {}.", why);
        refused.value().param = "media";
        refused.value().retryable = true;
        return refused;
    };
    if (!item.arrived || !item.arrived->what) return refuse("its embeddings have not come");
    const Handoff& what = *item.arrived->what;
    if (what.kind != Handoff::Kind::kEmbeddings || what.layout != embeddings_layout_) {
        return refuse("its embeddings are of another form");
    }
    const std::uint64_t row_bytes = std::uint64_t{options_.embedding_width} * sizeof(float);
    const auto missing = [](std::span<const std::byte> part) { return part.empty(); };
    if (what.content != item.digest || item.arrived->parts.size() != what.parts.size() ||
        std::ranges::any_of(item.arrived->parts, missing) ||
        !stamped(*item.arrived, stamps(item.digest, what.tokens), row_bytes)) {
        return refuse("its embeddings are of something else");
    }
    return {};
}

}  // namespace stator::engine::mock
