#include "stator/requests/leg_fields.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "stator/requests/fields.h"
#include "stator/requests/messages.h"

namespace stator::requests {
namespace {

using codec::MsgpackReader;
using codec::MsgpackWriter;
using protocol::GenerateRequest;
using protocol::Handoff;
using protocol::HandoffPart;
using protocol::Leg;
using protocol::MediaContent;
using protocol::MediaItem;
using protocol::MediaPiece;
using protocol::TransferPlace;

constexpr std::size_t kPartBytes = 24;
constexpr std::size_t kMaxPieceTokens = 4096;  // of all pieces of an item
constexpr std::uint32_t kMaxSide = 65'536;
constexpr std::size_t kChannels = 3;

template <std::size_t N>
std::string_view as_text(const std::array<std::uint8_t, N>& bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), N};
}

template <std::size_t N>
Result<void> read_fixed(MsgpackReader& r, std::array<std::uint8_t, N>& to) {
    auto bytes = r.binary();
    if (!bytes) return tl::unexpected(std::move(bytes.error()));
    if (bytes->size() != N) {
        return error(ErrorCode::kInvalidArgument, "{} bytes, expected {}", bytes->size(), N);
    }
    std::memcpy(to.data(), bytes->data(), N);
    return {};
}

Result<void> read_bytes(MsgpackReader& r, std::string& to, std::size_t limit) {
    auto bytes = r.binary();
    if (!bytes) return tl::unexpected(std::move(bytes.error()));
    if (bytes->size() > limit) {
        return error(ErrorCode::kTooLarge, "{} bytes, at most {}", bytes->size(), limit);
    }
    to.assign(*bytes);
    return {};
}

/// u32 first, u32 tokens, u64 offset, u64 bytes each.
void write_parts(MsgpackWriter& w, const std::vector<HandoffPart>& parts) {
    std::string raw;
    raw.reserve(parts.size() * kPartBytes);
    const auto add = [&](const auto& v) {
        raw.append(reinterpret_cast<const char*>(&v), sizeof v);
    };
    for (const HandoffPart& part : parts) {
        add(part.first);
        add(part.tokens);
        add(part.offset);
        add(part.bytes);
    }
    w.string("parts").binary(raw);
}

Result<void> read_parts(MsgpackReader& r, std::vector<HandoffPart>& parts) {
    auto raw = r.binary();
    if (!raw) return tl::unexpected(std::move(raw.error()));
    if (raw->size() % kPartBytes != 0) {
        return error(ErrorCode::kInvalidArgument, "{} bytes, no multiple of {}", raw->size(),
                     kPartBytes);
    }
    if (raw->size() / kPartBytes > protocol::kMaxHandoffParts) {
        return error(ErrorCode::kTooLarge, "{} parts, at most {}", raw->size() / kPartBytes,
                     protocol::kMaxHandoffParts);
    }
    parts.resize(raw->size() / kPartBytes);
    const char* at = raw->data();
    const auto take = [&](auto& v) {
        std::memcpy(&v, at, sizeof v);
        at += sizeof v;
    };
    for (HandoffPart& part : parts) {
        take(part.first);
        take(part.tokens);
        take(part.offset);
        take(part.bytes);
    }
    return {};
}

/// A number of rows, or a binary of tokens.
void write_piece(MsgpackWriter& w, const MediaPiece& piece) {
    if (piece.text.empty()) {
        w.number(piece.rows);
    } else {
        codec::append_u32_binary(w, piece.text);
    }
}

Result<void> read_piece(MsgpackReader& r, MediaPiece& piece) {
    auto type = r.peek();
    if (!type) return tl::unexpected(std::move(type.error()));
    if (*type == codec::MsgpackType::kInteger) return read_value(r, piece.rows);
    auto text = codec::read_u32_binary(r);
    if (!text) return tl::unexpected(std::move(text.error()));
    if (text->empty()) return error(ErrorCode::kInvalidArgument, "a piece of nothing");
    piece.text = std::move(*text);
    return {};
}

