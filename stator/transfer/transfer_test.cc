#include "stator/transfer/transfer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

#include "stator/net/tls_fixture.h"
#include "stator/transfer/transfer_fixture.h"

namespace stator::transfer {
namespace {

/// The contract, held by every way between two processes, and within one.
class Transfer : public testing::TestWithParam<std::string> {
  protected:
    void SetUp() override {
        if (GetParam() == "nixl" && std::getenv("STATOR_NIXL") == nullptr) {
            GTEST_SKIP() << "STATOR_NIXL names no libnixl_capi.so";
        }
#if __has_feature(thread_sanitizer)
        if (GetParam() == "nixl") GTEST_SKIP() << "ThreadSanitizer can't follow NIXL's threads";
#endif
        way_.name = local() ? "shm" : GetParam();
        if (GetParam() == "tcp+tls") {
            folder_.emplace();
            authority_.emplace(*folder_, "authority");
            const auto files = authority_->issue("peer", {.name = {}, .address = "127.0.0.1"});
            way_.tls_files = files.certificate + "," + files.key + "," + authority_->file();
        }
    }
    [[nodiscard]] bool local() const { return GetParam() == "local"; }

    /// Starts the planes; `way_` may be changed before.
    void start() {
        auto plane = start_transfer(transfer_options(way_), registry_);
        ASSERT_TRUE(plane) << plane.error().message;
        plane_ = std::move(*plane);
        ASSERT_EQ(plane_->methods().size(), 1U)
            << (plane_->why_off().empty() ? "" : plane_->why_off().begin()->second);
        if (!local()) peer_.emplace(way_);
    }
    Result<std::shared_ptr<const protocol::Handoff>> offered(std::uint64_t bytes,
                                                             std::uint32_t parts,
                                                             std::uint64_t seed) {
        return local() ? offer(*plane_, bytes, parts, seed) : peer_->offer(bytes, parts, seed);
    }
    PeerProcess::Held held() {
        if (!local()) return peer_->held();
        return {.unclaimed = plane_->usage().unclaimed_bytes,
                .granted = static_cast<std::uint64_t>(metric(registry_, "stator_transfer_granted")),
                .memory = 0};
    }
    /// Nothing is left of any handoff at the producer's.
    [[nodiscard]] bool all_ended() {
        return wait_until([this] {
            const auto now = held();
            return now.unclaimed == 0 && now.granted == 0;
        });
    }

    std::optional<net::TemporaryFolder> folder_;
    std::optional<net::Authority> authority_;
    WayOptions way_;
    metrics::Registry registry_;
    std::unique_ptr<TransferPlane> plane_;
    std::optional<PeerProcess> peer_;
};

TEST_P(Transfer, BringsAllBytes) {
    start();
    for (const std::uint64_t bytes : {1UL, 4097UL, 3'000'001UL, 40'000'000UL}) {
        auto what = offered(bytes, bytes > 10 ? 7 : 1, bytes);
        ASSERT_TRUE(what) << what.error().message;
        auto arrived = claim_now(*plane_, *what);
        ASSERT_TRUE(arrived) << arrived.error().message;
        EXPECT_TRUE(right(**arrived, bytes));
        EXPECT_EQ((*arrived)->what->id, (*what)->id);
        EXPECT_EQ(plane_->usage().incoming_bytes, 0U);
    }
    EXPECT_TRUE(all_ended());
}

TEST_P(Transfer, BringsThePartsThatAreWanted) {
    start();
    for (const auto& parts : std::vector<std::vector<std::uint32_t>>{
             {0}, {9}, {0, 1, 2, 5, 9}, {1, 3, 5, 7, 9}, {2, 3, 4}}) {
        auto what = offered(9'999'999, 10, 3);
        ASSERT_TRUE(what) << what.error().message;
        auto arrived = claim_now(*plane_, *what, {.parts = parts, .deadline = {}});
        ASSERT_TRUE(arrived) << arrived.error().message;
        EXPECT_TRUE(right(**arrived, 3, parts));
    }
    auto what = offered(100, 10, 3);
    ASSERT_TRUE(what);
    auto wrong = claim_now(*plane_, *what, {.parts = {10}, .deadline = {}});
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().code, ErrorCode::kInvalidArgument);
}

TEST_P(Transfer, GivesAHandoffOnce) {
    start();
    auto what = offered(100'000, 3, 4);
    ASSERT_TRUE(what);
    auto first = claim_now(*plane_, *what);
    ASSERT_TRUE(first) << first.error().message;
    auto second = claim_now(*plane_, *what);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::kNotFound);
    EXPECT_TRUE(right(**first, 4));  // undisturbed
    first->reset();
    EXPECT_TRUE(all_ended());
}

TEST_P(Transfer, DoesNotGiveWhatWasReleased) {
    start();
    auto what = offered(100'000, 3, 5);
    ASSERT_TRUE(what);
    plane_->release(*what);
    EXPECT_TRUE(all_ended());
    auto late = claim_now(*plane_, *what);
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, ErrorCode::kNotFound);
}

TEST_P(Transfer, ForgetsWhatNobodyClaimsInTime) {
    way_.lease_ms = 100;
    start();
    auto what = offered(100'000, 3, 6);
    ASSERT_TRUE(what);
    EXPECT_TRUE(all_ended());
    auto late = claim_now(*plane_, *what);
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, ErrorCode::kNotFound);
}

TEST_P(Transfer, KnowsNoWrongId) {
    start();
    auto what = offered(100'000, 3, 7);
    ASSERT_TRUE(what);
    auto other = std::make_shared<protocol::Handoff>(**what);
    other->id[3] ^= 1;
    auto wrong = claim_now(*plane_, other);
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().code, ErrorCode::kNotFound);
    auto arrived = claim_now(*plane_, *what);
    ASSERT_TRUE(arrived);
    EXPECT_TRUE(right(**arrived, 7));
}

TEST_P(Transfer, RefusesWhatIsOverItsBudget) {
    way_.budget_bytes = 1 << 20;
    start();
    auto first = offered(1 << 19, 1, 1);
    ASSERT_TRUE(first);
    auto second = offered((1 << 19) + 1, 1, 1);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::kExhausted);
    auto arrived = claim_now(*plane_, *first);
    ASSERT_TRUE(arrived);
    EXPECT_TRUE(offered((1 << 19) + 1, 1, 1));  // what is claimed counts no longer
}

