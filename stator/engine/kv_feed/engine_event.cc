#include "stator/engine/kv_feed/engine_event.h"

#include <array>
#include <tuple>
#include <utility>

#include "stator/codec/msgpack.h"

namespace stator::engine {

using codec::MsgpackReader;
using codec::MsgpackType;

void EngineKvEvent::clear() {
    auto kept = std::make_tuple(std::move(hashes), std::move(tokens), std::move(extra));
    *this = {};
    std::tie(hashes, tokens, extra) = std::move(kept);
    hashes.clear();
    tokens.clear();
    extra.clear();
}

EngineKvEvent& EngineKvBatch::add() {
    if (count_ == pool_.size()) pool_.emplace_back();
    EngineKvEvent& event = pool_[count_++];
    event.clear();
    return event;
}

void EngineKvBatch::clear() {
    time = 0;
    rank.reset();
    count_ = 0;
}

namespace {

enum class Field : std::uint8_t {
    kNone,
    kHashes,
    kParent,
    kTokens,
    kBlockTokens,
    kLoraId,
    kMedium,
    kLoraName,
    kExtraKeys,
    kGroup,
    kSpecKind,
    kSalt,
    kLocality,
    kMetadata,  ///< SGLang's map of the others
};

constexpr std::array<std::pair<std::string_view, Field>, 13> kNames{{
    {"block_hashes", Field::kHashes},
    {"parent_block_hash", Field::kParent},
    {"token_ids", Field::kTokens},
    {"block_size", Field::kBlockTokens},
    {"lora_id", Field::kLoraId},
    {"medium", Field::kMedium},
    {"lora_name", Field::kLoraName},
    {"extra_keys", Field::kExtraKeys},
    {"group_idx", Field::kGroup},
    {"kv_cache_spec_kind", Field::kSpecKind},
    {"cache_salt", Field::kSalt},
    {"locality", Field::kLocality},
    {"metadata", Field::kMetadata},
}};

// In arrays, behind the type.
constexpr std::array kStoredOrder{
    Field::kHashes, Field::kParent,   Field::kTokens,    Field::kBlockTokens, Field::kLoraId,
    Field::kMedium, Field::kLoraName, Field::kExtraKeys, Field::kGroup,       Field::kSpecKind,
};
constexpr std::array kRemovedOrder{Field::kHashes, Field::kMedium, Field::kGroup};

Field field_named(std::string_view name) {
    for (const auto& [known, field] : kNames) {
        if (known == name) return field;
    }
    return Field::kNone;
}

EngineKvEvent::Kind kind_named(std::string_view type) {
    if (type == "BlockStored") return EngineKvEvent::Kind::kStored;
    if (type == "BlockRemoved") return EngineKvEvent::Kind::kRemoved;
    if (type == "AllBlocksCleared") return EngineKvEvent::Kind::kCleared;
    return EngineKvEvent::Kind::kUnknown;
}

std::uint64_t last_bytes(std::string_view bytes) {
    std::uint64_t v = 0;
    if (bytes.size() > 8) bytes.remove_prefix(bytes.size() - 8);
    for (const char c : bytes) v = v << 8 | static_cast<unsigned char>(c);
    return v;
}

}  // namespace

/// Reads on until the bytes break: then every method is false, and broken() says why. A value of
/// another type than expected is passed over and makes the event unsound.
class EngineBatchReader {
  public:
    EngineBatchReader(std::string_view payload, EngineKvBatch& batch)
        : r_(payload), batch_(batch) {}

    Result<void> read() {
        if (batch()) return {};
        batch_.clear();
        return tl::unexpected(std::move(broken_));
    }

  private:
    template <typename T>
    bool take(Result<T>&& result, T& out) {
        if (!result) {
            broken_ = std::move(result.error());
            return false;
        }
        out = *std::move(result);
        return true;
    }
    bool take(Result<void>&& result) {
        if (!result) broken_ = std::move(result.error());
        return result.has_value();
    }
    /// With the four arrays and maps that may be around a field's value.
    bool skip() { return take(r_.skip(4)); }
    bool type(MsgpackType& out) { return take(r_.peek(), out); }
    bool unsound() {
        sound_ = false;
        return skip();
    }

