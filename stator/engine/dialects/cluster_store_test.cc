#include "stator/engine/dialects/cluster_store.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::engine {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::string_view kKey = "/trtllm-disagg/c/workers/GENERATION-h:8001-1-2-3";

class ClusterStoreTest : public testing::Test {
  protected:
    ClusterStore::Answer get(std::string_view target) {
        return store_.handle("GET", target, {}, now_, 1000);
    }
    ClusterStore::Answer set(std::string_view key, std::string_view value,
                             std::string_view more = R"("ttl":10)") {
        const std::string body = fmt::format(R"({{"key":"{}","value":{},{}}})", key, value, more);
        return store_.handle("POST", "/set", body, now_, 1000);
    }
    void later(std::chrono::milliseconds t) { now_ = now_ + t; }

    ClusterStore store_;
    TimePoint now_;
};

TEST_F(ClusterStoreTest, AWorkerIsThereAsLongAsItsHeartBeats) {
    const std::string worker =
        R"("{\"worker_id\":\"w\",\"host\":\"10.0.0.7\",\"port\":8001,\"role\":1}")";
    EXPECT_EQ(set(kKey, worker).status, 200);
    EXPECT_EQ(set(kKey, worker).status, 400) << "it is there";
    EXPECT_EQ(set(kKey, worker, R"("ttl":10,"overwrite_if_exists":true)").status, 200);
    const auto found = store_.workers(now_);
    ASSERT_THAT(found, SizeIs(1));
    EXPECT_EQ(found[0].host, "10.0.0.7");
    EXPECT_EQ(found[0].port, 8001);
    EXPECT_EQ(found[0].role, ClusterStore::Role::kGeneration);
    EXPECT_THAT(get("/cluster_info").body, HasSubstr(R"("generation_servers":1)"));
    EXPECT_THAT(get("/get_prefix?key_prefix=%2Ftrtllm-disagg%2Fc%2F&keys_only=false").body,
                HasSubstr("10.0.0.7"));
    EXPECT_EQ(get("/get_prefix?key_prefix=/other").status, 400);
    later(9s);
    const std::string beat = fmt::format("/expire?key={}&ttl=10", kKey);
    EXPECT_EQ(get(beat).body, R"({"result":true})");
    later(9s);
    EXPECT_THAT(store_.workers(now_), SizeIs(1));
    later(2s);
    EXPECT_THAT(store_.workers(now_), IsEmpty());
    EXPECT_EQ(get(beat).status, 400) << "it is to register again";
}

TEST_F(ClusterStoreTest, WhatIsAWorkerOfNobodyIsLeftOut) {
    for (const std::string_view value :
         {R"("no JSON")", R"("{}")", R"("{\"worker_id\":\"w\",\"host\":\"h\",\"role\":0}")",
          R"("{\"worker_id\":\"w\",\"host\":\"h/x?\",\"port\":1,\"role\":0}")",
          R"("{\"worker_id\":\"w\",\"host\":\"h\",\"port\":70000,\"role\":0}")",
          R"("{\"worker_id\":\"w\",\"host\":\"h\",\"port\":1,\"role\":7}")"}) {
        EXPECT_EQ(set(kKey, value, R"("ttl":10,"overwrite_if_exists":true)").status, 200);
        EXPECT_THAT(store_.workers(now_), IsEmpty()) << value;
    }
}

TEST_F(ClusterStoreTest, ItsWordsAreBounded) {
    EXPECT_EQ(store_.handle("POST", "/set", "what?", now_, 0).status, 400);
    EXPECT_EQ(set(std::string(ClusterStore::kMostKeyBytes + 1, 'k'), "1").status, 400);
    EXPECT_EQ(set("k", '"' + std::string(ClusterStore::kMostValueBytes + 1, 'v') + '"').status,
              400);
    EXPECT_EQ(set("old", "1", R"("expire_time":999)").status, 400);
    for (std::size_t i = 0; i < ClusterStore::kMostKeys; ++i) {
        ASSERT_EQ(set(fmt::format("k{}", i), "1").status, 200);
    }
    EXPECT_EQ(set("one more", "1").status, 400);
    EXPECT_EQ(store_.handle("DELETE", "/delete?key=k1", {}, now_, 0).status, 200);
    EXPECT_EQ(store_.handle("DELETE", "/delete?key=k1", {}, now_, 0).status, 400);
    EXPECT_EQ(set("one%20more", "1").status, 200);
    EXPECT_EQ(get("/get?key=one%2520more").body, R"({"result":"1"})");
    EXPECT_EQ(get("/get?key=%zz").status, 400);
    EXPECT_EQ(get("/elsewhere").status, 404);
    later(11s);
    EXPECT_EQ(get("/get?key=k2").status, 400);
}

}  // namespace
}  // namespace stator::engine
