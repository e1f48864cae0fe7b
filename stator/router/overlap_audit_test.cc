#include "stator/router/overlap_audit.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <list>
#include <random>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace stator::router {
namespace {

constexpr std::uint32_t kBlock = 16;

/// A rank's cache, what its events made us believe of it, and traffic of prompts that begin alike.
class Scene {
  public:
    explicit Scene(std::uint64_t seed, double lost = 0) : random_(seed), lost_(lost) {}

    void lose(double share) { lost_ = share; }
    /// The rank starts anew, and names blocks in another way.
    void restart(std::uint64_t salt) {
        order_.clear();
        places_.clear();
        believed_.clear();
        late_.clear();
        salt_ = salt;
    }
    /// A snapshot: we believe what is there, under the engine's names.
    void resync() {
        believed_.clear();
        for (const std::uint64_t block : order_) believed_.insert(block ^ salt_);
        late_.clear();
    }

    /// One request, and what would be audited of it.
    AuditSample request() {
        // A session of one of forty groups: a common beginning, then its own turns.
        const std::uint64_t session = 1 + random_() % 150;
        const std::uint64_t turns = ++turns_[session] % 8;
        std::vector<std::uint64_t> blocks;
        for (std::uint64_t i = 0; i < 20; ++i)
            blocks.push_back(1'000'000 + session % 40 * 1000 + i);
        for (std::uint64_t i = 0; i < turns * 6; ++i) blocks.push_back(session * 1'000'000'007 + i);
        AuditSample sample;
        sample.block_tokens = kBlock;
        while (sample.predicted_tokens < blocks.size() &&
               believed_.contains(blocks[sample.predicted_tokens])) {
            ++sample.predicted_tokens;
        }
        sample.predicted_tokens *= kBlock;
        // Events of the request before come only now: predictions are a little behind.
        for (const auto& event : late_) event();
        late_.clear();
        std::uint32_t found = 0;
        while (found < blocks.size() && places_.contains(blocks[found])) ++found;
        sample.cached_tokens = found * kBlock;
        store(blocks, found);
        return sample;
    }

  private:
    static constexpr std::size_t kMost = 4000;

    void tell(std::function<void()> event) {
        if (std::uniform_real_distribution<>()(random_) < lost_) return;
        late_.push_back(std::move(event));
    }

    void store(const std::vector<std::uint64_t>& blocks, std::size_t from) {
        // The beginning of a prefix is the last to go.
        for (std::size_t i = blocks.size(); i-- > 0;) {
            if (i < from) {
                order_.splice(order_.begin(), order_, places_[blocks[i]]);
                continue;
            }
            order_.push_front(blocks[i]);
            places_[blocks[i]] = order_.begin();
            tell([this, name = blocks[i] ^ salt_] { believed_.insert(name); });
        }
        while (order_.size() > kMost) {
            tell([this, name = order_.back() ^ salt_] { believed_.erase(name); });
            places_.erase(order_.back());
            order_.pop_back();
        }
    }

    std::mt19937_64 random_;
    double lost_;
    std::uint64_t salt_ = 0;
    std::list<std::uint64_t> order_;  ///< the most recently used first
    std::unordered_map<std::uint64_t, std::list<std::uint64_t>::iterator> places_;
    std::unordered_set<std::uint64_t> believed_;
    std::deque<std::function<void()>> late_;
    std::unordered_map<std::uint64_t, std::uint64_t> turns_;
};

/// Requests until the verdict changes; `most` if it doesn't.
int until_changed(OverlapAudit& audit, Scene& scene, int most) {
    for (int i = 1; i <= most; ++i) {
        AuditSample sample = scene.request();
        sample.resyncs_done = audit.verdict(0).resyncs_done;
        if (audit.observe(0, sample)) return i;
    }
    return most;
}

void warm_up(OverlapAudit& audit, Scene& scene) {
    for (int i = 0; i < 1000; ++i) (void)audit.observe(0, scene.request());
}

constexpr int kScenes = 100;

TEST(OverlapAudit, AHealthyRankIsLeftAlone) {
    int accused = 0;
    for (int seed = 0; seed < kScenes; ++seed) {
        OverlapAudit audit;
        Scene scene(static_cast<std::uint64_t>(seed));
        if (until_changed(audit, scene, 3000) < 3000) ++accused;
    }
    EXPECT_LE(accused, 2);
}

TEST(OverlapAudit, NoticesFivePercentOfLostEventsWithin200Requests) {
    for (int seed = 0; seed < kScenes; ++seed) {
        OverlapAudit audit;
        Scene scene(static_cast<std::uint64_t>(seed));
        warm_up(audit, scene);
        ASSERT_EQ(audit.verdict(0).trust, Trust::kTrusted);
        scene.lose(0.05);
        EXPECT_LT(until_changed(audit, scene, 201), 201) << seed;
        EXPECT_EQ(audit.verdict(0).trust, Trust::kResync);
        EXPECT_NE(audit.verdict(0).finding, AuditFinding::kUnrelated);
    }
}

TEST(OverlapAudit, NoticesAChangedHashSeedWithin200Requests) {
    for (int seed = 0; seed < kScenes; ++seed) {
        OverlapAudit audit;
        Scene scene(static_cast<std::uint64_t>(seed));
        warm_up(audit, scene);
        scene.restart(0x5555);
        EXPECT_LT(until_changed(audit, scene, 201), 201) << seed;
        EXPECT_EQ(audit.verdict(0).trust, Trust::kResync);
        EXPECT_EQ(audit.verdict(0).finding, AuditFinding::kUnrelated);
    }
}

TEST(OverlapAudit, NoticesAWrongTemplateFromTheBeginning) {
    // What we hash is never what the engine computes: it finds prefixes, we know of none.
    for (int seed = 0; seed < kScenes; ++seed) {
        OverlapAudit audit;
        Scene scene(static_cast<std::uint64_t>(seed));
        scene.restart(0x1234);
        EXPECT_LT(until_changed(audit, scene, 201), 201) << seed;
        audit.on_resynced(0);
        scene.resync();
        // A snapshot under the same foreign names does not help.
        EXPECT_LT(until_changed(audit, scene, 201), 201) << seed;
        EXPECT_EQ(audit.verdict(0).trust, Trust::kDistrusted);
        EXPECT_EQ(audit.verdict(0).finding, AuditFinding::kUnrelated);
    }
}

TEST(OverlapAudit, ASnapshotMendsWhatWasLostOnce) {
    for (int seed = 0; seed < kScenes; ++seed) {
        OverlapAudit audit;
        Scene scene(static_cast<std::uint64_t>(seed));
        warm_up(audit, scene);
        scene.lose(0.3);
        (void)until_changed(audit, scene, 500);
        ASSERT_EQ(audit.verdict(0).trust, Trust::kResync);
        scene.lose(0);
        scene.resync();
        audit.on_resynced(0);
        EXPECT_EQ(until_changed(audit, scene, 1000), 1000) << seed;
        EXPECT_EQ(audit.verdict(0).trust, Trust::kTrusted);
    }
}

TEST(OverlapAudit, DistrustEndsWhenPredictionsHoldAgain) {
    for (int seed = 0; seed < kScenes; ++seed) {
        OverlapAudit audit;
        Scene scene(static_cast<std::uint64_t>(seed));
        warm_up(audit, scene);
        scene.lose(0.3);
        (void)until_changed(audit, scene, 500);
        scene.resync();
        audit.on_resynced(0);
        (void)until_changed(audit, scene, 500);
        ASSERT_EQ(audit.verdict(0).trust, Trust::kDistrusted);
        scene.lose(0);
        scene.resync();
        audit.on_resynced(0);
        EXPECT_LT(until_changed(audit, scene, 400), 400) << seed;
        EXPECT_EQ(audit.verdict(0).trust, Trust::kTrusted);
    }
}

TEST(OverlapAudit, EventsThatContradictThemselvesAreNoticedWithoutAnyReuse) {
    OverlapAudit audit;
    EXPECT_FALSE(audit.observe_orphans(0, 0));
    EXPECT_FALSE(audit.observe_orphans(0, 2));
    EXPECT_TRUE(audit.observe_orphans(0, 1));
    EXPECT_EQ(audit.verdict(0).trust, Trust::kResync);
    EXPECT_EQ(audit.verdict(0).finding, AuditFinding::kOrphans);
    EXPECT_TRUE(audit.verdict(0).wants_snapshot);
    audit.on_resynced(0);
    EXPECT_FALSE(audit.verdict(0).wants_snapshot);
    EXPECT_EQ(audit.verdict(0).resyncs_done, 1U);
    // Now and then one among many predictions that hold is nothing.
    for (int i = 0; i < 10; ++i) {
        EXPECT_FALSE(audit.observe_orphans(1, 1));
        for (int k = 0; k < 50; ++k) EXPECT_FALSE(audit.observe(1, {1600, 1600, kBlock}));
    }
}

TEST(OverlapAudit, WhatWasBookedBeforeASnapshotDoesNotCountAfterIt) {
    OverlapAudit audit;
    for (int i = 0; i < 20; ++i) (void)audit.observe(0, {0, 1600, kBlock});
    ASSERT_EQ(audit.verdict(0).trust, Trust::kResync);
    audit.on_resynced(0);
    for (int i = 0; i < 20; ++i) EXPECT_FALSE(audit.observe(0, {0, 1600, kBlock}));
    EXPECT_EQ(audit.verdict(0).trust, Trust::kTrusted);
}

TEST(OverlapAudit, WhatEnginesDoUsuallyIsNotHeldAgainstThem) {
    OverlapAudit audit;
    for (int i = 0; i < 200; ++i) {
        // The last blocks of a prompt that is cached whole are computed again.
        AuditSample whole{1600, 1600 - 2 * kBlock, kBlock};
        whole.prompt_tokens = 1600;
        EXPECT_FALSE(audit.observe(0, whole));
        // A sibling that was under way has come.
        AuditSample sibling{0, 1600, kBlock};
        sibling.expected_tokens = 1600;
        EXPECT_FALSE(audit.observe(0, sibling));
        // A block says nothing.
        EXPECT_FALSE(audit.observe(0, {0, kBlock, kBlock}));
    }
    EXPECT_EQ(audit.verdict(0).trust, Trust::kTrusted);
    EXPECT_EQ(audit.verdict(0).samples, 400U);
    EXPECT_EQ(audit.verdict(0).mismatch_rate, 0);
}

TEST(OverlapAudit, ARankOfWhichNothingIsBelievedComesBackInSteps) {
    OverlapAudit audit;
    const auto see = [&](std::uint32_t predicted, std::uint32_t cached) {
        AuditSample sample{predicted, cached, kBlock};
        sample.resyncs_done = audit.verdict(0).resyncs_done;
        return audit.observe(0, sample);
    };
    for (int i = 0; i < 20; ++i) (void)see(0, 1600);
    audit.on_resynced(0);
    for (int i = 0; i < 20; ++i) (void)see(0, 1600);
    ASSERT_EQ(audit.verdict(0).trust, Trust::kDistrusted);
    EXPECT_FALSE(audit.verdict(0).believed);
    for (int i = 0; i < 300 && !audit.verdict(0).wants_snapshot; ++i) (void)see(0, 1600);
    EXPECT_TRUE(audit.verdict(0).wants_snapshot);
    audit.on_resynced(0);
    int until_believed = 0;
    while (!audit.verdict(0).believed && until_believed < 100) {
        EXPECT_FALSE(see(1600, 1600));
        ++until_believed;
    }
    EXPECT_LT(until_believed, 10);
    int until_trusted = 0;
    while (until_trusted < 200 && !see(1600, 1600)) ++until_trusted;
    EXPECT_LT(until_trusted, 100);
    EXPECT_EQ(audit.verdict(0).trust, Trust::kTrusted);
}

TEST(OverlapAudit, RanksAreJudgedApartAndForgotten) {
    OverlapAudit audit;
    for (int i = 0; i < 100; ++i) {
        (void)audit.observe(1, {1600, 1600, kBlock});
        (void)audit.observe(3, {0, 1600, kBlock});
        EXPECT_FALSE(audit.observe(2, {0, 0, kBlock}));
    }
    EXPECT_EQ(audit.verdict(1).trust, Trust::kTrusted);
    EXPECT_EQ(audit.verdict(1).samples, 100U);
    EXPECT_EQ(audit.verdict(2).samples, 0U);
    EXPECT_EQ(audit.verdict(3).finding, AuditFinding::kUnrelated);
    audit.reset(3);
    EXPECT_EQ(audit.verdict(3), AuditVerdict{});
    EXPECT_EQ(audit.verdict(99), AuditVerdict{});
}

}  // namespace
}  // namespace stator::router