Result<void> read_place(MsgpackReader& r, TransferPlace& place) {
    auto n = r.array();
    if (!n) return tl::unexpected(std::move(n.error()));
    if (*n != 2) return error(ErrorCode::kInvalidArgument, "a place of {} values", *n);
    if (auto ok = read_text(r, place.method, kMaxNameBytes); !ok) return ok;
    return read_bytes(r, place.address, protocol::kMaxPlaceBytes);
}

void write_handoff(MsgpackWriter& w, const Handoff& h, TimePoint now) {
    w.map(7 + (h.parts.empty() ? 0U : 1U) + (h.pieces.empty() ? 0U : 1U) +
          (h.shape.empty() ? 0U : 1U) + (h.object.empty() ? 0U : 1U) + (h.early ? 1U : 0U) +
          (h.expires.is_never() ? 0U : 1U));
    w.string("k").number(static_cast<std::uint64_t>(h.kind));
    w.string("id").binary(as_text(h.id));
    w.string("size").number(h.bytes);
    w.string("lay");
    write_text(w, h.layout, kMaxNameBytes);
    w.string("of").binary(as_text(h.content));
    w.string("n").number(h.tokens);
    if (!h.parts.empty()) write_parts(w, h.parts);
    if (!h.pieces.empty()) {
        w.string("pieces").array(h.pieces.size());
        for (const MediaPiece& piece : h.pieces) write_piece(w, piece);
    }
    if (!h.shape.empty()) w.string("shape").binary(h.shape);
    if (!h.object.empty()) w.string("obj").binary(h.object);
    if (h.early) w.string("early").boolean(true);
    w.string("at").array(h.places.size());
    for (const TransferPlace& place : h.places) {
        w.array(2);
        write_text(w, place.method, kMaxNameBytes);
        w.binary(place.address);
    }
    if (!h.expires.is_never()) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(h.expires.left(now));
        w.string("left").number(static_cast<std::uint64_t>(left.count()));
    }
}

Result<void> read_expiry(MsgpackReader& r, Handoff& h, TimePoint now) {
    std::uint64_t left = 0;
    if (auto ok = read_value(r, left); !ok) return ok;
    // Beyond a year is as good as never.
    constexpr std::uint64_t kYear = 365ULL * 24 * 3600 * 1000;
    if (left < kYear) h.expires = Deadline::after(now, std::chrono::milliseconds(left));
    return {};
}

Result<void> read_handoff_map(MsgpackReader& r, Handoff& h, TimePoint now) {
    bool kind_seen = false;
    bool id_seen = false;
    auto read = each_field(r, [&](std::string_view key, MsgpackReader&) -> Field {
        if (key == "k") {
            kind_seen = true;
            return read_enum(r, h.kind, Handoff::Kind::kKv, Handoff::Kind::kEmbeddings);
        }
        if (key == "id") {
            id_seen = true;
            return read_fixed(r, h.id);
        }
        if (key == "size") return read_value(r, h.bytes);
        if (key == "lay") return read_text(r, h.layout, kMaxNameBytes);
        if (key == "of") return read_fixed(r, h.content);
        if (key == "n") return read_value(r, h.tokens);
        if (key == "parts") return read_parts(r, h.parts);
        if (key == "pieces") {
            return read_array(r, h.pieces, protocol::kMaxMediaPieces, read_piece);
        }
        if (key == "shape") return read_bytes(r, h.shape, protocol::kMaxShapeBytes);
        if (key == "obj") return read_bytes(r, h.object, protocol::kMaxObjectBytes);
        if (key == "early") return read_value(r, h.early);
        if (key == "at") return read_array(r, h.places, protocol::kMaxPlaces, read_place);
        if (key == "left") return read_expiry(r, h, now);
        return Field::unknown();
    });
    if (!read) return read;
    if (!kind_seen || !id_seen) return error(ErrorCode::kInvalidArgument, "no kind or no id");
    return check_handoff(h);
}

