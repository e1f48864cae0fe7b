#include "stator/events/kv_batch.h"

#include <bit>
#include <cstring>
#include <optional>
#include <utility>
#include <variant>

namespace stator::events {
namespace {

using protocol::KvCleared;
using protocol::KvEvent;
using protocol::KvGroup;
using protocol::KvRemoved;
using protocol::KvStored;
using protocol::KvTier;

constexpr std::string_view kStored = "stored";
constexpr std::string_view kRemoved = "removed";
constexpr std::string_view kCleared = "cleared";
constexpr std::uint64_t kSomeGroup = 1;  // which of the sparse ones matters to nobody yet

static_assert(std::endian::native == std::endian::little, "hashes are copied as they are");

/// Appends n numbers as one binary without gathering them first: at(i) gives each.
template <typename T, typename At>
void append_column(std::string& out, std::size_t n, At at) {
    std::string& to = out;
    codec::MsgpackWriter(to).binary_head(n * sizeof(T));
    const std::size_t start = to.size();
    to.resize(start + n * sizeof(T));
    char* p = to.data() + start;
    for (std::size_t i = 0; i < n; ++i, p += sizeof(T)) {
        const T v = at(i);
        std::memcpy(p, &v, sizeof(T));
    }
}

void append_tokens(std::string& out, const KvStored& stored) {
    std::size_t count = 0;
    for (const auto& block : stored.blocks) count += block.tokens.size();
    codec::MsgpackWriter(out).string("tokens").binary_head(count * sizeof(tokens::TokenId));
    for (const auto& block : stored.blocks) {
        out.append(reinterpret_cast<const char*>(block.tokens.data()),
                   block.tokens.size() * sizeof(tokens::TokenId));
    }
}

void append_stored(std::string& out, codec::MsgpackWriter& w, std::size_t pairs,
                   const KvStored& stored, bool with_tokens) {
    const bool says_tier = stored.tier != KvTier::kDevice;
    const bool says_group = stored.group != KvGroup::kDense;
    w.map(pairs + 3 + (stored.parent ? 1U : 0U) + (with_tokens ? 1U : 0U) + (says_tier ? 1U : 0U) +
          (says_group ? 1U : 0U));
    w.string("op").string(kStored);
    if (says_group) w.string("group").number(kSomeGroup);
    if (says_tier) w.string("tier").string(to_string(stored.tier));
    if (stored.parent) w.string("parent").number(stored.parent->value);
    w.string("blocks");
    append_column<std::uint64_t>(out, stored.blocks.size(),
                                 [&](std::size_t i) { return stored.blocks[i].block.value; });
    w.string("hashes");
    append_column<std::uint64_t>(out, stored.blocks.size(),
                                 [&](std::size_t i) { return stored.blocks[i].sequence.value; });
    if (with_tokens) append_tokens(out, stored);
}

std::uint64_t u64_at(std::string_view column, std::size_t i) {
    std::uint64_t v = 0;
    std::memcpy(&v, column.data() + i * sizeof(v), sizeof(v));
    return v;
}

template <typename T>
Result<void> take(Result<T> value, std::optional<T>& into) {
    if (!value) return tl::unexpected(value.error());
    into = *std::move(value);
    return {};
}

std::optional<KvTier> tier_of(const std::optional<std::string_view>& name) {
    if (!name) return KvTier::kDevice;
    for (const auto tier : {KvTier::kDevice, KvTier::kHost, KvTier::kDisk}) {
        if (*name == to_string(tier)) return tier;
    }
    return std::nullopt;
}

KvGroup group_of(const std::optional<std::uint64_t>& number) {
    return number.value_or(0) == 0 ? KvGroup::kDense : KvGroup::kSparse;
}

tl::unexpected<Error> missing(std::string_view op, std::string_view what) {
    return error(ErrorCode::kInvalidArgument, "a KV event \"{}\" needs {}", op, what);
}

}  // namespace

void append_kv_batch(std::string& out, std::span<const KvEvent> events, bool with_tokens) {
    codec::MsgpackWriter w(out);
    w.map(1).string("events").array(events.size());
    std::uint64_t expected = 0;
    for (const KvEvent& event : events) {
        // A number is left out where it is the one after the last.
        const std::size_t pairs = event.seq.value == expected && expected != 0 ? 0 : 1;
        expected = event.seq.value + 1;
        if (const auto* stored = std::get_if<KvStored>(&event.what)) {
            append_stored(out, w, pairs, *stored, with_tokens);
        } else if (const auto* removed = std::get_if<KvRemoved>(&event.what)) {
            const bool says_tier = removed->tier != KvTier::kDevice;
            const bool says_group = removed->group != KvGroup::kDense;
            w.map(pairs + 2 + (says_tier ? 1U : 0U) + (says_group ? 1U : 0U));
            w.string("op").string(kRemoved);
            if (says_group) w.string("group").number(kSomeGroup);
            if (says_tier) w.string("tier").string(to_string(removed->tier));
            w.string("hashes");
            append_column<std::uint64_t>(out, removed->sequences.size(), [&](std::size_t i) {
                return removed->sequences[i].value;
            });
        } else {
            w.map(pairs + 1).string("op").string(kCleared);
        }
        if (pairs == 1) w.string("n").number(event.seq.value);
    }
}

struct KvBatchReader::Fields {
    std::optional<std::string_view> op;
    std::optional<std::string_view> tier;
    std::optional<std::uint64_t> number;
    std::optional<std::uint64_t> group;
    std::optional<std::uint64_t> parent;
    std::optional<std::string_view> blocks;
    std::optional<std::string_view> hashes;
    std::optional<std::string_view> tokens;

