#include "stator/engine/mock/live/kv_announcer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "stator/events/kv_batch.h"

namespace stator::engine::mock {
namespace {

using protocol::KvEvent;

constexpr std::uint32_t kBlockTokens = 4;

/// A core under random requests, cancellations and clears; what it says of its cache goes through
/// the announcer and the wire's format to a follower's mirror.
class Driven {
  public:
    Driven(CoreOptions options, std::uint64_t seed)
        : core_(std::move(options)), announcer_(true), random_(seed) {}

    void go_on() {
        if (random_() % 3 == 0) submit();
        if (random_() % 20 == 0 && !live_.empty()) core_.cancel(random_live());
        if (random_() % 60 == 0) core_.clear_cache();
        now_ += std::chrono::milliseconds(1 + random_() % 5);
        const auto plan = core_.begin_step(now_);
        hear();
        if (plan) {
            core_.end_step(outputs_);
        } else {
            core_.drain_ended(outputs_);
        }
        for (const CoreOutput& o : outputs_) {
            if (o.has_token) live_.at(o.id.value).push(o.token);
        }
        hear();
        for (const CoreOutput& o : outputs_) {
            if (o.finish) live_.erase(o.id.value);
        }
        outputs_.clear();
    }

    void expect_mirror_is_the_cache() const {
        for (const auto tier : {KvTier::kDevice, KvTier::kHost, KvTier::kDisk}) {
            std::vector<SequenceHash> heard;
            for (const auto& block : mirror_.sorted()) {
                if ((block.tiers & events::KvMirror::bit(tier)) != 0) {
                    heard.push_back(block.sequence);
                }
            }
            ASSERT_EQ(heard, core_.cached_blocks(tier)) << to_string(tier);
        }
    }
    [[nodiscard]] std::uint64_t preemptions() const { return core_.metrics().preemptions; }
    [[nodiscard]] std::size_t blocks() const { return mirror_.size(); }
    [[nodiscard]] std::uint64_t events() const { return last_; }

  private:
    void submit() {
        const std::uint64_t id = ++ids_;
        tokens::TokenSequence sequence(kBlockTokens);
        const auto first = static_cast<TokenId>(random_() % 5);
        for (std::uint64_t n = 3 + random_() % 30; n > 0; --n) {
            sequence.push(first + static_cast<TokenId>(random_() % 8 == 0 ? random_() % 50 : 0));
        }
        CoreRequest r;
        r.id = RequestId(id);
        const auto hashes = sequence.sequence_hashes();
        r.blocks.assign(hashes.begin(), hashes.end());
        const auto all = sequence.tokens();
        r.tail.assign(all.begin() + static_cast<std::ptrdiff_t>(hashes.size() * kBlockTokens),
                      all.end());
        r.hash_seed = sequence.seed();
        r.max_tokens = 1 + static_cast<std::uint32_t>(random_() % 20);
        if (core_.submit(std::move(r))) live_.emplace(id, std::move(sequence));
    }

    RequestId random_live() {
        auto it = live_.begin();
        std::advance(it, random_() % live_.size());
        return RequestId(it->first);
    }

    void hear() {
        std::vector<KvChange> changes;
        core_.take_changes(changes);
        std::vector<KvEvent> events;
        announcer_.announce(
            changes,
            [this](RequestId id) {
                const auto found = live_.find(id.value);
                return found == live_.end() ? nullptr : &found->second;
            },
            events);
        std::string bytes;
        events::append_kv_batch(bytes, events);
        events::KvScratch scratch;
        events::KvBatchReader reader(bytes, scratch);
        for (;;) {
            const auto event = reader.next();
            ASSERT_TRUE(event) << event.error().message;
            if (*event == nullptr) break;
            EXPECT_EQ((*event)->seq.value, ++last_);
            mirror_.apply(**event);
        }
    }

    Core core_;
    KvAnnouncer announcer_;
    events::KvMirror mirror_;
    std::minstd_rand random_;
    std::map<std::uint64_t, tokens::TokenSequence> live_;
    std::vector<CoreOutput> outputs_;
    Nanos now_{0};
    std::uint64_t ids_ = 0;
    std::uint64_t last_ = 0;
};

TEST(KvAnnouncer, AFollowersMirrorIsTheCacheAfterEachStep) {
    std::uint64_t preemptions = 0;
    for (std::uint64_t seed = 1; seed <= 12; ++seed) {
        CoreOptions o;
        o.block_tokens = kBlockTokens;
        o.blocks = 24;
        o.step_tokens = 24;
        o.max_running = 6;
        o.context_tokens = 96;
        o.vocab_size = 9;
        o.step_time = StepTime(ConstantTime{1.0});
        if (seed % 2 == 0) o.host = {.blocks = 10, .read_gb_per_s = 1, .write_gb_per_s = 1};
        if (seed % 3 == 0) o.disk = {.blocks = 16, .read_gb_per_s = 0.1, .write_gb_per_s = 0.1};
        Driven driven(o, seed);
        std::size_t most = 0;
        for (int step = 0; step < 600; ++step) {
            driven.go_on();
            ASSERT_NO_FATAL_FAILURE(driven.expect_mirror_is_the_cache()) << seed << ", " << step;
            most = std::max(most, driven.blocks());
        }
        preemptions += driven.preemptions();
        EXPECT_GT(driven.events(), 200U);
        EXPECT_GT(most, seed % 6 == 0 ? 30U : 10U);
    }
    EXPECT_GT(preemptions, 10U);
}

TEST(KvAnnouncer, RunsOfBlocksAreOneEvent) {
    KvAnnouncer announcer(false);
    tokens::TokenSequence sequence(2);
    const std::vector<TokenId> prompt{1, 2, 3, 4, 5, 6};
    sequence.append(prompt);
    std::vector<KvChange> changes;
    for (std::uint32_t i = 0; i < 3; ++i) {
        KvChange c;
        c.block = sequence.sequence_hashes()[i];
        if (i > 0) c.parent = sequence.sequence_hashes()[i - 1];
        c.owner = RequestId(9);
        c.index = i;
        changes.push_back(c);
    }
    for (std::uint64_t i = 0; i < 2; ++i) {
        KvChange c;
        c.kind = KvChange::Kind::kRemoved;
        c.block = SequenceHash(100 + i);
        changes.push_back(c);
    }
    std::vector<KvEvent> events;
    announcer.announce(
        changes, [&](RequestId id) { return id.value == 9 ? &sequence : nullptr; }, events);
    ASSERT_EQ(events.size(), 2U);
    const auto& stored = std::get<protocol::KvStored>(events[0].what);
    EXPECT_EQ(stored.parent, std::nullopt);
    ASSERT_EQ(stored.blocks.size(), 3U);
    EXPECT_EQ(stored.blocks[2].tokens, (std::vector<TokenId>{5, 6}));
    EXPECT_EQ(stored.blocks[2].block, sequence.block_hashes()[2]);
    EXPECT_EQ(std::get<protocol::KvRemoved>(events[1].what).sequences.size(), 2U);
    EXPECT_EQ(events[1].seq.value, 2U);
}

}  // namespace
}  // namespace stator::engine::mock
