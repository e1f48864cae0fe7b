#include "stator/engine/kv_source/drained_kv_source.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

namespace stator::engine {
namespace {

using namespace std::chrono_literals;

/// An engine that keeps its events until somebody asks.
class FakeEngine {
  public:
    void store(int token) {
        const std::scoped_lock lock(mutex_);
        add(fmt::format(
            R"({{"type":"stored","parent_hash":null,"blocks":[{{"block_hash":{},"tokens":)"
            R"([{{"token_id":{}}},{{"token_id":1}}],"cache_level":0}}]}})",
            1000 + token, token));
    }
    void restart() {
        const std::scoped_lock lock(mutex_);
        next_ = 0;
        kept_.clear();
        add(R"({"type":"created"})");
    }
    Result<std::string> drain() {
        const std::scoped_lock lock(mutex_);
        ++asked;
        if (gone) return error(ErrorCode::kUnavailable, "it is gone");
        std::string out = "[";
        for (const std::string& e : kept_) out += (out.size() > 1 ? "," : "") + e;
        kept_.clear();
        return out + "]";
    }
    std::atomic<bool> gone = false;
    std::atomic<int> asked = 0;

  private:
    void add(const std::string& data) {
        kept_.push_back(
            fmt::format(R"({{"event_id":{},"data":{},"window_size":64}})", next_++, data));
    }
    std::mutex mutex_;
    std::uint64_t next_ = 0;
    std::vector<std::string> kept_;
};

class DrainedKvSourceTest : public testing::Test {
  protected:
    void start() {
        DrainedKvOptions options;
        options.feed.block_tokens = 2;
        options.drain = [this] { return engine_.drain(); };
        options.often = 1ms;
        options.seldom = 5ms;
        source_ = start_drained_kv_source(
            std::move(options),
            [this](std::uint32_t rank, const std::vector<protocol::KvEvent>& events) {
                EXPECT_EQ(rank, 0U);
                const std::scoped_lock lock(mutex_);
                for (const auto& e : events) {
                    EXPECT_EQ(e.seq.value, ++last_);
                    if (const auto* s = std::get_if<protocol::KvStored>(&e.what)) {
                        blocks_ += s->blocks.size();
                    } else {
                        blocks_ = 0;
                    }
                }
            });
    }
    [[nodiscard]] bool holds(std::size_t blocks) {
        for (int i = 0; i < 20'000; ++i) {
            {
                const std::scoped_lock lock(mutex_);
                if (blocks_ == blocks) return true;
            }
            std::this_thread::sleep_for(1ms);
        }
        return false;
    }

    FakeEngine engine_;
    std::mutex mutex_;
    std::uint64_t last_ = 0;
    std::size_t blocks_ = 0;
    std::unique_ptr<EngineKvSource> source_;
};

TEST_F(DrainedKvSourceTest, FollowsAnEngineThroughItsLives) {
    engine_.restart();
    engine_.store(7);
    start();
    EXPECT_TRUE(holds(1));
    engine_.store(8);
    engine_.store(9);
    EXPECT_TRUE(holds(3));
    EXPECT_TRUE(source_->states()[0].connected);
    engine_.gone = true;
    while (source_->states()[0].connected) std::this_thread::sleep_for(1ms);
    engine_.restart();
    engine_.store(5);
    engine_.gone = false;
    EXPECT_TRUE(holds(1));
    source_->was_reset();
    EXPECT_TRUE(holds(0));
    source_.reset();
    const int asked = engine_.asked;
    std::this_thread::sleep_for(10ms);
    EXPECT_EQ(engine_.asked, asked);
}

}  // namespace
}  // namespace stator::engine