void write_content(MsgpackWriter& w, const MediaContent& c) {
    w.map(4 + (c.frame_ms.empty() ? 0U : 1U));
    w.string("k").number(static_cast<std::uint64_t>(c.kind));
    w.string("w").number(c.width);
    w.string("h").number(c.height);
    w.string("f").number(c.frames);
    if (c.frame_ms.empty()) return;
    w.string("ms");
    codec::append_u32_binary(w, c.frame_ms);
}

Result<void> read_content(MsgpackReader& r, std::shared_ptr<const MediaContent>& to) {
    auto c = std::make_shared<MediaContent>();
    bool kind_seen = false;
    auto read = each_field(r, [&](std::string_view key, MsgpackReader&) -> Field {
        if (key == "k") {
            kind_seen = true;
            return read_enum(r, c->kind, MediaContent::Kind::kImage, MediaContent::Kind::kVideo);
        }
        if (key == "w") return read_value(r, c->width);
        if (key == "h") return read_value(r, c->height);
        if (key == "f") return read_value(r, c->frames);
        if (key == "ms") {
            auto times = codec::read_u32_binary(r);
            if (!times) return Result<void>(tl::unexpected(std::move(times.error())));
            c->frame_ms = std::move(*times);
            return Result<void>{};
        }
        return Field::unknown();
    });
    if (!read) return read;
    if (!kind_seen) return error(ErrorCode::kInvalidArgument, "no kind");
    to = std::move(c);
    return {};
}

void write_item(MsgpackWriter& w, const MediaItem& item, TimePoint now, bool with_content) {
    with_content &= item.content != nullptr;
    w.map(3 + (with_content ? 1U : 0U) + (item.embeddings ? 1U : 0U));
    w.string("of").binary(as_text(item.digest));
    w.string("pos").number(item.position);
    w.string("n").number(item.tokens);
    if (with_content) {
        w.string("c");
        write_content(w, *item.content);
    }
    if (item.embeddings) {
        w.string("h");
        write_handoff(w, *item.embeddings, now);
    }
}

Result<void> read_item(MsgpackReader& r, MediaItem& item, TimePoint now) {
    bool digest_seen = false;
    auto read = each_field(r, [&](std::string_view key, MsgpackReader&) -> Field {
        if (key == "of") {
            digest_seen = true;
            return read_fixed(r, item.digest);
        }
        if (key == "pos") return read_value(r, item.position);
        if (key == "n") return read_value(r, item.tokens);
        if (key == "c") return read_content(r, item.content);
        if (key == "h") return read_handoff_field(r, item.embeddings, now);
        return Field::unknown();
    });
    if (read && !digest_seen) read = error(ErrorCode::kInvalidArgument, "no digest");
    return read;
}

Result<void> check_content(const MediaContent& c, std::size_t pixel_bytes) {
    if (c.width == 0 || c.height == 0 || c.width > kMaxSide || c.height > kMaxSide) {
        return param_error("media", "a picture of {} x {} pixels", c.width, c.height);
    }
    if (c.frames == 0 || c.frames > kMaxVideoFrames ||
        (c.kind == MediaContent::Kind::kImage && c.frames != 1)) {
        return param_error("media", "{} frames", c.frames);
    }
    const std::size_t times = c.kind == MediaContent::Kind::kVideo ? c.frames : 0;
    if (c.frame_ms.size() != times) {
        return param_error("media", "{} times of {} frames", c.frame_ms.size(), c.frames);
    }
    const std::uint64_t bytes = pixels_of(c);
    if (bytes != pixel_bytes) {
        return param_error("media", "{} bytes of pixels, {} x {} x {} frames have {}", pixel_bytes,
                           c.width, c.height, c.frames, bytes);
    }
    return {};
}

Result<void> check_encode(const GenerateRequest& q, std::size_t prompt_tokens,
                          std::size_t pixel_bytes) {
    if (prompt_tokens != 0) return param_error("prompt", "an encode leg has no prompt");
    if (q.handoff) return param_error("handoff", "an encode leg takes no handoff");
    if (q.media.size() != 1 || !q.media.front().content || q.media.front().embeddings) {
        return param_error("media", "an encode leg has one item with its content");
    }
    return check_content(*q.media.front().content, pixel_bytes);
}

