#include "stator/frontend/media_prompt.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string>

#include "stator/frontend/chat_context.h"
#include "stator/tokens/hash.h"

namespace stator::frontend {
namespace {

std::size_t tokens_of(const protocol::MediaPiece& piece) {
    return piece.text.empty() ? piece.rows : piece.text.size();
}

std::size_t tokens_of(const protocol::Handoff& embeddings) {
    std::size_t out = 0;
    for (const protocol::MediaPiece& piece : embeddings.pieces) out += tokens_of(piece);
    return out;
}

}  // namespace

MediaSplit split_at_mark(std::string_view rendered, std::string_view mark) {
    MediaSplit out;
    for (std::size_t at = 0;;) {
        const std::size_t found = rendered.find(mark, at);
        out.texts.push_back(rendered.substr(at, found - at));
        if (found == std::string_view::npos) return out;
        out.items.push_back(static_cast<std::uint32_t>(out.items.size()));
        at = found + mark.size();
    }
}

MediaSplit split_at_media_marks(std::string_view rendered) {
    MediaSplit out;
    for (std::size_t at = 0;;) {
        const std::size_t found = rendered.find(kMediaMarkBegin, at);
        out.texts.push_back(rendered.substr(at, found - at));
        if (found == std::string_view::npos) return out;
        const std::size_t number = found + kMediaMarkBegin.size();
        const std::size_t end = std::min(rendered.find(kMediaMarkEnd, number), rendered.size());
        // A template that takes marks apart: names no item, and so names_each_once() fails.
        std::uint32_t item = std::numeric_limits<std::uint32_t>::max();
        std::from_chars(rendered.data() + number, rendered.data() + end, item);
        out.items.push_back(item);
        at = std::min(end + kMediaMarkEnd.size(), rendered.size());
    }
}

bool names_each_once(const MediaSplit& split, std::size_t items) {
    std::vector<bool> seen(items);
    for (const std::uint32_t item : split.items) {
        if (item >= items || seen[item]) return false;
        seen[item] = true;
    }
    return split.items.size() == items;
}

Result<void> check_embeddings(const EncodedItem& item) {
    const protocol::Handoff* e = item.embeddings.get();
    std::uint64_t rows = 0;
    if (e != nullptr) {
        for (const protocol::MediaPiece& piece : e->pieces) {
            if (piece.text.empty()) rows += piece.rows;
        }
    }
    if (e != nullptr && e->kind == protocol::Handoff::Kind::kEmbeddings &&
        e->content == item.digest && rows > 0 && rows == e->tokens) {
        return {};
    }
    return error(ErrorCode::kInternal, "the encoder's result does not fit the item");
}

std::size_t tokens_with_media(std::size_t text_tokens, std::span<const EncodedItem> items) {
    for (const EncodedItem& item : items) text_tokens += tokens_of(*item.embeddings);
    return text_tokens;
}

PromptWithMedia place_media(std::span<const tokens::TokenId> text,
                            std::span<const MediaPlace> places,
                            std::span<const EncodedItem> items) {
    PromptWithMedia out;
    out.tokens.reserve(tokens_with_media(text.size(), items));
    std::size_t copied = 0;
    for (const MediaPlace& place : places) {
        out.tokens.insert(out.tokens.end(), text.begin() + static_cast<std::ptrdiff_t>(copied),
                          text.begin() + static_cast<std::ptrdiff_t>(place.at));
        copied = place.at;
        const EncodedItem& item = items[place.item];
        protocol::MediaItem& media = out.media.emplace_back();
        media.digest = item.digest;
        media.position = static_cast<std::uint32_t>(out.tokens.size());
        media.tokens = static_cast<std::uint32_t>(tokens_of(*item.embeddings));
        media.content = item.content;
        media.embeddings = item.embeddings;
        std::uint32_t row = 0;
        for (const protocol::MediaPiece& piece : item.embeddings->pieces) {
            out.tokens.insert(out.tokens.end(), piece.text.begin(), piece.text.end());
            if (!piece.text.empty()) continue;
            for (std::uint32_t i = 0; i < piece.rows; ++i) {
                out.tokens.push_back(tokens::media_token(item.digest, row++));
            }
        }
    }
    out.tokens.insert(out.tokens.end(), text.begin() + static_cast<std::ptrdiff_t>(copied),
                      text.end());
    return out;
}

}  // namespace stator::frontend
