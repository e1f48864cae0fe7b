#include "stator/engine/llama/media_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string_view>

#include "stator/tokens/hash.h"

namespace stator::engine::llama {
namespace {

using protocol::MediaItem;
using tokens::TokenId;

bool is_media(TokenId token) { return token >= tokens::kFirstMediaToken; }

std::span<const TokenId> tokens_of(const protocol::GenerateRequest& request,
                                   const MediaItem& item) {
    return std::span(request.prompt).subspan(item.position, item.tokens);
}

std::string_view why_not(const protocol::GenerateRequest& request, const MediaItem& item,
                         std::uint32_t width) {
    if (!item.arrived || !item.arrived->what) return "its embeddings have not come";
    const protocol::Handoff& what = *item.arrived->what;
    if (what.kind != protocol::Handoff::Kind::kEmbeddings ||
        !what.layout.starts_with(embeddings_layout_prefix(width))) {
        return "its embeddings are of another form";
    }
    if (what.content != item.digest) return "its embeddings are of another picture";
    if (item.arrived->parts.size() != what.parts.size()) return "parts of its embeddings lack";
    std::uint64_t rows = 0;
    for (std::size_t i = 0; i < what.parts.size(); ++i) {
        const auto& part = what.parts[i];
        if (part.first != rows ||
            item.arrived->parts[i].size() != std::uint64_t{part.tokens} * width * sizeof(float)) {
            return "parts of its embeddings lack";
        }
        rows += part.tokens;
    }
    const auto wanted = std::ranges::count_if(tokens_of(request, item), is_media);
    if (rows != static_cast<std::uint64_t>(wanted)) {
        return "it has another number of rows than places in the prompt";
    }
    return {};
}

}  // namespace

std::string embeddings_layout_prefix(std::uint32_t width) { return fmt::format("f32:{}:", width); }

MediaRows::MediaRows(const protocol::GenerateRequest& request) {
    for (const MediaItem& item : request.media) {
        if (!item.arrived) continue;
        std::vector<const std::byte*> rows;
        for (std::size_t i = 0; i < item.arrived->parts.size(); ++i) {
            const auto bytes = item.arrived->parts[i];
            const std::uint32_t count = item.arrived->what->parts[i].tokens;
            for (std::uint32_t k = 0; k < count; ++k) {
                rows.push_back(bytes.data() + k * (bytes.size() / count));
            }
        }
        std::size_t next = 0;
        const auto tokens = tokens_of(request, item);
        for (std::uint32_t i = 0; i < tokens.size() && next < rows.size(); ++i) {
            if (!is_media(tokens[i])) continue;
            positions_.push_back(item.position + i);
            rows_.push_back(rows[next++]);
        }
    }
}

const std::byte* MediaRows::at(std::uint32_t position) const {
    const auto found = std::ranges::lower_bound(positions_, position);
    if (found == positions_.end() || *found != position) return nullptr;
    return rows_[static_cast<std::size_t>(found - positions_.begin())];
}

Result<void> check_prompt(const protocol::GenerateRequest& request, std::uint32_t vocab_size) {
    const auto check_text = [&](std::size_t from, std::size_t to) -> Result<void> {
        for (std::size_t i = from; i < to; ++i) {
            const TokenId token = request.prompt[i];
            if (token < vocab_size) continue;
            return param_error("prompt", "Token id {} is not in the vocabulary of {} tokens.",
                               token, vocab_size);
        }
        return {};
    };
    std::size_t next = 0;
    for (const MediaItem& item : request.media) {
        const std::uint64_t end = std::uint64_t{item.position} + item.tokens;
        if (item.position < next || end > request.prompt.size()) {
            return param_error("media", "Media items must lie in the prompt, one after the other.");
        }
        if (auto ok = check_text(next, item.position); !ok) return ok;
        std::uint32_t row = 0;
        for (std::size_t i = item.position; i < end; ++i) {
            const TokenId token = request.prompt[i];
            if (!is_media(token)) {
                if (auto ok = check_text(i, i + 1); !ok) return ok;
            } else if (token != tokens::media_token(item.digest, row++)) {
                return param_error("media", "The prompt has another picture at token {}.", i);
            }
        }
        next = static_cast<std::size_t>(end);
    }
    return check_text(next, request.prompt.size());
}

Result<void> check_media(const protocol::GenerateRequest& request, std::uint32_t width) {
    for (const MediaItem& item : request.media) {
        const std::string_view why = why_not(request, item, width);
        if (why.empty()) continue;
        auto refused = error(ErrorCode::kUnavailable, "A media item can't be used: {}.", why);
        refused.value().param = "media";
        refused.value().retryable = true;
        return refused;
    }
    return {};
}

void drop_unusable_media(protocol::GenerateRequest& request, std::uint32_t width) {
    for (MediaItem& item : request.media) {
        if (!why_not(request, item, width).empty()) item.arrived.reset();
    }
}

}  // namespace stator::engine::llama
