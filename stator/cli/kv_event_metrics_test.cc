#include "stator/cli/kv_event_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::cli {
namespace {

TEST(KvEventMetrics, CountBlocksNotEvents) {
    metrics::Registry registry;
    const engine::KvEventSink sink = count_kv_events(registry);
    protocol::KvStored stored;
    stored.blocks.resize(3);
    const protocol::KvRemoved removed{{tokens::SequenceHash(1), tokens::SequenceHash(2)},
                                      protocol::KvTier::kHost};
    sink({{protocol::EventSeq(1), stored}, {protocol::EventSeq(2), removed}});
    sink({{protocol::EventSeq(3), protocol::KvCleared{}}});
    const std::string text = registry.render();
    EXPECT_THAT(text, testing::HasSubstr("stator_kv_blocks_stored_total{tier=\"device\"} 3\n"));
    EXPECT_THAT(text, testing::HasSubstr("stator_kv_blocks_removed_total{tier=\"host\"} 2\n"));
    EXPECT_THAT(text, testing::HasSubstr("stator_kv_cleared_total 1\n"));
}

}  // namespace
}  // namespace stator::cli