Result<void> check_items(const GenerateRequest& q, std::size_t prompt_tokens) {
    std::uint64_t from = 0;
    for (const MediaItem& item : q.media) {
        if (item.tokens == 0 || item.position < from ||
            std::uint64_t{item.position} + item.tokens > prompt_tokens) {
            return param_error("media", "an item at {} with {} tokens in a prompt of {}",
                               item.position, item.tokens, prompt_tokens);
        }
        from = std::uint64_t{item.position} + item.tokens;
        if (item.embeddings && item.embeddings->kind != Handoff::Kind::kEmbeddings) {
            return param_error("media", "an item's handoff has no embeddings");
        }
    }
    return {};
}

}  // namespace

bool uses_legs(const GenerateRequest& q) {
    return q.leg != Leg::kWhole || q.handoff || !q.media.empty();
}

bool hands_off(Leg leg) { return leg == Leg::kPrefill || leg == Leg::kEncode; }

std::size_t leg_keys(const GenerateRequest& q) {
    return (q.handoff ? 1U : 0U) + (q.media.empty() ? 0U : 1U);
}

void write_leg_keys(MsgpackWriter& w, const GenerateRequest& q, TimePoint now) {
    if (q.handoff) {
        w.string("!handoff");
        write_handoff(w, *q.handoff, now);
    }
    if (q.media.empty()) return;
    w.string("!media").array(q.media.size());
    for (const MediaItem& item : q.media) write_item(w, item, now, sends_pixels(q, item));
}

Result<void> read_handoff_field(MsgpackReader& r, std::shared_ptr<const Handoff>& to,
                                TimePoint now) {
    auto h = std::make_shared<Handoff>();
    if (auto ok = read_handoff_map(r, *h, now); !ok) return ok;
    to = std::move(h);
    return {};
}

Result<void> read_media_field(MsgpackReader& r, std::vector<MediaItem>& to, TimePoint now) {
    return read_array(
        r, to, protocol::kMaxMediaItems,
        [now](MsgpackReader& reader, MediaItem& item) { return read_item(reader, item, now); });
}

Result<void> read_leg_map(std::string_view bytes, GenerateRequest& q, TimePoint now) {
    return each_field_of(bytes, [&](std::string_view key, MsgpackReader& r) -> Field {
        if (key == "!handoff") return read_handoff_field(r, q.handoff, now);
        if (key == "!media") return read_media_field(r, q.media, now);
        return Field::unknown();
    });
}

Result<void> check_legs(const GenerateRequest& q, std::size_t prompt_tokens,
                        std::size_t pixel_bytes) {
    if (q.leg == Leg::kEncode) return check_encode(q, prompt_tokens, pixel_bytes);
    if (q.handoff && q.leg != Leg::kDecode) {
        return param_error("handoff", "a {} leg takes no handoff", to_string(q.leg));
    }
    if (q.handoff && q.handoff->kind != Handoff::Kind::kKv) {
        return param_error("handoff", "the handoff has no KV");
    }
    if (auto ok = check_items(q, prompt_tokens); !ok) return ok;
    std::uint64_t sent = 0;
    for (const MediaItem& item : q.media) {
        if (!sends_pixels(q, item)) continue;
        const std::uint64_t bytes = pixels_of(*item.content);
        if (auto ok = check_content(*item.content, bytes); !ok) return ok;
        sent += bytes;
    }
    if (sent == pixel_bytes) return {};
    return param_error("media", "{} bytes of pixels, its items have {}", pixel_bytes, sent);
}

std::uint64_t pixels_of(const MediaContent& c) {
    return std::uint64_t{c.width} * c.height * c.frames * kChannels;
}

bool sends_pixels(const GenerateRequest& q, const MediaItem& item) {
    if (!item.content) return false;
    return q.leg == Leg::kEncode || (item.embeddings && !item.embeddings->object.empty());
}

