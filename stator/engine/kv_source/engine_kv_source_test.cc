#include "stator/engine/kv_source/engine_kv_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "stator/codec/msgpack.h"
#include "stator/events/zmq_socket.h"

namespace stator::engine {
namespace {

using namespace std::chrono_literals;
using codec::MsgpackWriter;
using events::ZmqContext;
using events::ZmqFrame;
using events::ZmqKind;
using events::ZmqSocket;
using State = EngineFollower::State;

std::string number_frame(std::uint64_t v) {
    std::string out(8, '\0');
    for (int i = 7; i >= 0; --i, v >>= 8U) out[static_cast<std::size_t>(i)] = static_cast<char>(v);
    return out;
}

/// vLLM's publisher with its replay, on one thread: stores block after block.
class FakePublisher {
  public:
    FakePublisher(bool topic_in_replay, std::string events = "tcp://127.0.0.1:0",
                  std::string replay = "tcp://127.0.0.1:0", double time = 1000)
        : topic_in_replay_(topic_in_replay), time_(time) {
        pub_.emplace(ZmqSocket::open(context_, ZmqKind::kXpub, 0).value());
        router_.emplace(ZmqSocket::open(context_, ZmqKind::kRouter, 0).value());
        // The port of one that has just gone is free a moment later.
        bind(*pub_, events);
        bind(*router_, replay);
        source = {.rank = 0,
                  .endpoint = pub_->bound_address(),
                  .replay = router_->bound_address(),
                  .topic = "kv@"};
        thread_ = std::thread([this] { serve(); });
    }
    ~FakePublisher() {
        stop_ = true;
        thread_.join();
    }
    void store(std::uint64_t block, bool send = true) {
        std::string text;
        MsgpackWriter w(text);
        w.array(3).real(++time_).array(1).map(4).string("type").string("BlockStored");
        w.string("block_hashes").array(1).number(block).string("token_ids").array(2).number(block);
        w.number(block + 1).string("block_size").number(2).number(0);
        const std::scoped_lock lock(mutex_);
        messages_.push_back(std::move(text));
        to_send_ += send ? 1 : 0;
        if (!send) ++skipped_;
    }
    KvEventSource source;

  private:
    static void bind(ZmqSocket& socket, const std::string& address) {
        for (int i = 0; i < 500 && !socket.bind(address); ++i) std::this_thread::sleep_for(10ms);
    }
    void serve() {
        ZmqFrame frame;
        std::size_t sent = 0;
        while (!stop_) {
            {
                const std::scoped_lock lock(mutex_);
                // What is skipped comes before what is sent, as if it was lost on the way.
                if (skipped_ > 0) sent += std::exchange(skipped_, 0);
                for (; to_send_ > 0; --to_send_, ++sent) {
                    (void)pub_->send("kv@w0@m", true);
                    (void)pub_->send(number_frame(sent), true);
                    (void)pub_->send(messages_.at(sent));
                }
            }
            while (frame.receive(*pub_)) {
            }
            if (frame.receive(*router_)) replay(frame);
            std::this_thread::sleep_for(1ms);
        }
    }
    void replay(ZmqFrame& frame) {
        const std::string client(frame.bytes());
        std::vector<std::string> rest;
        while (frame.more() && frame.receive(*router_)) rest.emplace_back(frame.bytes());
        ASSERT_EQ(rest.size(), 2U);
        ASSERT_EQ(rest[0], "");
        std::uint64_t from = 0;
        for (const char c : rest[1]) from = from << 8 | static_cast<unsigned char>(c);
        const auto answer = [&](std::uint64_t number, const std::string& payload) {
            (void)router_->send(client, true);
            (void)router_->send("", true);
            if (topic_in_replay_) (void)router_->send("kv@w0@m", true);
            (void)router_->send(number_frame(number), true);
            (void)router_->send(payload);
        };
        const std::scoped_lock lock(mutex_);
        for (std::uint64_t n = from; n < messages_.size(); ++n) answer(n, messages_[n]);
        answer(UINT64_MAX, "");
    }