TEST_P(Transfer, EndsEveryClaimThatIsCancelledAtSomeMoment) {
    start();
    std::mt19937 random(1);  // NOLINT: the same in every run
    for (int i = 0; i < 60; ++i) {
        auto what = offered(1'500'000, 4, 8);
        ASSERT_TRUE(what) << what.error().message;
        const auto promise = std::make_shared<std::promise<Arrived>>();
        const ClaimId id = plane_->claim(
            *what, {}, [promise](Arrived result) { promise->set_value(std::move(result)); });
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
        plane_->cancel(id);
        auto future = promise->get_future();
        ASSERT_EQ(future.wait_for(kPatience), std::future_status::ready);
        auto arrived = future.get();
        if (arrived) {
            EXPECT_TRUE(right(**arrived, 8));
        } else {
            EXPECT_EQ(arrived.error().code, ErrorCode::kCancelled);
        }
    }
    EXPECT_TRUE(all_ended());
    EXPECT_EQ(plane_->usage().incoming_bytes, 0U);
}

TEST_P(Transfer, BringsAThousandSmallOnesAtOnce) {
    start();
    std::vector<std::shared_ptr<const protocol::Handoff>> all;
    for (int i = 0; i < 1000; ++i) {
        auto what = offered(1000 + static_cast<std::uint64_t>(i), 2, static_cast<std::uint64_t>(i));
        ASSERT_TRUE(what) << what.error().message;
        all.push_back(std::move(*what));
    }
    std::promise<void> done;
    std::atomic<int> left = 1000;
    std::atomic<int> good = 0;
    for (std::uint64_t i = 0; i < all.size(); ++i) {
        plane_->claim(all[i], {}, [&, i](Arrived result) {
            if (result && right(**result, i)) ++good;
            if (--left == 0) done.set_value();
        });
    }
    ASSERT_EQ(done.get_future().wait_for(kPatience), std::future_status::ready);
    EXPECT_EQ(good, 1000);
    EXPECT_TRUE(all_ended());
}

TEST_P(Transfer, BringsTwoHundredMegabytes) {
    start();
    auto what = offered(200'000'000, 400, 9);
    ASSERT_TRUE(what) << what.error().message;
    auto arrived = claim_now(*plane_, *what);
    ASSERT_TRUE(arrived) << arrived.error().message;
    EXPECT_TRUE(right(**arrived, 9));
    if (!local()) EXPECT_GT(plane_->bytes_per_second(plane_->methods().front()), 0);
    arrived->reset();
    EXPECT_TRUE(all_ended());
}