    bool batch() {
        batch_.clear();
        std::size_t n = 0;
        if (!take(r_.array(), n)) return false;
        if (n > 0 && !take(r_.real(), batch_.time)) return false;
        std::size_t events = 0;
        if (n > 1 && !take(r_.array(), events)) return false;
        for (std::size_t i = 0; i < events; ++i) {
            if (!event()) return false;
        }
        if (n > 2 && !rank()) return false;
        for (std::size_t i = 3; i < n; ++i) {
            if (!skip()) return false;
        }
        return true;
    }

    bool rank() {
        MsgpackType t{};
        if (!type(t)) return false;
        if (t != MsgpackType::kInteger) return skip();
        std::uint64_t v = 0;
        if (!take(r_.bits(), v)) return false;
        if (v <= UINT32_MAX) batch_.rank = static_cast<std::uint32_t>(v);
        return true;
    }

    bool event() {
        EngineKvEvent& e = batch_.add();
        sound_ = true;
        MsgpackType t{};
        if (!type(t)) return false;
        const bool ok = t == MsgpackType::kMap     ? named_event(e)
                        : t == MsgpackType::kArray ? ordered_event(e)
                                                   : unsound();
        if (!sound_) e.kind = EngineKvEvent::Kind::kUnknown;
        return ok;
    }

    bool named_event(EngineKvEvent& e) {
        std::size_t pairs = 0;
        if (!take(r_.map(), pairs)) return false;
        for (std::size_t i = 0; i < pairs; ++i) {
            std::string_view name;
            if (!take(r_.string(), name)) return false;
            if (name == "type") {
                std::string_view kind;
                if (!text(kind)) return false;
                e.kind = kind_named(kind);
            } else if (!field(e, field_named(name))) {
                return false;
            }
        }
        return true;
    }

    bool ordered_event(EngineKvEvent& e) {
        std::size_t n = 0;
        if (!take(r_.array(), n)) return false;
        std::string_view kind;
        if (n > 0 && !text(kind)) return false;
        e.kind = kind_named(kind);
        std::span<const Field> order;
        if (e.kind == EngineKvEvent::Kind::kStored) order = kStoredOrder;
        if (e.kind == EngineKvEvent::Kind::kRemoved) order = kRemovedOrder;
        for (std::size_t i = 1; i < n; ++i) {
            if (!field(e, i <= order.size() ? order[i - 1] : Field::kNone)) return false;
        }
        return true;
    }

    bool field(EngineKvEvent& e, Field which) {
        if (which == Field::kNone) return skip();
        MsgpackType t{};
        if (!type(t)) return false;
        if (t == MsgpackType::kNil) {
            e.has_extra_keys = e.has_extra_keys || which == Field::kExtraKeys;
            return take(r_.nil());
        }
        switch (which) {
            case Field::kHashes:
                return hashes(e);
            case Field::kParent:
                return hash(e.parent.emplace());
            case Field::kTokens:
                return tokens(e, t);
            case Field::kBlockTokens:
                return number(e.block_tokens, t);
            case Field::kLoraId:
                return lora_id(e, t);
            case Field::kMedium:
                return text(e.medium);
            // SGLang's arrays have a map of more fields in this place.
            case Field::kLoraName:
                return t == MsgpackType::kMap ? metadata(e) : text(e.lora);
            case Field::kExtraKeys:
                return extra_keys(e, t);
            case Field::kGroup:
                return number(e.group, t);
            case Field::kSpecKind:
                return text(e.spec_kind);
            case Field::kSalt:
                return text(e.salt);
            case Field::kLocality:
                return locality(e);
            case Field::kMetadata:
                return t == MsgpackType::kMap ? metadata(e) : unsound();
            case Field::kNone:
                break;
        }
        return skip();
    }

    bool text(std::string_view& out) {
        MsgpackType t{};
        if (!type(t)) return false;
        return t == MsgpackType::kString ? take(r_.string(), out) : unsound();
    }

