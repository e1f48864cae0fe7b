#include "stator/engine/attached/attached_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "stator/engine/probe/engine_client.h"
#include "stator/net/scripted_server.h"

namespace stator::engine {
namespace {

using namespace std::chrono_literals;
using net::ScriptedConnection;
using net::ScriptedServer;
using testing::HasSubstr;
using testing::IsEmpty;

/// A vLLM without events that can be sick, and another one when it is well again.
class AttachedEngineTest : public testing::Test {
  protected:
    AttachedEngineTest()
        : server_([this](ScriptedConnection& c) {
              for (auto r = c.read_request(); !r.empty(); r = c.read_request()) {
                  if (!answer(c, r)) return;
              }
          }) {
        options_.url = net::parse_http_url(server_.url()).value();
        options_.probe.url = server_.url();
        options_.probe.host = "127.0.0.1";
        options_.block_tokens = 16;
        options_.context_tokens = 1024;
        options_.probe_every = options_.look_every = options_.look_idle_every = 20ms;
        options_.on_usable = [this](bool usable) { (usable ? again_ : gone_).fetch_add(1); };
        options_.on_changed = [this](const std::string& why) {
            const std::scoped_lock lock(mutex_);
            changed_.push_back(why);
        };
    }
    ~AttachedEngineTest() override { attached_.reset(); }

    void open() {
        auto client = EngineClient::open(options_.url, "").value();
        auto found =
            probe_engine(options_.probe, [&](std::string_view path) { return client->ask(path); });
        ASSERT_TRUE(found) << found.error().message;
        attached_ = AttachedEngine::open(options_, *found, [](std::uint32_t) {
                        return [](const std::vector<protocol::KvEvent>&) {};
                    }).value();
    }
    template <typename F>
    static bool eventually(const F& f) {
        for (int i = 0; i < 4000; ++i) {
            if (f()) return true;
            std::this_thread::sleep_for(5ms);
        }
        return false;
    }
    std::vector<std::string> changed() {
        const std::scoped_lock lock(mutex_);
        return changed_;
    }

    std::atomic<bool> sick_{false};
    std::atomic<int> context_{1024};
    std::atomic<int> ranks_{1};
    std::atomic<int> gone_{0};
    std::atomic<int> again_{0};
    std::mutex mutex_;
    std::vector<std::string> changed_;
    AttachOptions options_;
    ScriptedServer server_;
    std::unique_ptr<AttachedEngine> attached_;

  private:
    bool answer(ScriptedConnection& c, const std::string& request) {
        if (sick_) return c.answer("", "503 Service Unavailable");
        if (request.starts_with("GET /health ")) return c.answer("");
        if (request.starts_with("GET /v1/models ")) {
            return c.answer(
                fmt::format(R"({{"data":[{{"id":"m","owned_by":"vllm","max_model_len":{}}}]}})",
                            context_.load()));
        }
        if (request.starts_with("GET /metrics ")) {
            std::string text;
            for (int r = 0; r < ranks_; ++r) {
                text += fmt::format("vllm:num_requests_running{{engine=\"{}\"}} 0\n", r);
            }
            return c.answer(text);
        }
        return c.answer("", "404 Not Found");
    }
};

TEST_F(AttachedEngineTest, OneThatWasGoneIsLookedAtBeforeItGetsRequests) {
    ranks_ = 2;
    open();
    ASSERT_EQ(attached_->engines().size(), 2U);
    EXPECT_EQ(attached_->engines()[0]->info().kind, "vllm");
    EXPECT_EQ(attached_->engines()[0]->info().block_tokens, 16U);
    EXPECT_THAT(attached_->concerns(), IsEmpty());
    sick_ = true;
    ASSERT_TRUE(eventually([&] { return gone_ == 1; }));
    ASSERT_EQ(attached_->concerns().size(), 1U);
    EXPECT_THAT(attached_->concerns()[0], HasSubstr("is not well"));
    sick_ = false;
    ASSERT_TRUE(eventually([&] { return again_ == 1; }));
    EXPECT_TRUE(eventually([&] { return attached_->concerns().empty(); }));
    EXPECT_THAT(changed(), IsEmpty());
    EXPECT_EQ(gone_, 1);
}

TEST_F(AttachedEngineTest, OneThatComesBackAsAnotherIsNotUsed) {
    open();
    sick_ = true;
    ASSERT_TRUE(eventually([&] { return gone_ == 1; }));
    context_ = 512;
    sick_ = false;
    ASSERT_TRUE(eventually([&] { return !changed().empty(); }));
    EXPECT_THAT(changed()[0], HasSubstr("512 tokens and not 1024"));
    EXPECT_EQ(again_, 0);
    EXPECT_THAT(attached_->concerns()[0], HasSubstr("512"));
}

TEST_F(AttachedEngineTest, NothingIsToldAfterTheEnd) {
    open();
    attached_->stop();
    sick_ = true;
    EXPECT_TRUE(eventually([&] { return !attached_->engines()[0]->healthy(); }));
    EXPECT_EQ(gone_, 0);
}

}  // namespace
}  // namespace stator::engine
