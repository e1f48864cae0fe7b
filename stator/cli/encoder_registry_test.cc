#include "stator/cli/encoder_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>

#include "stator/cli/worker_door.h"
#include "stator/net/http_client.h"

namespace stator::cli {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class EncoderRegistryTest : public testing::Test {
  protected:
    EncoderRegistryTest() {
        loops_.start();
        auto door = WorkerDoor::open(
            "127.0.0.1:0", false, [] { return protocol::WorkerInfo{}; }, metrics_, loops_, {},
            registry_);
        EXPECT_TRUE(door) << door.error().message;
        door_ = std::move(*door);
    }
    ~EncoderRegistryTest() override {
        door_.reset();
        loops_.stop();
    }
    net::HttpClientResponse call(const std::string& method, const std::string& path,
                                 const std::string& body = {}) {
        net::HttpClientRequest request;
        request.method = method;
        request.body = body;
        request.url = fmt::format("http://127.0.0.1:{}{}", door_->port(), path);
        auto response = net::http_request(request);
        EXPECT_TRUE(response) << response.error().message;
        return std::move(*response);
    }
    template <typename F>
    static bool eventually(const F& f) {
        for (int i = 0; i < 4000 && !f(); ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        return f();
    }

    std::atomic<bool> well_{true};
    std::mutex mutex_;
    std::set<std::string> told_;
    std::shared_ptr<EncoderRegistry> registry_ = std::make_shared<EncoderRegistry>(
        std::chrono::milliseconds(2), [this](const std::string&) { return well_.load(); },
        [this](const std::string& url, bool there) {
            const std::scoped_lock lock(mutex_);
            there ? (void)told_.insert(url) : (void)told_.erase(url);
        });
    std::set<std::string> told() {
        const std::scoped_lock lock(mutex_);
        return told_;
    }
    metrics::Registry metrics_;
    runtime::LoopPool loops_{1, "door"};
    std::unique_ptr<WorkerDoor> door_;
};

TEST_F(EncoderRegistryTest, ItsRoutesAreSglangs) {
    EXPECT_EQ(call("GET", "/list_encoder_urls").body, R"({"encoder_urls":[]})");
    const auto said = call("POST", "/register_encoder_url", R"({"url":"http://10.0.0.1:30000/"})");
    EXPECT_EQ(said.status, 200);
    EXPECT_EQ(said.body, "OK");
    EXPECT_EQ(call("POST", "/register_encoder_url", R"({"url":"http://10.0.0.1:30000"})").status,
              200);
    EXPECT_EQ(call("POST", "/register_encoder_url", R"({"url":"http://10.0.0.2:30000"})").status,
              200);
    EXPECT_EQ(call("GET", "/list_encoder_urls").body,
              R"({"encoder_urls":["http://10.0.0.1:30000","http://10.0.0.2:30000"]})");
    EXPECT_EQ(
        call("DELETE", "/unregister_encoder_url", R"({"url":"http://10.0.0.1:30000"})").status,
        200);
    EXPECT_THAT(registry_->urls(), ElementsAre("http://10.0.0.2:30000"));
    EXPECT_EQ(call("GET", "/live").status, 200);
}

TEST_F(EncoderRegistryTest, WhatIsNoEncoderIsRefused) {
    for (const char* bad : {"", "{}", "[]", R"({"url":""})", R"({"url":7})", R"({"url":"ftp://x"})",
                            R"({"url":"10.0.0.1:30000"})"}) {
        EXPECT_EQ(call("POST", "/register_encoder_url", bad).status, 400) << bad;
    }
    EXPECT_THAT(registry_->urls(), IsEmpty());
    for (std::size_t i = 0; i < EncoderRegistry::kMaxEncoders; ++i) {
        EXPECT_TRUE(registry_->add(fmt::format("http://h{}:1", i)));
    }
    EXPECT_EQ(call("POST", "/register_encoder_url", R"({"url":"http://more:1"})").status, 503);
    EXPECT_FALSE(registry_->add("http://" + std::string(EncoderRegistry::kMaxUrlBytes, 'a')));
}

TEST_F(EncoderRegistryTest, WhoDoesNotAnswerIsLeftOutUntilItDoes) {
    ASSERT_TRUE(registry_->add("http://10.0.0.1:1"));
    EXPECT_TRUE(eventually([&] { return told().size() == 1; }));
    well_ = false;
    EXPECT_TRUE(eventually([&] { return registry_->urls().empty() && told().empty(); }));
    well_ = true;
    EXPECT_TRUE(registry_->add("http://10.0.0.1:1"));
    EXPECT_TRUE(eventually([&] { return registry_->urls().size() == 1 && told().size() == 1; }));
    registry_->remove("http://10.0.0.1:1");
    EXPECT_TRUE(eventually([&] { return told().empty(); }));
}

}  // namespace
}  // namespace stator::cli
