#include "stator/engine/kv_feed/kv_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <numeric>

#include "stator/engine/kv_feed/engine_feed_fixture.h"

namespace stator::engine {
namespace {

using protocol::KvEvent;
using protocol::KvTier;
using testing::ElementsAre;
using testing::IsEmpty;
using tokens::SequenceHash;
using tokens::TokenId;
using Prompt = std::vector<TokenId>;

Prompt counting(std::size_t n, TokenId first = 1) {
    Prompt out(n);
    std::iota(out.begin(), out.end(), first);
    return out;
}

/// The hashes of a prompt's whole blocks, as the router has them.
std::vector<std::uint64_t> sequences(const Prompt& prompt, std::size_t block,
                                     std::uint64_t seed = tokens::hash_seed()) {
    const std::size_t n = prompt.size() / block;
    std::vector<tokens::BlockHash> blocks(n);
    std::vector<SequenceHash> out(n);
    tokens::BlockHasher(seed).chain(std::span(prompt).first(n * block), block, nullptr,
                                    blocks.data(), out.data());
    std::vector<std::uint64_t> values;
    for (const auto s : out) values.push_back(s.value);
    return values;
}

/// An engine's own hash of a prompt's first pages; any function of them will do.
std::uint64_t own_hash(const Prompt& prompt, std::size_t tokens, const std::string& salt = {}) {
    std::uint64_t h = std::hash<std::string>{}(salt) | 1;
    for (std::size_t i = 0; i < tokens; ++i) h = (h ^ prompt[i]) * 0x9e37'79b9'7f4a'7c15ULL;
    return h;
}

struct Feed {
    explicit Feed(KvFeedOptions o) : options(std::move(o)), feed(options) {}

    EngineKvEvent stored(const Prompt& prompt, std::size_t page, std::size_t first = 0,
                         const std::string& salt = {}) {
        EngineKvEvent e;
        e.kind = EngineKvEvent::Kind::kStored;
        e.block_tokens = static_cast<std::uint32_t>(page);
        e.has_extra_keys = true;
        if (first > 0) e.parent = own_hash(prompt, first * page, salt);
        for (std::size_t i = first; i < prompt.size() / page; ++i) {
            e.hashes.push_back(own_hash(prompt, (i + 1) * page, salt));
            e.tokens.insert(e.tokens.end(), prompt.begin() + static_cast<std::ptrdiff_t>(i * page),
                            prompt.begin() + static_cast<std::ptrdiff_t>((i + 1) * page));
        }
        return e;
    }
    static EngineKvEvent removed(std::vector<std::uint64_t> hashes) {
        EngineKvEvent e;
        e.kind = EngineKvEvent::Kind::kRemoved;
        e.hashes = std::move(hashes);
        return e;
    }
    std::vector<KvEvent> apply(const EngineKvEvent& e) {
        std::vector<KvEvent> out;
        feed.apply(e, out);
        for (const auto& event : out) held.apply(event);
        return out;
    }
    [[nodiscard]] std::vector<std::uint64_t> here() const {
        std::vector<std::uint64_t> out;
        for (const auto& [sequence, tiers] : held.held()) out.push_back(sequence);
        return out;
    }

