#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "stator/engine/kv_feed/engine_event.h"
#include "stator/protocol/kv_event.h"
#include "stator/tokens/hash.h"

namespace stator::engine {

struct KvFeedOptions {
    std::uint32_t block_tokens = 64;  ///< of the pool, whose blocks come out
    /// Pages that are remembered at once: of the engine's own block count, all its memories
    /// together, and some more for those it has dropped whose children it may still name.
    std::uint32_t most_pages = 1U << 20;
    /// Ids that stand in prompts for rows of media: they become tokens::media_token(), as in the
    /// prompts that the router sees.
    std::vector<tokens::TokenId> media_placeholders = {};
    /// An engine that holds a block twice says so twice and takes it back twice (vLLM up to 0.2x).
    /// Not where it also repeats what it has for the asking (kv_cache_report_mode=full of later
    /// ones): there a repetition is no copy, and a block would stay here for ever.
    bool counts_copies = false;
    /// The engine's adapters do not show in its hashes (SGLang, format "default"): what names one
    /// is not indexed.
    bool lora_hidden = false;
};

/// Puts the events of one engine's rank into ours: the engine names blocks by hashes of its own,
/// which mean nothing elsewhere; here they are followed from the root, so that every block gets the
/// hash that the router computes of a prompt. Pages smaller than the pool's blocks are gathered (a
/// block is there when all its pages are), larger ones are cut. Pure; one thread at a time.
///
/// Memory is bounded by most_pages. What comes when nothing can be forgotten any more is not
/// indexed, and counted.
class KvFeed {
  public:
    explicit KvFeed(KvFeedOptions options);
    ~KvFeed();

    /// Appends what changed, in order, without sequence numbers.
    void apply(const EngineKvEvent& event, std::vector<protocol::KvEvent>& out);
    /// The engine has nothing, or nothing is known of it any more.
    void clear(std::vector<protocol::KvEvent>& out);

    /// Of a request with a salt or an adapter that the engine's events do not show: chains that
    /// begin with these tokens look like plain ones, and are not indexed from now on. The last
    /// kMostHidden count.
    void hide(std::span<const tokens::TokenId> prompt);
    static constexpr std::size_t kMostHidden = 65'536;

    struct Stats {
        std::uint64_t pages = 0;        ///< that the engine holds, in any memory
        std::uint64_t orphans = 0;      ///< of them: of a parent that was never named
        std::uint64_t not_indexed = 0;  ///< pages that came and are no part of any chain of ours
        std::uint64_t unknown = 0;      ///< events that were passed over
        std::uint64_t dropped = 0;      ///< pages for which there was no memory
        std::uint64_t resized = 0;      ///< times that the engine's page size changed
        std::uint64_t unknown_removed = 0;  ///< removals of what was not here
    };
    [[nodiscard]] const Stats& stats() const { return stats_; }
    /// Of the engine's pages; 0 = not known yet.
    [[nodiscard]] std::uint32_t page_tokens() const { return page_tokens_; }

  private:
    using Index = std::uint32_t;
    static constexpr Index kNone = UINT32_MAX;
    static constexpr std::uint32_t kNoSpace = UINT32_MAX;
    static constexpr std::size_t kTiers = 3;
    static constexpr std::size_t kMostGroups = 64;

    ///             stored below a mapped one, or as a root
    ///   missing ─────────────────────────────────────────────▶ mapped
    ///      │  stored below one that is not                ▲
    ///      └──────────────▶ orphan ───────────────────────┤ its parent is mapped now
    ///                          └──▶ opaque (also at once, and all below)
    enum class State : std::uint8_t {
        kFree,
        kMissing,  ///< named as a parent, never stored
        kOrphan,   ///< waits for a missing one above
        kMapped,
        kOpaque,  ///< never to be indexed: its tokens, adapter or salt do not show
    };
    enum class Group : std::uint8_t { kUnseen, kDense, kSparse, kIgnored };
    struct Space;
    /// A page. Beside it lie its tokens, as long as they are needed, and the blocks of a large one.
    struct Page {
        std::uint64_t hash = 0;
        tokens::SequenceHash sequence;  ///< of the last whole block, where `rooted`
        tokens::BlockHash block;        ///< that it closes
        Index parent = kNone;
        Index first_child = kNone;
        Index next_sibling = kNone;
        Index previous_sibling = kNone;
        std::uint32_t space = 0;
        std::uint16_t filled = 0;  ///< pages, up to this one, of a block that it does not close
        std::array<std::uint8_t, kTiers> copies{};
        std::uint8_t group = 0;
        State state = State::kFree;
        bool rooted = false;       ///< a whole block ends here or above
        bool forgettable = false;  ///< in forgettable_
    };

    void stored(const EngineKvEvent& event);
    void removed(const EngineKvEvent& event);
    bool take_group(const EngineKvEvent& event);
    bool take_page_size(const EngineKvEvent& event);

    void fill(Index page, Index parent, const EngineKvEvent& event, std::size_t i);
    void adopt(Index page);
    void map(Index page, std::uint32_t space);
    void make_opaque(Index page);
    void gather(Index page);
    bool read_tokens(const EngineKvEvent& event, std::size_t i);
    [[nodiscard]] std::uint32_t space_of(const EngineKvEvent& event);
    void leave_space(Index page);

    void put(Index page, std::size_t tier);
    void take(Index page, std::size_t tier);
    template <typename F>
    void for_blocks_of(Index page, const F& f);
    [[nodiscard]] bool whole(Index closing, std::size_t tier) const;
    void emit_stored(Index closing, std::size_t tier);
    void emit_removed(Index closing, std::size_t tier);
    [[nodiscard]] static bool closes(const Page& p) {
        return p.state == State::kMapped && p.filled == 0;
    }
    [[nodiscard]] static bool held(const Page& p) { return p.copies != decltype(p.copies){}; }

    [[nodiscard]] static std::uint64_t key_of(std::uint64_t hash, std::uint8_t group);
    [[nodiscard]] Index find(std::uint64_t hash, std::uint8_t group) const;
    [[nodiscard]] Index find_or_make(std::uint64_t hash, std::uint8_t group);
    bool make_room();
    void forget(Index page);
    void attach(Index page, Index parent);
    void detach(Index page);
    [[nodiscard]] bool is_below(Index page, Index ancestor) const;

    const KvFeedOptions options_;
    const std::unordered_set<tokens::TokenId> placeholders_;
    std::uint32_t page_tokens_ = 0;
    std::uint32_t pages_per_block_ = 1;  ///< or
    std::uint32_t blocks_per_page_ = 1;
    std::vector<Page> pages_;
    std::vector<Index> free_;
    std::unordered_map<std::uint64_t, Index> by_key_;
    std::unordered_map<Index, std::vector<tokens::TokenId>> tokens_;
    std::unordered_map<Index, std::vector<protocol::StoredBlock>> cut_;
    std::deque<Index> forgettable_;  ///< held nowhere, kept for what may come below them
    std::vector<std::unique_ptr<Space>> spaces_;
    std::vector<std::uint32_t> free_spaces_;
    std::unordered_map<std::string, std::uint32_t> space_numbers_;
    std::array<Group, kMostGroups> groups_{};
    std::unordered_set<std::uint64_t> hidden_;  ///< first blocks
    std::deque<std::uint64_t> hidden_order_;
    std::vector<tokens::TokenId> scratch_;
    std::vector<const EngineExtraKey*> media_;
    std::vector<protocol::KvEvent>* out_ = nullptr;  ///< during apply()
    std::size_t first_out_ = 0;
    Stats stats_;
};

}  // namespace stator::engine
