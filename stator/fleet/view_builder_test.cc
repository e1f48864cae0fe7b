#include "stator/fleet/view_builder.h"

#include <gtest/gtest.h>

namespace stator::fleet {
namespace {

using namespace std::chrono_literals;

WorkerView worker(const std::string& path, char weights, MemberState state) {
    protocol::WorkerInfo info;
    info.name = path;
    info.card.name = "tiny";
    info.card.weights_digest = std::string(64, weights);
    WorkerView w;
    w.address = {.kind = net::SocketAddress::Kind::kUnix, .host = {}, .port = 0, .path = path};
    w.state = state;
    w.info = std::make_shared<const protocol::WorkerInfo>(std::move(info));
    return w;
}

TEST(ViewBuilder, EqualCardsMakeAPoolAndOthersAnother) {
    ViewBuilder builder(1min);
    WorkerView dialled;
    const auto view = builder.build(
        {worker("a", 'x', MemberState::kReady), worker("b", 'y', MemberState::kReady),
         worker("c", 'x', MemberState::kSuspect), worker("d", 'x', MemberState::kGone), dialled},
        {}, {});
    ASSERT_EQ(view->pools.size(), 2U);
    EXPECT_EQ(view->pools[0].workers, 2U);
    EXPECT_EQ(view->pools[0].ready.size(), 1U);
    EXPECT_LT(view->pools[0].opened, view->pools[1].opened);
    EXPECT_EQ(view->workers[0].pool, view->pools[0].id);
    EXPECT_EQ(view->workers[2].pool, view->pools[0].id);
    EXPECT_NE(view->workers[1].pool, view->pools[0].id);
    EXPECT_TRUE(view->workers[4].pool.empty());
}

TEST(ViewBuilder, APoolWithoutWorkersIsRememberedForAWhile) {
    ViewBuilder builder(1min);
    TimePoint now;
    const auto first = builder.build({worker("a", 'x', MemberState::kReady)}, {}, now);
    auto view = builder.build({}, {}, now);
    ASSERT_EQ(view->pools.size(), 1U);
    EXPECT_EQ(view->pools[0].workers, 0U);
    EXPECT_EQ(view->pools[0].card->name, "tiny");
    EXPECT_GT(view->version, first->version);
    now = now + 59s;
    EXPECT_FALSE(builder.stale(now));
    // Who comes back in time finds it as it was.
    view = builder.build({worker("a", 'x', MemberState::kReady)}, {}, now);
    EXPECT_EQ(view->pools[0].opened, first->pools[0].opened);
    view = builder.build({}, {}, now);
    now = now + 61s;
    EXPECT_TRUE(builder.stale(now));
    EXPECT_TRUE(builder.build({}, {}, now)->pools.empty());
    view = builder.build({worker("a", 'x', MemberState::kReady)}, {}, now);
    EXPECT_GT(view->pools[0].opened, first->pools[0].opened);
}

}  // namespace
}  // namespace stator::fleet