    bool number(std::uint32_t& out, MsgpackType t) {
        if (t != MsgpackType::kInteger) return unsound();
        std::uint64_t v = 0;
        if (!take(r_.bits(), v)) return false;
        out = static_cast<std::uint32_t>(v);
        sound_ = sound_ && v == out;
        return true;
    }

    bool lora_id(EngineKvEvent& e, MsgpackType t) {
        if (t != MsgpackType::kInteger) return unsound();
        std::uint64_t v = 0;
        if (!take(r_.bits(), v)) return false;
        e.lora_id = static_cast<std::int64_t>(v);
        return true;
    }

    bool hash(std::uint64_t& out) {
        MsgpackType t{};
        if (!type(t)) return false;
        if (t == MsgpackType::kInteger) return take(r_.bits(), out);
        std::string_view bytes;
        if (t != MsgpackType::kBinary) return unsound();
        if (!take(r_.binary(), bytes)) return false;
        out = last_bytes(bytes);
        return true;
    }

    bool hashes(EngineKvEvent& e) {
        std::size_t n = 0;
        if (!take(r_.array(), n)) return false;
        e.hashes.resize(n);
        for (std::uint64_t& h : e.hashes) {
            if (!hash(h)) return false;
        }
        return true;
    }

    bool tokens(EngineKvEvent& e, MsgpackType t) {
        if (t != MsgpackType::kArray) return unsound();
        return take(r_.u32_array(e.tokens), e.tokens_known);
    }

    bool locality(EngineKvEvent& e) {
        std::string_view where;
        if (!text(where)) return false;
        e.shared = where == "REMOTE";
        return true;
    }

    bool metadata(EngineKvEvent& e) {
        std::size_t pairs = 0;
        if (!take(r_.map(), pairs)) return false;
        for (std::size_t i = 0; i < pairs; ++i) {
            std::string_view name;
            if (!take(r_.string(), name)) return false;
            MsgpackType t{};
            if (!type(t)) return false;
            if (!(t == MsgpackType::kMap ? skip() : field(e, field_named(name)))) return false;
        }
        return true;
    }

    /// By block nil or a list of what it depends on.
    bool extra_keys(EngineKvEvent& e, MsgpackType t) {
        e.has_extra_keys = true;
        std::size_t blocks = 0;
        if (t != MsgpackType::kArray) return unsound();
        if (!take(r_.array(), blocks)) return false;
        for (std::size_t b = 0; b < blocks; ++b) {
            MsgpackType of{};
            if (!type(of)) return false;
            if (of != MsgpackType::kArray) {
                if (!(of == MsgpackType::kNil ? take(r_.nil()) : unsound())) return false;
                continue;
            }
            std::size_t n = 0;
            if (!take(r_.array(), n)) return false;
            for (std::size_t i = 0; i < n; ++i) {
                if (!extra_key(e, static_cast<std::uint32_t>(b))) return false;
            }
        }
        return true;
    }

    bool extra_key(EngineKvEvent& e, std::uint32_t block) {
        EngineExtraKey key{.block = block, .text = {}, .offset = {}};
        MsgpackType t{};
        if (!type(t)) return false;
        if (t == MsgpackType::kString) {
            if (!text(key.text)) return false;
        } else if (t == MsgpackType::kBinary) {
            if (!take(r_.binary(), key.text)) return false;
        } else if (t == MsgpackType::kArray) {
            std::size_t n = 0;
            if (!take(r_.array(), n)) return false;
            if (n > 0 && !text(key.text)) return false;
            if (n > 1) {
                std::uint64_t v = 0;
                if (!type(t)) return false;
                if (t == MsgpackType::kInteger) {
                    if (!take(r_.bits(), v)) return false;
                    key.offset = static_cast<std::int64_t>(v);
                } else if (!unsound()) {
                    return false;
                }
            }
            for (std::size_t i = 2; i < n; ++i) {
                if (!skip()) return false;
            }
        } else {
            return unsound();
        }
        e.extra.push_back(key);
        return true;
    }

    MsgpackReader r_;
    EngineKvBatch& batch_;
    bool sound_ = true;
    Error broken_;
};

Result<void> read_engine_batch(std::string_view payload, EngineKvBatch& batch) {
    return EngineBatchReader(payload, batch).read();
}

}  // namespace stator::engine