    const bool topic_in_replay_;
    double time_;
    ZmqContext context_{8};
    std::optional<ZmqSocket> pub_;
    std::optional<ZmqSocket> router_;
    std::mutex mutex_;
    std::vector<std::string> messages_;
    std::size_t to_send_ = 0;
    std::size_t skipped_ = 0;
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

class KvSourceTest : public testing::TestWithParam<bool> {
  protected:
    void start(const KvEventSource& source) {
        KvSourceOptions options;
        options.ranks = {source};
        options.feed.block_tokens = 2;
        source_ = start_engine_kv_source(options, [this](std::uint32_t, const auto& events) {
                      const std::scoped_lock lock(mutex_);
                      for (const auto& e : events) {
                          EXPECT_EQ(e.seq.value, ++last_);
                          if (std::holds_alternative<protocol::KvCleared>(e.what)) blocks_.clear();
                          if (const auto* s = std::get_if<protocol::KvStored>(&e.what)) {
                              for (const auto& b : s->blocks) blocks_.insert(b.sequence.value);
                          }
                      }
                  }).value();
    }
    /// Blocks 1 to n, and nothing else.
    bool has_up_to(std::uint64_t first, std::uint64_t n) {
        std::set<std::uint64_t> wanted;
        for (std::uint64_t b = first; b <= n; ++b) {
            const std::array<tokens::TokenId, 2> t{static_cast<tokens::TokenId>(b),
                                                   static_cast<tokens::TokenId>(b + 1)};
            wanted.insert(tokens::sequence_hash(tokens::block_hash(t, tokens::hash_seed())).value);
        }
        for (int i = 0; i < 3000; ++i) {
            {
                const std::scoped_lock lock(mutex_);
                if (blocks_ == wanted) return true;
            }
            std::this_thread::sleep_for(5ms);
        }
        return false;
    }
    bool connected() {
        for (int i = 0; i < 3000; ++i) {
            if (source_->states().at(0).connected) return true;
            std::this_thread::sleep_for(5ms);
        }
        return false;
    }

    std::mutex mutex_;
    std::set<std::uint64_t> blocks_;
    std::uint64_t last_ = 0;
    std::unique_ptr<EngineKvSource> source_;
};

TEST_P(KvSourceTest, HistoryThenWhatComesThenWhatWasLost) {
    FakePublisher engine(GetParam());
    for (std::uint64_t b = 1; b <= 5; ++b) engine.store(b);
    start(engine.source);
    EXPECT_TRUE(has_up_to(1, 5));
    ASSERT_TRUE(connected());
    for (std::uint64_t b = 6; b <= 9; ++b) engine.store(b);
    EXPECT_TRUE(has_up_to(1, 9));
    engine.store(10, false);
    engine.store(11);
    EXPECT_TRUE(has_up_to(1, 11));
    const auto state = source_->states().at(0);
    EXPECT_EQ(state.state, State::kLive);
    EXPECT_FALSE(state.incomplete);
    EXPECT_GE(state.messages.gaps, 1U);
    EXPECT_EQ(state.blocks.pages, 11U);
}

TEST_P(KvSourceTest, ARestartedEngineBeginsWithNothing) {
    auto engine = std::make_unique<FakePublisher>(GetParam());
    start(engine->source);
    ASSERT_TRUE(connected());
    for (std::uint64_t b = 1; b <= 5; ++b) engine->store(b);
    EXPECT_TRUE(has_up_to(1, 5));
    const auto at = engine->source;
    engine.reset();
    engine = std::make_unique<FakePublisher>(GetParam(), at.endpoint, at.replay, 2000);
    engine->store(100);
    EXPECT_TRUE(has_up_to(100, 100));
    engine->store(101);
    EXPECT_TRUE(has_up_to(100, 101));
    EXPECT_FALSE(source_->states().at(0).incomplete);
}

TEST_P(KvSourceTest, AnEngineThatComesLaterIsWaitedFor) {
    KvEventSource at;
    {
        const FakePublisher engine(GetParam());
        at = engine.source;
    }
    start(at);
    std::this_thread::sleep_for(50ms);
    FakePublisher engine(GetParam(), at.endpoint, at.replay);
    engine.store(1);
    EXPECT_TRUE(has_up_to(1, 1));
    EXPECT_FALSE(source_->states().at(0).incomplete);
}

INSTANTIATE_TEST_SUITE_P(Replies, KvSourceTest, testing::Bool(), [](const auto& info) {
    return info.param ? "WithTopic" : "WithoutTopic";
});

TEST_F(KvSourceTest, WithoutAReplayItIsIncompleteWhenItComesLate) {
    FakePublisher engine(true);
    engine.store(1, false);
    auto source = engine.source;
    source.replay.clear();
    start(source);
    ASSERT_TRUE(connected());
    engine.store(2);
    EXPECT_TRUE(has_up_to(2, 2));
    EXPECT_TRUE(source_->states().at(0).incomplete);
    source_->was_reset();
    EXPECT_TRUE(has_up_to(1, 0));
}

TEST_F(KvSourceTest, SaysWhatIsWrongWithAnAddress) {
    const auto bad = start_engine_kv_source(
        {.ranks = {{.rank = 0, .endpoint = "nowhere", .replay = {}, .topic = {}}},
         .feed = {},
         .follow = {}},
        {});
    ASSERT_FALSE(bad);
    EXPECT_EQ(bad.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(bad.error().message.find("nowhere"), std::string::npos);
    EXPECT_FALSE(start_engine_kv_source({}, {}));
}

}  // namespace
}  // namespace stator::engine
