#include "stator/engine/kv_feed/kv_feed.h"

#include <algorithm>
#include <utility>

#include "stator/base/check.h"

namespace stator::engine {

using protocol::KvEvent;
using protocol::KvGroup;
using protocol::KvTier;
using tokens::TokenId;

namespace {

constexpr std::size_t kDigestBytes = 32;
/// Pages looked at for one that can be forgotten.
constexpr int kTriesForRoom = 64;

std::optional<KvTier> tier_of(std::string_view medium) {
    if (medium.empty() || medium == "GPU") return KvTier::kDevice;
    if (medium == "CPU" || medium == "CPU_TIER1" || medium == "CPU_PINNED") return KvTier::kHost;
    if (medium == "CPU_TIER2" || medium == "DISK" || medium == "EXTERNAL") return KvTier::kDisk;
    return {};
}

/// Of all tokens, so that a prefix can be reused wherever it ends.
bool is_dense(std::string_view spec_kind) {
    return spec_kind.empty() || spec_kind == "full_attention" || spec_kind.starts_with("mla");
}

std::optional<std::array<std::uint8_t, kDigestBytes>> digest_of(std::string_view hex) {
    if (hex.size() != 2 * kDigestBytes) return {};
    const auto digit = [](char c) {
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    };
    std::array<std::uint8_t, kDigestBytes> out{};
    for (std::size_t i = 0; i < out.size(); ++i) {
        const int high = digit(hex[2 * i]);
        const int low = digit(hex[2 * i + 1]);
        if (high < 0 || low < 0) return {};
        out[i] = static_cast<std::uint8_t>(high * 16 + low);
    }
    return out;
}

}  // namespace

/// What chains share beside their tokens: an adapter and a salt.
struct KvFeed::Space {
    explicit Space(std::string n, std::uint64_t seed) : name(std::move(n)), hasher(seed) {}
    const std::string name;
    const tokens::BlockHasher hasher;
    std::uint64_t pages = 0;
};

KvFeed::KvFeed(KvFeedOptions options)
    : options_(std::move(options)),
      placeholders_(options_.media_placeholders.begin(), options_.media_placeholders.end()) {
    STATOR_CHECK(options_.block_tokens > 0, "a pool's blocks have tokens");
}

KvFeed::~KvFeed() = default;

void KvFeed::apply(const EngineKvEvent& event, std::vector<KvEvent>& out) {
    out_ = &out;
    first_out_ = out.size();
    switch (event.kind) {
        case EngineKvEvent::Kind::kStored:
            stored(event);
            break;
        case EngineKvEvent::Kind::kRemoved:
            removed(event);
            break;
        case EngineKvEvent::Kind::kCleared:
            clear(out);
            break;
        case EngineKvEvent::Kind::kUnknown:
            ++stats_.unknown;
            break;
    }
    out_ = nullptr;
}

void KvFeed::clear(std::vector<KvEvent>& out) {
    out.push_back({.seq = {}, .what = protocol::KvCleared{}});
    pages_.clear();
    free_.clear();
    by_key_.clear();
    tokens_.clear();
    cut_.clear();
    forgettable_.clear();
    spaces_.clear();
    free_spaces_.clear();
    space_numbers_.clear();
    groups_.fill(Group::kUnseen);
    page_tokens_ = 0;
    pages_per_block_ = blocks_per_page_ = 1;
    first_out_ = out.size();
    stats_.pages = 0;
    stats_.orphans = 0;
}

void KvFeed::hide(std::span<const TokenId> prompt) {
    if (prompt.size() < options_.block_tokens) return;
    const tokens::BlockHash first =
        tokens::block_hash(prompt.first(options_.block_tokens), tokens::hash_seed());
    if (!hidden_.insert(first.value).second) return;
    hidden_order_.push_back(first.value);
    if (hidden_order_.size() <= kMostHidden) return;
    hidden_.erase(hidden_order_.front());
    hidden_order_.pop_front();
}

// ---- events

void KvFeed::stored(const EngineKvEvent& event) {
    const std::size_t n = event.hashes.size();
    const bool whole = event.tokens.size() == n * std::size_t{event.block_tokens};
    if (event.block_tokens == 0 || (event.tokens_known && !whole)) {
        ++stats_.unknown;
        return;
    }
    const auto tier = tier_of(event.medium);
    if (!tier || event.shared || !take_group(event) || !take_page_size(event)) {
        stats_.not_indexed += n;
        return;
    }
    const auto group = static_cast<std::uint8_t>(event.group);
    Index parent = kNone;
    if (event.parent) {
        parent = find_or_make(*event.parent, group);
        if (parent == kNone) {
            stats_.dropped += n;
            return;
        }
    }
    for (std::size_t i = 0; i < n; ++i) {
        const Index page = find_or_make(event.hashes[i], group);
        if (page == kNone) {
            stats_.dropped += n - i;
            return;
        }
        const bool is_new = pages_[page].state == State::kMissing;
        if (is_new && (page == parent || is_below(parent, page))) {
            stats_.not_indexed += n - i;  // its own ancestor
            return;
        }
        if (is_new) fill(page, parent, event, i);
        put(page, static_cast<std::size_t>(*tier));
        if (is_new) adopt(page);
        parent = page;
    }
}

void KvFeed::removed(const EngineKvEvent& event) {
    const auto tier = tier_of(event.medium);
    if (!tier || event.group >= groups_.size() || event.shared) return;
    for (const std::uint64_t hash : event.hashes) {
        const Index page = find(hash, static_cast<std::uint8_t>(event.group));
        if (page == kNone) {
            ++stats_.unknown_removed;
        } else {
            take(page, static_cast<std::size_t>(*tier));
        }
    }
}

/// False: a group of no use here. Of several dense ones the first speaks for all.
bool KvFeed::take_group(const EngineKvEvent& event) {
    if (event.group >= groups_.size()) return false;
    Group& group = groups_[event.group];
    if (group == Group::kUnseen) {
        const bool first = std::ranges::find(groups_, Group::kDense) == groups_.end();
        group = !is_dense(event.spec_kind) ? Group::kSparse
                : first                    ? Group::kDense
                                           : Group::kIgnored;
    }
    return group != Group::kIgnored;
}

/// False: the pool's blocks can't be had from pages of this size.
bool KvFeed::take_page_size(const EngineKvEvent& event) {
    const std::uint32_t size = event.block_tokens;
    if (page_tokens_ != size) {
        if (page_tokens_ != 0) {
            if (groups_[event.group] == Group::kSparse) return false;
            const auto kept = groups_;
            clear(*out_);
            groups_ = kept;
            ++stats_.resized;
        }
        page_tokens_ = size;
        pages_per_block_ = std::max(1U, options_.block_tokens / size);
        blocks_per_page_ = std::max(1U, size / options_.block_tokens);
    }
    return options_.block_tokens % size == 0 || size % options_.block_tokens == 0;
}

// ---- from the engine's pages to the pool's blocks

/// Makes a page of what was a name only.
void KvFeed::fill(Index page, Index parent, const EngineKvEvent& event, std::size_t i) {
    if (parent != kNone) attach(page, parent);
    const State above = parent == kNone ? State::kMapped : pages_[parent].state;
    if (!read_tokens(event, i) || above == State::kOpaque) {
        make_opaque(page);
        return;
    }
    tokens_[page] = scratch_;
    if (above != State::kMapped) {
        pages_[page].state = State::kOrphan;
        ++stats_.orphans;
        return;
    }
    map(page, parent == kNone ? space_of(event) : pages_[parent].space);
}

/// Goes on with the pages that waited for this one.
void KvFeed::adopt(Index page) {
    if (pages_[page].state == State::kOrphan) return;
    std::vector<Index> next{page};
    while (!next.empty()) {
        const Index parent = next.back();
        next.pop_back();
        for (Index c = pages_[parent].first_child; c != kNone; c = pages_[c].next_sibling) {
            if (pages_[c].state != State::kOrphan) continue;
            --stats_.orphans;
            if (pages_[parent].state == State::kOpaque) {
                make_opaque(c);
            } else {
                map(c, pages_[parent].space);
                for (std::size_t tier = 0; tier < kTiers; ++tier) {
                    if (closes(pages_[c]) && whole(c, tier)) emit_stored(c, tier);
                }
            }
            next.push_back(c);
        }
    }
}

/// Its parent is mapped, or it is a root.
void KvFeed::map(Index page, std::uint32_t space) {
    if (space == kNoSpace) {
        make_opaque(page);
        return;
    }
    Page& p = pages_[page];
    const Page* const above = p.parent == kNone ? nullptr : &pages_[p.parent];
    const bool rooted = above != nullptr && above->rooted;
    const tokens::SequenceHash* const before = rooted ? &above->sequence : nullptr;
    p.rooted = rooted;
    if (rooted) p.sequence = above->sequence;
    p.filled = 0;
    if (pages_per_block_ > 1) {
        const std::uint32_t filled = (above == nullptr ? 0U : above->filled) + 1U;
        p.filled = static_cast<std::uint16_t>(filled % pages_per_block_);
    }
    p.state = State::kMapped;
    p.space = space;
    ++spaces_[space]->pages;
    if (p.filled != 0) return;  // its tokens stay for those that will close the block

    gather(page);
    const tokens::BlockHasher& hasher = spaces_[space]->hasher;
    std::array<tokens::BlockHash, 1> one_block;
    std::array<tokens::SequenceHash, 1> one_sequence;
    std::vector<tokens::BlockHash> more_blocks;
    std::vector<tokens::SequenceHash> more_sequences;
    tokens::BlockHash* blocks = one_block.data();
    tokens::SequenceHash* sequences = one_sequence.data();
    if (blocks_per_page_ > 1) {
        more_blocks.resize(blocks_per_page_);
        more_sequences.resize(blocks_per_page_);
        blocks = more_blocks.data();
        sequences = more_sequences.data();
    }
    hasher.chain(scratch_, options_.block_tokens, before, blocks, sequences);
    tokens_.erase(page);
    if (!rooted && spaces_[space]->name.empty() && hidden_.contains(blocks[0].value)) {
        make_opaque(page);
        return;
    }
    if (blocks_per_page_ > 1) {
        auto& cut = cut_[page];
        for (std::uint32_t b = 0; b < blocks_per_page_; ++b) {
            cut.push_back({.block = blocks[b], .sequence = sequences[b], .tokens = {}});
        }
    }
    p.block = blocks[0];
    p.sequence = sequences[blocks_per_page_ - 1];
    p.rooted = true;
}

void KvFeed::make_opaque(Index page) {
    leave_space(page);
    tokens_.erase(page);
    pages_[page].state = State::kOpaque;
    ++stats_.not_indexed;
}

/// The tokens of the block that this page closes, into scratch_.
void KvFeed::gather(Index page) {
    scratch_.clear();
    std::array<Index, 64> few;
    std::vector<Index> many;
    Index* way = few.data();
    if (pages_per_block_ > few.size()) {
        many.resize(pages_per_block_);
        way = many.data();
    }
    Index at = page;
    for (std::uint32_t i = pages_per_block_; i > 0; --i) {
        way[i - 1] = at;
        at = pages_[at].parent;
    }
    for (std::uint32_t i = 0; i < pages_per_block_; ++i) {
        const auto& of = tokens_.at(way[i]);
        scratch_.insert(scratch_.end(), of.begin(), of.end());
    }
}

/// The tokens of the event's i-th page, into scratch_. False: what its hash depends on does not
/// show, or can't be had.
bool KvFeed::read_tokens(const EngineKvEvent& event, std::size_t i) {
    if (!event.tokens_known) return false;
    const auto own = std::span(event.tokens).subspan(i * event.block_tokens, event.block_tokens);
    scratch_.assign(own.begin(), own.end());
    if (std::ranges::any_of(own, [](TokenId t) { return t >= tokens::kFirstMediaToken; })) {
        return false;
    }
    media_.clear();
    std::size_t texts = 0;
    for (const EngineExtraKey& key : event.extra) {
        if (key.block != i) continue;
        if (key.offset) {
            media_.push_back(&key);
        } else if (key.text != event.lora) {
            ++texts;
        }
    }
    const bool root = i == 0 && !event.parent;
    if (texts > (root ? 1U : 0U)) return false;
    if (placeholders_.empty()) return media_.empty();
    std::ranges::sort(media_, {}, [](const EngineExtraKey* k) { return *k->offset; });
    const EngineExtraKey* of = nullptr;
    std::optional<std::array<std::uint8_t, kDigestBytes>> digest;
    std::size_t next = 0;
    for (std::size_t at = 0; at < scratch_.size(); ++at) {
        const auto place = static_cast<std::int64_t>(at);
        while (next < media_.size() && *media_[next]->offset <= place) {
            of = media_[next++];
            digest = digest_of(of->text);
            if (!digest) return false;
        }
        if (!placeholders_.contains(scratch_[at])) continue;
        if (of != nullptr) {
            scratch_[at] =
                tokens::media_token(*digest, static_cast<std::uint32_t>(place - *of->offset));
        } else if (texts > 0 || !event.has_extra_keys) {
            return false;  // a picture whose name may be the text, or does not show
        }
    }
    return next == media_.size();
}

/// Of a root. kNoSpace: it does not show.
std::uint32_t KvFeed::space_of(const EngineKvEvent& event) {
    std::string lora(event.lora);
    if (lora.empty() && event.lora_id) lora = "#" + std::to_string(*event.lora_id);
    if (!lora.empty() && options_.lora_hidden) return kNoSpace;
    std::string_view salt = event.salt;
    for (const EngineExtraKey& key : event.extra) {
        if (key.block == 0 && !key.offset && key.text != event.lora) salt = key.text;
    }
    std::string name;
    if (!lora.empty() || !salt.empty()) {
        name = std::to_string(lora.size()) + ":" + lora + std::string(salt);
    }
    const auto known = space_numbers_.find(name);
    if (known != space_numbers_.end()) return known->second;
    auto space = std::make_unique<Space>(name, tokens::hash_seed(lora, salt));
    std::uint32_t number = 0;
    if (free_spaces_.empty()) {
        number = static_cast<std::uint32_t>(spaces_.size());
        spaces_.push_back(std::move(space));
    } else {
        number = free_spaces_.back();
        free_spaces_.pop_back();
        spaces_[number] = std::move(space);
    }
    space_numbers_.emplace(std::move(name), number);
    return number;
}

void KvFeed::leave_space(Index page) {
    Page& p = pages_[page];
    if (p.state != State::kMapped) return;
    const std::uint32_t number = p.space;
    if (--spaces_[number]->pages > 0) return;
    space_numbers_.erase(spaces_[number]->name);
    spaces_[number].reset();
    free_spaces_.push_back(number);
}

// ---- what the engine holds

void KvFeed::put(Index page, std::size_t tier) {
    Page& p = pages_[page];
    if (!held(p)) ++stats_.pages;
    std::uint8_t& copies = p.copies[tier];
    if (copies > 0) {
        if (options_.counts_copies && copies < UINT8_MAX) ++copies;
        return;
    }
    copies = 1;
    for_blocks_of(page, [&](Index closing) {
        if (whole(closing, tier)) emit_stored(closing, tier);
    });
}

void KvFeed::take(Index page, std::size_t tier) {
    Page& p = pages_[page];
    std::uint8_t& copies = p.copies[tier];
    if (copies == 0) {
        ++stats_.unknown_removed;
        return;
    }
    if (copies > 1) {
        --copies;
        return;
    }
    for_blocks_of(page, [&](Index closing) {
        if (whole(closing, tier)) emit_removed(closing, tier);
    });
    copies = 0;
    if (held(p)) return;
    --stats_.pages;
    if (!std::exchange(p.forgettable, true)) forgettable_.push_back(page);
}

/// The pages that close the blocks that this one is part of.
template <typename F>
void KvFeed::for_blocks_of(Index page, const F& f) {
    if (pages_[page].state != State::kMapped) return;
    if (pages_[page].filled == 0) {
        f(page);
        return;
    }
    std::vector<Index> next{page};
    while (!next.empty()) {
        const Index at = next.back();
        next.pop_back();
        for (Index c = pages_[at].first_child; c != kNone; c = pages_[c].next_sibling) {
            if (pages_[c].state != State::kMapped) continue;
            if (pages_[c].filled == 0) {
                f(c);
            } else {
                next.push_back(c);
            }
        }
    }
}

bool KvFeed::whole(Index closing, std::size_t tier) const {
    Index at = closing;
    for (std::uint32_t i = 0; i < pages_per_block_; ++i) {
        if (pages_[at].copies[tier] == 0) return false;
        at = pages_[at].parent;
    }
    return true;
}

void KvFeed::emit_stored(Index closing, std::size_t tier) {
    const Page& p = pages_[closing];
    Index above = closing;
    for (std::uint32_t i = 0; i < pages_per_block_; ++i) above = pages_[above].parent;
    std::optional<tokens::SequenceHash> parent;
    if (above != kNone) parent = pages_[above].sequence;
    const auto group = groups_[p.group] == Group::kSparse ? KvGroup::kSparse : KvGroup::kDense;
    protocol::KvStored* to = nullptr;
    if (out_->size() > first_out_) {
        auto* last = std::get_if<protocol::KvStored>(&out_->back().what);
        if (last != nullptr && parent && last->tier == static_cast<KvTier>(tier) &&
            last->group == group && last->blocks.back().sequence == *parent) {
            to = last;
        }
    }
    if (to == nullptr) {
        out_->push_back({.seq = {}, .what = protocol::KvStored{}});
        to = &std::get<protocol::KvStored>(out_->back().what);
        to->parent = parent;
        to->tier = static_cast<KvTier>(tier);
        to->group = group;
    }
    if (blocks_per_page_ == 1) {
        to->blocks.push_back({.block = p.block, .sequence = p.sequence, .tokens = {}});
        return;
    }
    const auto& cut = cut_.at(closing);
    to->blocks.insert(to->blocks.end(), cut.begin(), cut.end());
}

void KvFeed::emit_removed(Index closing, std::size_t tier) {
    const Page& p = pages_[closing];
    const auto group = groups_[p.group] == Group::kSparse ? KvGroup::kSparse : KvGroup::kDense;
    protocol::KvRemoved* to = nullptr;
    if (out_->size() > first_out_) {
        auto* last = std::get_if<protocol::KvRemoved>(&out_->back().what);
        if (last != nullptr && last->tier == static_cast<KvTier>(tier) && last->group == group) {
            to = last;
        }
    }
    if (to == nullptr) {
        out_->push_back({.seq = {}, .what = protocol::KvRemoved{}});
        to = &std::get<protocol::KvRemoved>(out_->back().what);
        to->tier = static_cast<KvTier>(tier);
        to->group = group;
    }
    if (blocks_per_page_ == 1) {
        to->sequences.push_back(p.sequence);
        return;
    }
    // Children before parents.
    const auto& cut = cut_.at(closing);
    for (auto block = cut.rbegin(); block != cut.rend(); ++block) {
        to->sequences.push_back(block->sequence);
    }
}

// ---- the table

std::uint64_t KvFeed::key_of(std::uint64_t hash, std::uint8_t group) {
    return hash ^ group * 0x9e37'79b9'7f4a'7c15ULL;
}

KvFeed::Index KvFeed::find(std::uint64_t hash, std::uint8_t group) const {
    const auto found = by_key_.find(key_of(hash, group));
    return found == by_key_.end() ? kNone : found->second;
}

/// kNone: there is no memory left.
KvFeed::Index KvFeed::find_or_make(std::uint64_t hash, std::uint8_t group) {
    const Index known = find(hash, group);
    if (known != kNone) return known;
    if (pages_.size() - free_.size() >= options_.most_pages && !make_room()) return kNone;
    Index page = 0;
    if (free_.empty()) {
        page = static_cast<Index>(pages_.size());
        pages_.emplace_back();
    } else {
        page = free_.back();
        free_.pop_back();
        pages_[page] = {};
    }
    pages_[page].hash = hash;
    pages_[page].group = group;
    pages_[page].state = State::kMissing;
    by_key_.emplace(key_of(hash, group), page);
    return page;
}

/// Forgets a page that the engine does not hold and that has no children.
bool KvFeed::make_room() {
    for (int i = 0; i < kTriesForRoom && !forgettable_.empty(); ++i) {
        const Index page = forgettable_.front();
        forgettable_.pop_front();
        Page& p = pages_[page];
        p.forgettable = false;
        if (held(p)) continue;
        if (p.first_child != kNone) {
            p.forgettable = true;
            forgettable_.push_back(page);
            continue;
        }
        forget(page);
        return true;
    }
    return false;
}

void KvFeed::forget(Index page) {
    while (page != kNone) {
        Page& p = pages_[page];
        const Index parent = p.parent;
        if (p.state == State::kOrphan) --stats_.orphans;
        leave_space(page);
        detach(page);
        by_key_.erase(key_of(p.hash, p.group));
        tokens_.erase(page);
        cut_.erase(page);
        p.state = State::kFree;
        free_.push_back(page);
        // A parent that was a name only, for this child's sake.
        const bool last_of_name = parent != kNone && pages_[parent].state == State::kMissing &&
                                  pages_[parent].first_child == kNone;
        page = last_of_name ? parent : kNone;
    }
}

void KvFeed::attach(Index page, Index parent) {
    Page& p = pages_[page];
    Page& above = pages_[parent];
    p.parent = parent;
    p.next_sibling = above.first_child;
    if (above.first_child != kNone) pages_[above.first_child].previous_sibling = page;
    above.first_child = page;
}

void KvFeed::detach(Index page) {
    Page& p = pages_[page];
    if (p.parent == kNone) return;
    if (p.previous_sibling != kNone) {
        pages_[p.previous_sibling].next_sibling = p.next_sibling;
    } else {
        pages_[p.parent].first_child = p.next_sibling;
    }
    if (p.next_sibling != kNone) pages_[p.next_sibling].previous_sibling = p.previous_sibling;
    p.parent = p.next_sibling = p.previous_sibling = kNone;
}

/// Whether `page` is `ancestor` or below it. Only a name that has children can be somebody's.
bool KvFeed::is_below(Index page, Index ancestor) const {
    if (page == kNone || pages_[ancestor].first_child == kNone) return false;
    for (Index at = page; at != kNone; at = pages_[at].parent) {
        if (at == ancestor) return true;
    }
    return false;
}

}  // namespace stator::engine
