#include "stator/engine/kv_feed/trtllm_events.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stator/engine/kv_feed/engine_event.h"
#include "stator/engine/kv_feed/engine_follower.h"
#include "stator/tokens/hash.h"

namespace stator::engine {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::string block(std::uint64_t hash, std::vector<int> tokens, int level = 0, int extra = 0) {
    std::string ids;
    for (const int t : tokens) {
        ids += fmt::format(R"({}{{"type":"unique_token","token_id":{},"token_extra_id":{}}})",
                           ids.empty() ? "" : ",", t, extra);
    }
    return fmt::format(
        R"({{"type":"stored_block","block_hash":{},"tokens":[{}],"cache_level":{},"priority":35}})",
        hash, ids, level);
}
std::string event(std::uint64_t id, std::string_view data, int window = 4096) {
    return fmt::format(R"({{"event_id":{},"data":{},"window_size":{}}})", id, data, window);
}
std::string stored(std::string_view parent, std::string_view blocks) {
    return fmt::format(R"({{"type":"stored","parent_hash":{},"blocks":[{}]}})", parent, blocks);
}
constexpr std::string_view kCreated = R"({"type":"created","num_blocks_per_cache_level":[100,0]})";

class TrtllmEventsTest : public testing::Test {
  protected:
    TrtllmEventsTest() : follower_(feed(), {}, TimePoint{}) {
        (void)follower_.start(TimePoint{}, out_);
    }
    static KvFeedOptions feed() {
        KvFeedOptions o;
        o.block_tokens = 4;
        return o;
    }
    /// What the router would know of it.
    void take(const std::string& body) {
        auto read = reader_.read(body, ++time_);
        ASSERT_TRUE(read) << read.error().message;
        for (const TrtllmMessage& m : *read) {
            EXPECT_EQ(m.rank, 0U);
            (void)follower_.on_message(m.number, m.payload, TimePoint{}, out_);
        }
    }
    [[nodiscard]] std::vector<std::uint64_t> held() const {
        std::vector<std::uint64_t> out;
        for (const auto& e : out_) {
            if (const auto* s = std::get_if<protocol::KvStored>(&e.what)) {
                for (const auto& b : s->blocks) out.push_back(b.sequence.value);
            } else if (const auto* r = std::get_if<protocol::KvRemoved>(&e.what)) {
                for (const auto& b : r->sequences) std::erase(out, b.value);
            } else {
                out.clear();
            }
        }
        return out;
    }
    static std::vector<std::uint64_t> chain(const std::vector<tokens::TokenId>& tokens) {
        const tokens::BlockHasher hasher;
        std::vector<tokens::BlockHash> blocks(tokens.size() / 4);
        std::vector<tokens::SequenceHash> sequence(blocks.size());
        hasher.chain(tokens, 4, nullptr, blocks.data(), sequence.data());
        std::vector<std::uint64_t> out;
        for (const auto h : sequence) out.push_back(h.value);
        return out;
    }

    TrtllmEventReader reader_;
    EngineFollower follower_;
    std::vector<protocol::KvEvent> out_;
    double time_ = 1000;
};

TEST_F(TrtllmEventsTest, BlocksGetTheRoutersNames) {
    take(fmt::format(
        "[{},{},{}]", event(0, kCreated),
        event(1, stored("null", block(11, {1, 2, 3, 4}) + "," + block(12, {5, 6, 7, 8}))),
        event(2, stored("12", block(13, {9, 10, 11, 12}, 1)))));
    const auto all = chain({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
    EXPECT_THAT(held(), ElementsAre(all[0], all[1], all[2]));
    EXPECT_FALSE(follower_.incomplete());
    take(fmt::format("[{}]", event(3, R"({"type":"removed","block_hashes":[13]})")));
    EXPECT_THAT(held(), ElementsAre(all[0], all[1]));
}

TEST_F(TrtllmEventsTest, WhatMovesStaysWhatItIs) {
    take(fmt::format("[{},{},{}]", event(0, kCreated),
                     event(1, stored("null", block(11, {1, 2, 3, 4}))),
                     event(2, R"({"type":"updated","block_hash":11,"cache_level":)"
                              R"({"type":"event_diff","new_value":1,"old_value":0}})")));
    EXPECT_THAT(held(), ElementsAre(chain({1, 2, 3, 4})[0]));
    take(fmt::format("[{}]", event(3, R"({"type":"removed","block_hashes":[11]})")));
    EXPECT_THAT(held(), IsEmpty());
}

TEST_F(TrtllmEventsTest, BlocksOfAdaptersAndPicturesAreNotKnownByTheirTokens) {
    take(fmt::format("[{},{},{}]", event(0, kCreated),
                     event(1, stored("null", block(11, {1, 2, 3, 4}, 0, 7))),
                     event(2, stored("11", block(12, {5, 6, 7, 8})))));
    EXPECT_THAT(held(), IsEmpty());
}

TEST_F(TrtllmEventsTest, WhatOthersTookIsMissed) {
    take(fmt::format("[{},{}]", event(0, kCreated),
                     event(1, stored("null", block(11, {1, 2, 3, 4})))));
    take(fmt::format("[{}]", event(5, stored("null", block(21, {9, 9, 9, 9})))));
    // A removal may have been among them.
    EXPECT_THAT(held(), ElementsAre(chain({9, 9, 9, 9})[0]));
    EXPECT_TRUE(follower_.incomplete());
}

TEST_F(TrtllmEventsTest, ASmallerWindowIsAnotherCache) {
    take(fmt::format("[{},{},{},{}]", event(0, kCreated, 4096), event(1, kCreated, 512),
                     event(2, stored("null", block(11, {1, 2, 3, 4})), 4096),
                     event(3, R"({"type":"removed","block_hashes":[11]})", 512)));
    EXPECT_THAT(held(), ElementsAre(chain({1, 2, 3, 4})[0]));
}

TEST_F(TrtllmEventsTest, OddShapesArePassedOver) {
    for (const char* body : {"", "{}", "[", "null", "7"})
        EXPECT_FALSE(reader_.read(body, 1)) << body;
    EXPECT_THAT(*reader_.read("[]", 1), IsEmpty());
    EXPECT_THAT(*reader_.read(R"([1,null,{},{"event_id":-1},{"event_id":"1"},)"
                              R"({"event_id":1,"attention_dp_rank":99999}])",
                              1),
                IsEmpty());
    take(fmt::format("[{},{},{},{},{}]", event(0, "null"), event(1, "[]"),
                     event(2, R"({"type":"stored","blocks":[{}]})"),
                     event(3, R"({"type":"stored","blocks":[{"block_hash":3}]})"),
                     event(4, R"({"type":"removed","block_hashes":["x"]})")));
    EXPECT_THAT(held(), IsEmpty());
}

}  // namespace
}  // namespace stator::engine