    KvFeedOptions options;
    KvFeed feed;
    HeldBlocks held;
};

std::vector<std::uint64_t> sorted(std::vector<std::uint64_t> v) {
    std::ranges::sort(v);
    return v;
}

TEST(KvFeed, AChainIsOneEventWithOurHashes) {
    Feed f({.block_tokens = 4});
    const auto prompt = counting(12);
    const auto out = f.apply(f.stored(prompt, 4));
    ASSERT_EQ(out.size(), 1U);
    const auto& stored = std::get<protocol::KvStored>(out[0].what);
    EXPECT_FALSE(stored.parent);
    ASSERT_EQ(stored.blocks.size(), 3U);
    EXPECT_EQ(f.here(), sorted(sequences(prompt, 4)));
    // Behind a known parent.
    auto longer = prompt;
    for (const TokenId t : {50, 51, 52, 53}) longer.push_back(t);
    const auto more = f.apply(f.stored(longer, 4, 3));
    ASSERT_EQ(more.size(), 1U);
    EXPECT_EQ(std::get<protocol::KvStored>(more[0].what).parent->value, sequences(prompt, 4)[2]);
    EXPECT_EQ(f.here(), sorted(sequences(longer, 4)));
}

TEST(KvFeed, SmallPagesMakeABlockWhenAllAreThere) {
    Feed f({.block_tokens = 8});
    const auto prompt = counting(17);
    f.apply(f.stored(Prompt(prompt.begin(), prompt.begin() + 6), 2));
    EXPECT_THAT(f.here(), IsEmpty());
    f.apply(f.stored(Prompt(prompt.begin(), prompt.begin() + 14), 2, 3));
    EXPECT_THAT(f.here(), ElementsAre(sequences(prompt, 8)[0]));
    f.apply(f.stored(Prompt(prompt.begin(), prompt.begin() + 16), 2, 7));
    EXPECT_EQ(f.here(), sorted(sequences(prompt, 8)));
    // A page in the middle of the first block.
    f.apply(Feed::removed({own_hash(prompt, 4)}));
    EXPECT_THAT(f.here(), ElementsAre(sequences(prompt, 8)[1]));
    f.apply(f.stored(Prompt(prompt.begin(), prompt.begin() + 4), 2, 1));
    EXPECT_EQ(f.here(), sorted(sequences(prompt, 8)));
    EXPECT_EQ(f.feed.page_tokens(), 2U);
    EXPECT_EQ(f.feed.stats().pages, 8U);
}

TEST(KvFeed, LargePagesAreCut) {
    Feed f({.block_tokens = 2});
    const auto prompt = counting(8);
    f.apply(f.stored(prompt, 4));
    EXPECT_EQ(f.here(), sorted(sequences(prompt, 2)));
    f.apply(Feed::removed({own_hash(prompt, 8)}));
    EXPECT_EQ(f.here(), sorted(sequences(Prompt(prompt.begin(), prompt.begin() + 4), 2)));
}

TEST(KvFeed, PagesThatFitNoBlockAreNotIndexed) {
    Feed f({.block_tokens = 8});
    f.apply(f.stored(counting(9), 3));
    EXPECT_THAT(f.here(), IsEmpty());
    EXPECT_EQ(f.feed.stats().not_indexed, 3U);
}

TEST(KvFeed, AnOrphanWaitsForItsParent) {
    Feed f({.block_tokens = 4});
    const auto prompt = counting(16);
    f.apply(f.stored(prompt, 4, 2));
    EXPECT_THAT(f.here(), IsEmpty());
    EXPECT_EQ(f.feed.stats().orphans, 2U);
    const auto out = f.apply(f.stored(Prompt(prompt.begin(), prompt.begin() + 8), 4));
    EXPECT_EQ(f.here(), sorted(sequences(prompt, 4)));
    EXPECT_EQ(f.feed.stats().orphans, 0U);
    // Parents first.
    EXPECT_FALSE(std::get<protocol::KvStored>(out[0].what).parent);
}

TEST(KvFeed, AnOrphanThatIsGoneBeforeIsNotBroughtBack) {
    Feed f({.block_tokens = 4});
    const auto prompt = counting(12);
    f.apply(f.stored(prompt, 4, 1));
    f.apply(Feed::removed({own_hash(prompt, 12)}));
    f.apply(f.stored(Prompt(prompt.begin(), prompt.begin() + 4), 4));
    EXPECT_EQ(f.here(), sorted(sequences(Prompt(prompt.begin(), prompt.begin() + 8), 4)));
}

TEST(KvFeed, ChildrenOfWhatWasDroppedAreStillKnown) {
    Feed f({.block_tokens = 4});
    const auto prompt = counting(12);
    f.apply(f.stored(Prompt(prompt.begin(), prompt.begin() + 8), 4));
    f.apply(Feed::removed({own_hash(prompt, 8), own_hash(prompt, 4)}));
    EXPECT_THAT(f.here(), IsEmpty());
    f.apply(f.stored(prompt, 4, 2));
    EXPECT_THAT(f.here(), ElementsAre(sequences(prompt, 4)[2]));
}

TEST(KvFeed, MemoriesAreApart) {
    Feed f({.block_tokens = 4});
    const auto prompt = counting(4);
    f.apply(f.stored(prompt, 4));
    auto host = f.stored(prompt, 4);
    host.medium = "CPU";
    f.apply(host);
    EXPECT_EQ(f.held.held().at(sequences(prompt, 4)[0]).size(), 2U);
    f.apply(Feed::removed({own_hash(prompt, 4)}));
    EXPECT_EQ(f.held.held().at(sequences(prompt, 4)[0]), std::set{KvTier::kHost});
    auto tape = host;
    tape.medium = "TAPE";
    EXPECT_THAT(f.apply(tape), IsEmpty());
    auto elsewhere = f.stored(counting(4, 100), 4);
    elsewhere.shared = true;
    EXPECT_THAT(f.apply(elsewhere), IsEmpty());
    EXPECT_EQ(f.feed.stats().not_indexed, 2U);
}

TEST(KvFeed, CopiesAreCountedOnlyWhereTheEngineDoes) {
    const auto prompt = counting(4);
    for (const bool counts : {false, true}) {
        Feed f({.block_tokens = 4, .counts_copies = counts});
        f.apply(f.stored(prompt, 4));
        EXPECT_THAT(f.apply(f.stored(prompt, 4)), IsEmpty());
        f.apply(Feed::removed({own_hash(prompt, 4)}));
        EXPECT_EQ(f.here().empty(), !counts);
        f.apply(Feed::removed({own_hash(prompt, 4)}));
        EXPECT_THAT(f.here(), IsEmpty());
        EXPECT_EQ(f.feed.stats().unknown_removed, counts ? 0U : 1U);
    }
}

TEST(KvFeed, SaltsAndAdaptersHaveHashesOfTheirOwn) {
    Feed f({.block_tokens = 4});
    const auto prompt = counting(8);
    auto salted = f.stored(prompt, 4, 0, "tenant");
    salted.extra.push_back({.block = 0, .text = "tenant", .offset = {}});
    f.apply(salted);
    EXPECT_EQ(f.here(), sorted(sequences(prompt, 4, tokens::hash_seed({}, "tenant"))));
    auto adapted = f.stored(prompt, 4, 0, "adapter");
    adapted.lora = "a1";
    adapted.extra.push_back({.block = 0, .text = "a1", .offset = {}});
    adapted.extra.push_back({.block = 1, .text = "a1", .offset = {}});
    f.apply(adapted);
    for (const auto s : sequences(prompt, 4, tokens::hash_seed("a1"))) {
        EXPECT_TRUE(f.held.held().contains(s));
    }
    // In SGLang's own field.
    auto own = f.stored(prompt, 4, 0, "own");
    own.salt = "x";
    f.apply(own);
    for (const auto s : sequences(prompt, 4, tokens::hash_seed({}, "x"))) {
        EXPECT_TRUE(f.held.held().contains(s));
    }
}

TEST(KvFeed, AHiddenAdapterIsNotIndexed) {
    Feed f({.block_tokens = 4, .lora_hidden = true});
    auto adapted = f.stored(counting(8), 4);
    adapted.lora = "a1";
    f.apply(adapted);
    EXPECT_THAT(f.here(), IsEmpty());
    EXPECT_EQ(f.feed.stats().not_indexed, 2U);
}

TEST(KvFeed, ChainsOfRequestsWithHiddenSaltsAreNotIndexed) {
    Feed f({.block_tokens = 8});
    const auto prompt = counting(32);
    f.feed.hide(prompt);
    f.apply(f.stored(prompt, 4));
    EXPECT_THAT(f.here(), IsEmpty());
    const auto other = counting(32, 500);
    f.apply(f.stored(other, 4));
    EXPECT_EQ(f.here(), sorted(sequences(other, 8)));
}

TEST(KvFeed, RowsOfPicturesAreNamedByThePicture) {
    constexpr TokenId kPad = 390;
    Feed f({.block_tokens = 8, .media_placeholders = {kPad}});
    const std::string hex = "e2652763619baec06cbf60ec72c95b05f17a3213528d920c6bacea24e1b3fe82";
    std::vector<std::uint8_t> digest;
    for (std::size_t i = 0; i < hex.size(); i += 2) {
        digest.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    // Six rows from the fifth token on: four in the first page of eight, two in the next.
    Prompt told = counting(16);
    Prompt expected = told;
    for (std::uint32_t row = 0; row < 6; ++row) {
        told[4 + row] = kPad;
        expected[4 + row] = tokens::media_token(digest, row);
    }
    auto e = f.stored(told, 8);
    e.extra.push_back({.block = 0, .text = hex, .offset = 4});
    e.extra.push_back({.block = 1, .text = hex, .offset = -4});
    f.apply(e);
    EXPECT_EQ(f.here(), sorted(sequences(expected, 8)));
    // A picture whose name is not said, or can't be read.
    for (const char* name : {"", "not hex"}) {
        Feed g({.block_tokens = 8, .media_placeholders = {kPad}});
        auto nameless = g.stored(told, 8);
        nameless.has_extra_keys = *name != 0;
        if (*name != 0) nameless.extra.push_back({.block = 0, .text = name, .offset = 4});
        g.apply(nameless);
        EXPECT_THAT(g.here(), IsEmpty());
    }
}

TEST(KvFeed, OfSeveralDenseGroupsOneCountsAndSparseOnesAreApart) {
    Feed f({.block_tokens = 4});
    const auto prompt = counting(4);
    auto e = f.stored(prompt, 4);
    e.spec_kind = "full_attention";
    EXPECT_EQ(f.apply(e).size(), 1U);
    e.group = 1;
    EXPECT_THAT(f.apply(e), IsEmpty());
    e.group = 2;
    e.spec_kind = "sliding_window";
    std::vector<KvEvent> out;
    f.feed.apply(e, out);
    ASSERT_EQ(out.size(), 1U);
    EXPECT_EQ(std::get<protocol::KvStored>(out[0].what).group, protocol::KvGroup::kSparse);
    auto gone = Feed::removed({own_hash(prompt, 4)});
    gone.group = 1;
    EXPECT_THAT(f.apply(gone), IsEmpty());
    e.group = 900;
    EXPECT_THAT(f.apply(e), IsEmpty());
}

TEST(KvFeed, AnotherPageSizeIsANewEngine) {
    Feed f({.block_tokens = 8});
    const auto prompt = counting(16);
    f.apply(f.stored(prompt, 4));
    const auto out = f.apply(f.stored(prompt, 2));
    EXPECT_TRUE(std::holds_alternative<protocol::KvCleared>(out.front().what));
    EXPECT_EQ(f.here(), sorted(sequences(prompt, 8)));
    EXPECT_EQ(f.feed.stats().resized, 1U);
    EXPECT_EQ(f.feed.page_tokens(), 2U);
}

TEST(KvFeed, NothingIsItsOwnAncestor) {
    Feed f({.block_tokens = 4});
    EngineKvEvent e = f.stored(counting(4), 4);
    e.hashes = {7};
    e.parent = 7;
    EXPECT_THAT(f.apply(e), IsEmpty());
    e.parent = 8;
    e.hashes = {9};
    EXPECT_THAT(f.apply(e), IsEmpty());
    e.parent = 9;
    e.hashes = {8};
    EXPECT_THAT(f.apply(e), IsEmpty());
    e.parent.reset();
    e.hashes = {8};
    EXPECT_THAT(f.apply(e).size(), 1U);
    EXPECT_EQ(f.here().size(), 2U);
}

TEST(KvFeed, MemoryIsBoundedAndWhatIsHeldStays) {
    constexpr std::uint32_t kMost = 100;
    Feed f({.block_tokens = 4, .most_pages = kMost});
    for (TokenId i = 0; i < 1000; ++i) {
        const auto prompt = counting(40, 1 + i * 64);
        f.apply(f.stored(prompt, 4));
        std::vector<std::uint64_t> leaf_first;
        for (std::size_t p = 10; p > 0; --p) leaf_first.push_back(own_hash(prompt, p * 4));
        if (i % 100 != 0) f.apply(Feed::removed(leaf_first));
    }
    // Ten that stayed; after them there is no memory for more.
    EXPECT_GT(f.feed.stats().dropped, 0U);
    EXPECT_EQ(f.feed.stats().pages, f.here().size());
    EXPECT_LE(f.here().size(), kMost);
    EXPECT_GE(f.here().size(), 90U);
}

/// An engine with pages and tiers, and what it holds by our own reckoning.
RC_GTEST_PROP(KvFeed, AnyHistoryAddsUpToWhatTheEngineHolds, ()) {
    const auto sizes =
        *rc::gen::element(std::pair(4, 4), std::pair(2, 8), std::pair(8, 2), std::pair(1, 4));
    const auto page = static_cast<std::size_t>(sizes.first);
    const auto block = static_cast<std::size_t>(sizes.second);
    Feed f({.block_tokens = static_cast<std::uint32_t>(block)});
    std::map<std::uint64_t, std::pair<Prompt, std::uint64_t>>
        pages;  // tokens up to its end, parent
    std::map<std::uint64_t, std::set<std::string>> holds;
    const int steps = *rc::gen::inRange(1, 40);
    for (int s = 0; s < steps; ++s) {
        const std::string medium = *rc::gen::element<std::string>("GPU", "CPU");
        if (*rc::gen::inRange(0, 3) > 0 || holds.empty()) {
            // Few tokens, so that chains meet and part.
            const auto n = *rc::gen::inRange<std::size_t>(1, 7);
            Prompt prompt;
            for (std::size_t i = 0; i < n * page; ++i) {
                prompt.push_back(*rc::gen::inRange<TokenId>(1, page > 1 ? 2 : 3) +
                                 (i % page == 0 ? *rc::gen::inRange<TokenId>(0, 2) : 0));
            }
            const auto first = *rc::gen::inRange<std::size_t>(0, n);
            auto e = f.stored(prompt, page, first);
            e.medium = medium;
            f.apply(e);
            for (std::size_t i = 0; i < n; ++i) {
                const auto hash = own_hash(prompt, (i + 1) * page);
                pages[hash] = {Prompt(prompt.begin(),
                                      prompt.begin() + static_cast<std::ptrdiff_t>((i + 1) * page)),
                               0};
                if (i >= first) holds[hash].insert(medium);
            }
        } else {
            const auto at = std::next(
                holds.begin(),
                *rc::gen::inRange<std::ptrdiff_t>(0, static_cast<std::ptrdiff_t>(holds.size())));
            auto e = Feed::removed({at->first});
            e.medium = medium;
            f.apply(e);
            at->second.erase(medium);
            if (at->second.empty()) holds.erase(at);
        }
    }
    // Name every page's ancestors, so that nothing is an orphan any more: in a memory of its own.
    std::vector<Prompt> known;
    for (const auto& [hash, of] : pages) known.push_back(of.first);
    for (const auto& prompt : known) {
        auto e = f.stored(prompt, page);
        e.medium = "DISK";
        f.apply(e);
        for (std::size_t i = 0; i < prompt.size() / page; ++i)
            holds[own_hash(prompt, (i + 1) * page)].insert("DISK");
    }
    std::map<std::uint64_t, std::set<KvTier>> expected;
    const std::map<std::string, KvTier> tiers{
        {"GPU", KvTier::kDevice}, {"CPU", KvTier::kHost}, {"DISK", KvTier::kDisk}};
    for (const auto& prompt : known) {
        const auto ours = sequences(prompt, block);
        for (std::size_t b = 0; b < ours.size(); ++b) {
            for (const auto& [name, tier] : tiers) {
                bool all = true;
                for (std::size_t at = b * block / page * page; at < (b + 1) * block; at += page) {
                    const auto held = holds.find(own_hash(prompt, at + page));
                    all = all && held != holds.end() && held->second.contains(name);
                }
                if (all) expected[ours[b]].insert(tier);
            }
        }
    }
    RC_ASSERT(f.held.held() == expected);
    RC_ASSERT(f.feed.stats().orphans == 0U);
    RC_ASSERT(f.feed.stats().pages == holds.size());
}

TEST(KvFeed, RecordedVllmHoldsWhatItsRequestsLeft) {
    const auto messages = recorded_messages("vllm032_kv_events_map_int_replay0.bin");
    if (messages.empty()) GTEST_SKIP() << "STATOR_DATA has no recordings of engines";
    codec::JsonDocument document;
    const auto steps = document.parse(recorded_file("vllm032_kv_events_map_int_steps.json"));
    ASSERT_TRUE(steps);
    Prompt first;
    Prompt salted;
    steps->each_element([&](std::size_t, codec::JsonView step) {
        Prompt prompt;
        step.find("prompt").each_element([&](std::size_t, codec::JsonView t) {
            prompt.push_back(static_cast<TokenId>(t.as_uint().value()));
            return true;
        });
        if (step.find("step").as_string() == "1_three_full_blocks") first = prompt;
        if (step.find("step").as_string() == "5_cache_salt") salted = prompt;
        return true;
    });
    Feed f({.block_tokens = 32});
    EngineKvBatch batch;
    bool salt_seen = false;
    for (const auto& message : messages) {
        if (message.frames.back().empty()) continue;
        ASSERT_TRUE(read_engine_batch(message.frames.back(), batch));
        for (const auto& event : batch.events()) {
            f.apply(event);
            salt_seen = salt_seen || f.held.held().contains(sequences(
                                         salted, 32, tokens::hash_seed({}, "tenant-7"))[1]);
            EXPECT_LE(f.here().size(), 48U) << "the engine's own number of blocks";
        }
    }
    EXPECT_TRUE(salt_seen);
    // After the reset: the first prompt's three blocks.
    EXPECT_EQ(f.here(), sorted(sequences(first, 32)));
    EXPECT_EQ(f.feed.stats().orphans, 0U);
    EXPECT_EQ(f.feed.stats().unknown, 0U);
    EXPECT_EQ(f.feed.stats().unknown_removed, 0U);
}

}  // namespace
}  // namespace stator::engine