TEST_P(Transfer, SaysThatTheProducerIsGone) {
    if (local()) return;
    start();
    std::vector<std::shared_ptr<const protocol::Handoff>> all;
    for (int i = 0; i < 4; ++i) {
        auto what = offered(40'000'000, 4, 10);
        ASSERT_TRUE(what) << what.error().message;
        all.push_back(std::move(*what));
    }
    auto kept = claim_now(*plane_, all.back());
    ASSERT_TRUE(kept);
    all.pop_back();
    std::vector<std::future<Arrived>> futures;
    for (const auto& what : all) {
        const auto promise = std::make_shared<std::promise<Arrived>>();
        futures.push_back(promise->get_future());
        plane_->claim(what, {},
                      [promise](Arrived result) { promise->set_value(std::move(result)); });
    }
    peer_->kill();
    for (auto& future : futures) {
        ASSERT_EQ(future.wait_for(kPatience), std::future_status::ready);
        auto arrived = future.get();
        if (arrived) {
            EXPECT_TRUE(right(**arrived, 10));
        } else {
            EXPECT_EQ(arrived.error().code, ErrorCode::kUnavailable) << arrived.error().message;
        }
    }
    EXPECT_TRUE(right(**kept, 10));  // what has arrived stays
    auto late = claim_now(*plane_, all.front());
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
    EXPECT_EQ(plane_->usage().incoming_bytes, 0U);
}

TEST_P(Transfer, TakesBackWhatADeadClaimerHeld) {
    if (local()) return;
    start();
    for (std::uint64_t i = 0; i < 3; ++i) {
        auto what = offer(*plane_, 10'000'000, 4, i);
        ASSERT_TRUE(what);
        ASSERT_EQ(peer_->claim(**what, i), "ok");
    }
    auto unclaimed = offer(*plane_, 1000, 4, 1);
    ASSERT_TRUE(unclaimed);
    peer_->kill();
    EXPECT_TRUE(wait_until([this] { return metric(registry_, "stator_transfer_granted") == 0; }));
    EXPECT_EQ(plane_->usage().unclaimed, 1U);
}

TEST_P(Transfer, StopsInTheMiddle) {
    start();
    std::vector<std::future<Arrived>> futures;
    for (int i = 0; i < 5; ++i) {
        auto what = offered(10'000'000, 4, 11);
        ASSERT_TRUE(what);
        const auto promise = std::make_shared<std::promise<Arrived>>();
        futures.push_back(promise->get_future());
        plane_->claim(*what, {},
                      [promise](Arrived result) { promise->set_value(std::move(result)); });
    }
    plane_->stop();
    std::vector<std::shared_ptr<const protocol::HandoffBytes>> kept;
    for (auto& future : futures) {
        ASSERT_EQ(future.wait_for(std::chrono::seconds(0)), std::future_status::ready);
        auto arrived = future.get();
        if (arrived) {
            kept.push_back(*arrived);
        } else {
            EXPECT_EQ(arrived.error().code, ErrorCode::kCancelled);
        }
    }
    auto late = plane_->reserve(1);
    EXPECT_FALSE(late);
    plane_.reset();
    for (const auto& bytes : kept) EXPECT_TRUE(right(*bytes, 11));
}

/// A worker that is only sent pictures.
TEST_P(Transfer, TakesWithoutHandingOut) {
    if (local()) return;  // what it does not hand out it can't claim
    start();
    TransferOptions options = transfer_options(way_);
    options.takes_only = true;
    metrics::Registry registry;
    auto taker = start_transfer(options, registry);
    ASSERT_TRUE(taker) << taker.error().message;
    EXPECT_EQ((*taker)->methods(), plane_->methods());
    auto refused = (*taker)->reserve(1);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
    auto what = offered(5'000'000, 3, 12);
    ASSERT_TRUE(what) << what.error().message;
    auto arrived = claim_now(**taker, *what);
    ASSERT_TRUE(arrived) << arrived.error().message;
    EXPECT_TRUE(right(**arrived, 12));
    arrived->reset();
    auto unwanted = offered(1'000, 1, 13);
    ASSERT_TRUE(unwanted) << unwanted.error().message;
    (*taker)->release(*unwanted);
    EXPECT_TRUE(all_ended());
    (*taker)->stop();
}

TEST(TransferTakesOnly, HasNoNixlBesideOtherWays) {
    TransferOptions options = transfer_options({.name = "tcp", .tls_files = {}});
    options.methods = {"shm", "nixl", "tcp"};
    options.takes_only = true;
    metrics::Registry registry;
    auto taker = start_transfer(options, registry);
    ASSERT_TRUE(taker) << taker.error().message;
    EXPECT_EQ((*taker)->methods(), (std::vector<std::string>{"shm", "tcp"}));
    EXPECT_TRUE((*taker)->why_off().empty());
}

INSTANTIATE_TEST_SUITE_P(Ways, Transfer,
                         testing::Values("local", "shm", "tcp", "tcp+secret", "tcp+tls", "nixl"),
                         [](const auto& tested) {
                             std::string name = tested.param;
                             std::ranges::replace(name, '+', '_');
                             return name;
                         });

}  // namespace
}  // namespace stator::transfer