Result<void> check_handoff(const Handoff& h) {
    if (h.kind != Handoff::Kind::kKv && h.kind != Handoff::Kind::kEmbeddings) {
        return error(ErrorCode::kInvalidArgument, "a handoff of no kind");
    }
    if (h.parts.size() > protocol::kMaxHandoffParts ||
        h.pieces.size() > protocol::kMaxMediaPieces || h.places.size() > protocol::kMaxPlaces ||
        h.shape.size() > protocol::kMaxShapeBytes || h.layout.size() > kMaxNameBytes ||
        h.object.size() > protocol::kMaxObjectBytes) {
        return error(ErrorCode::kTooLarge,
                     "a handoff with {} parts, {} pieces, {} places, {} bytes of shape, {} of an "
                     "engine's object",
                     h.parts.size(), h.pieces.size(), h.places.size(), h.shape.size(),
                     h.object.size());
    }
    if (!h.object.empty() && (h.bytes != 0 || !h.parts.empty() || !h.places.empty())) {
        return error(ErrorCode::kInvalidArgument, "an engine's object with bytes of ours");
    }
    if (h.early && (h.object.empty() || h.kind != Handoff::Kind::kKv)) {
        return error(ErrorCode::kInvalidArgument, "an early handoff without an engine's KV");
    }
    for (const TransferPlace& place : h.places) {
        if (place.address.size() <= protocol::kMaxPlaceBytes &&
            place.method.size() <= kMaxNameBytes) {
            continue;
        }
        return error(ErrorCode::kTooLarge, "a place of {} bytes, at most {}", place.address.size(),
                     protocol::kMaxPlaceBytes);
    }
    std::uint64_t tokens = 0;
    std::uint64_t offset = 0;
    for (const HandoffPart& part : h.parts) {
        if (part.first != tokens || part.tokens == 0 || part.offset < offset ||
            part.offset > h.bytes || part.bytes > h.bytes - part.offset) {
            return error(ErrorCode::kInvalidArgument,
                         "a part with {} tokens from {} in {} bytes at {} of {}", part.tokens,
                         part.first, part.bytes, part.offset, h.bytes);
        }
        tokens += part.tokens;
        offset = part.offset + part.bytes;
    }
    if (!h.parts.empty() && tokens != h.tokens) {
        return error(ErrorCode::kInvalidArgument, "parts of {} tokens in a handoff of {}", tokens,
                     h.tokens);
    }
    if (h.pieces.empty()) return {};
    if (h.kind != Handoff::Kind::kEmbeddings) {
        return error(ErrorCode::kInvalidArgument, "pieces of KV");
    }
    std::uint64_t rows = 0;
    std::size_t text = 0;
    for (const MediaPiece& piece : h.pieces) {
        if (piece.text.empty() == (piece.rows == 0)) {
            return error(ErrorCode::kInvalidArgument, "a piece of {} tokens and {} rows",
                         piece.text.size(), piece.rows);
        }
        rows += piece.rows;
        text += piece.text.size();
    }
    if (text > kMaxPieceTokens) {
        return error(ErrorCode::kTooLarge, "pieces with {} tokens, at most {}", text,
                     kMaxPieceTokens);
    }
    if (rows != h.tokens) {
        return error(ErrorCode::kInvalidArgument, "pieces with {} rows of {}", rows, h.tokens);
    }
    return {};
}

void append_handoff(std::string& out, const Handoff& handoff, TimePoint now) {
    MsgpackWriter w(out);
    write_handoff(w, handoff, now);
}

Result<Handoff> read_handoff(std::string_view payload, TimePoint now) {
    Handoff h;
    MsgpackReader r(payload);
    auto read = read_handoff_map(r, h, now);
    if (read && !r.done()) {
        read = error(ErrorCode::kInvalidArgument, "{} bytes lie behind the map",
                     payload.size() - r.position());
    }
    return finish_reading(std::move(read), h, "handoff");
}

}  // namespace stator::requests