    Result<void> read(codec::MsgpackReader& r, std::string_view key) {
        if (key == "op") return take(r.string(), op);
        if (key == "hashes") return take(r.binary(), hashes);
        if (key == "blocks") return take(r.binary(), blocks);
        if (key == "parent") return take(r.number(), parent);
        if (key == "tier") return take(r.string(), tier);
        if (key == "n") return take(r.number(), number);
        if (key == "group") return take(r.number(), group);
        if (key == "tokens") return take(r.binary(), tokens);
        return r.skip();
    }
};

Result<void> KvBatchReader::begin() {
    begun_ = true;
    const auto pairs = reader_.map();
    if (!pairs) return tl::unexpected(pairs.error());
    pairs_left_ = *pairs;
    return {};
}

/// Goes on to the next "events" of the batch's map; false at the map's end.
Result<bool> KvBatchReader::enter_array() {
    while (pairs_left_ > 0) {
        --pairs_left_;
        const auto key = reader_.string();
        if (!key) return tl::unexpected(key.error());
        if (*key != "events") {
            if (auto ok = reader_.skip(); !ok) return tl::unexpected(ok.error());
            continue;
        }
        const auto n = reader_.array();
        if (!n) return tl::unexpected(n.error());
        events_left_ = *n;
        if (events_left_ > 0) return true;
    }
    return false;
}

Result<void> KvBatchReader::finish() {
    if (reader_.done()) return {};
    return error(ErrorCode::kInvalidArgument, "bytes follow the map of a KV batch, at {}",
                 reader_.position());
}

Result<const KvEvent*> KvBatchReader::next() {
    if (!begun_) {
        if (auto ok = begin(); !ok) return tl::unexpected(ok.error());
    }
    for (;;) {
        if (events_left_ == 0) {
            const auto more = enter_array();
            if (!more) return tl::unexpected(more.error());
            if (!*more) {
                if (auto ok = finish(); !ok) return tl::unexpected(ok.error());
                return nullptr;
            }
        }
        --events_left_;
        auto found = event();
        if (!found || *found != nullptr) return found;
    }
}

/// Null where the kind or the memory is not known.
Result<const KvEvent*> KvBatchReader::event() {
    const auto pairs = reader_.map();
    if (!pairs) return tl::unexpected(pairs.error());
    Fields f;
    for (std::size_t i = 0; i < *pairs; ++i) {
        const auto key = reader_.string();
        if (!key) return tl::unexpected(key.error());
        if (auto ok = f.read(reader_, *key); !ok) return tl::unexpected(ok.error());
    }
    if (!f.op) return missing("?", "the key op");
    sequence_ = f.number.value_or(sequence_ + 1);
    if (*f.op == kStored || *f.op == kRemoved) {
        const auto tier = tier_of(f.tier);
        if (!tier) return nullptr;
        return *f.op == kStored ? stored(f, *tier) : removed(f, *tier);
    }
    if (*f.op != kCleared) return nullptr;
    scratch_.cleared.seq = protocol::EventSeq(sequence_);
    return &scratch_.cleared;
}

Result<const KvEvent*> KvBatchReader::stored(const Fields& f, KvTier tier) {
    if (!f.hashes || !f.blocks || f.hashes->size() != f.blocks->size() ||
        f.hashes->size() % sizeof(std::uint64_t) != 0) {
        return missing(kStored,
                       "the keys blocks and hashes, binaries of as many numbers of 8 bytes");
    }
    const std::size_t n = f.hashes->size() / sizeof(std::uint64_t);
    const std::string_view tokens = f.tokens.value_or(std::string_view{});
    if (!tokens.empty() && (n == 0 || tokens.size() % (n * sizeof(tokens::TokenId)) != 0)) {
        return missing(kStored, "as many tokens for each block");
    }
    scratch_.stored.seq = protocol::EventSeq(sequence_);
    auto& to = std::get<KvStored>(scratch_.stored.what);
    to.tier = tier;
    to.group = group_of(f.group);
    to.parent.reset();
    if (f.parent) to.parent = tokens::SequenceHash(*f.parent);
    to.blocks.resize(n);
    const std::size_t each = n == 0 ? 0 : tokens.size() / n;
    for (std::size_t i = 0; i < n; ++i) {
        auto& block = to.blocks[i];
        block.block.value = u64_at(*f.blocks, i);
        block.sequence.value = u64_at(*f.hashes, i);
        block.tokens.resize(each / sizeof(tokens::TokenId));
        if (each > 0) std::memcpy(block.tokens.data(), tokens.data() + i * each, each);
    }
    return &scratch_.stored;
}

Result<const KvEvent*> KvBatchReader::removed(const Fields& f, KvTier tier) {
    if (!f.hashes || f.hashes->size() % sizeof(std::uint64_t) != 0) {
        return missing(kRemoved, "the key hashes, a binary of numbers of 8 bytes");
    }
    scratch_.removed.seq = protocol::EventSeq(sequence_);
    std::get<KvRemoved>(scratch_.removed.what).tier = tier;
    std::get<KvRemoved>(scratch_.removed.what).group = group_of(f.group);
    auto& to = std::get<KvRemoved>(scratch_.removed.what).sequences;
    to.resize(f.hashes->size() / sizeof(std::uint64_t));
    for (std::size_t i = 0; i < to.size(); ++i) to[i].value = u64_at(*f.hashes, i);
    return &scratch_.removed;
}

}  // namespace stator::events
