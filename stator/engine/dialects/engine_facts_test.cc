#include "stator/engine/dialects/engine_facts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "stator/engine/dialects/engine_metrics.h"

namespace stator::engine {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

/// The body of a recorded answer of fixed length.
std::string recorded_body(const std::string& name) {
    const char* folder = std::getenv("STATOR_DATA");
    if (folder == nullptr || *folder == 0) return {};
    std::ifstream in(std::filesystem::path(folder) / "fixtures" / (name + ".response.http"),
                     std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    const std::size_t head = text.find("\r\n\r\n");
    return head == std::string::npos ? text : text.substr(head + 4);
}

TEST(EngineFacts, RecordedVllm) {
    const auto body = recorded_body("vllm032_http/models");
    if (body.empty()) GTEST_SKIP() << "STATOR_DATA has no recordings of engines";
    const auto models = read_model_list(body);
    ASSERT_TRUE(models) << models.error().message;
    EXPECT_EQ(models->kind, EngineKind::kVllm);
    ASSERT_EQ(models->models.size(), 1U);
    EXPECT_EQ(models->models[0].name, "tiny");
    EXPECT_EQ(models->models[0].context_tokens, 1024U);
    EXPECT_EQ(*read_version(recorded_body("vllm032_http/version")), "0.32.0");
    const auto sources = read_event_sources(recorded_body("vllm032_dp2/kv_event_sources"), "gpu1");
    ASSERT_TRUE(sources);
    EXPECT_THAT(
        *sources,
        ElementsAre(KvEventSource{0, "tcp://gpu1:21140", "tcp://gpu1:21240", "kv@dp@tiny"},
                    KvEventSource{1, "tcp://gpu1:21141", "tcp://gpu1:21241", "kv@dp@tiny"}));
    // 0.14 has no such route.
    EXPECT_FALSE(read_event_sources(R"(["Not Found"])", "gpu1"));
    EXPECT_THAT(*read_event_sources(R"({"detail":"Not Found"})", "gpu1"), IsEmpty());
}

TEST(EngineFacts, RecordedVllmMetrics) {
    const auto text = recorded_body("vllm032_http/metrics");
    if (text.empty()) GTEST_SKIP() << "STATOR_DATA has no recordings of engines";
    const auto one = read_engine_metrics(text);
    ASSERT_EQ(one.size(), 1U);
    EXPECT_EQ(one[0].block_tokens, 32U);
    EXPECT_EQ(one[0].kv_blocks, 48U);
    EXPECT_EQ(one[0].prefix_queries, 4685U);
    EXPECT_EQ(one[0].prefix_hits, 1792U);
    EXPECT_EQ(one[0].prompt_tokens, 4685U);
    EXPECT_EQ(one[0].generated_tokens, 294U);
    const auto two = read_engine_metrics(recorded_body("vllm032_dp2/metrics"));
    ASSERT_EQ(two.size(), 2U);
    EXPECT_EQ(two[1].rank, 1U);
    EXPECT_EQ(two[0].prefix_hits, 0U);
    EXPECT_EQ(two[1].prefix_hits, 64U);
    EXPECT_EQ(read_engine_metrics(recorded_body("vllm014_http/metrics")).at(0).block_tokens, 32U);
}

TEST(EngineFacts, MetricsOfBothSpellings) {
    for (const char* prefix : {"sglang:", "sglang_"}) {
        const std::string p = prefix;
        const auto ranks = read_engine_metrics(
            "# HELP x\n" + p + "num_running_reqs{dp_rank=\"1\",model_name=\"m\"} 3.0\n" + p +
            "num_queue_reqs{model_name=\"m\",dp_rank=\"1\"} 4\n" + p +
            "token_usage{dp_rank=\"1\"} 0.25\n" + p + "num_running_reqs{dp_rank=\"x\"} 9\n" + p +
            "num_running_reqs{dp_rank=\"0\"} NaN\nother 7\n" + p);
        ASSERT_EQ(ranks.size(), 1U);
        EXPECT_EQ(ranks[0],
                  (EngineRankMetrics{.rank = 1, .running = 3, .waiting = 4, .kv_usage = 0.25}));
    }
    EXPECT_THAT(
        read_engine_metrics("vllm:num_requests_running{engine=\"0\" 1\nvllm:num_requests_running"),
        IsEmpty());
    EXPECT_EQ(read_engine_metrics("vllm:num_requests_running 2").at(0).running, 2U);
}

TEST(EngineFacts, SglangsServerInfo) {
    const auto now = read_sglang_server_info(
        R"({"version":"0.5.23","model_path":"/m","served_model_name":"m","page_size":32,"dp_size":2,"max_total_num_tokens":1000,"context_length":4096,"disaggregation_mode":"prefill","disaggregation_bootstrap_port":8998,"kv_events":{"publisher":"zmq","endpoint_host":"*","endpoint_port_base":5557,"topic":"t","dp_size":2,"replay_endpoint_port_base":5657,"format":"dynamo"}})",
        "fe80::1");
    ASSERT_TRUE(now) << now.error().message;
    EXPECT_EQ(now->role, "prefill");
    EXPECT_EQ(now->bootstrap_port, 8998U);
    EXPECT_EQ(now->page_tokens, 32U);
    EXPECT_FALSE(now->lora_hidden);
    EXPECT_THAT(now->sources,
                ElementsAre(KvEventSource{0, "tcp://[fe80::1]:5557", "tcp://[fe80::1]:5657", "t"},
                            KvEventSource{1, "tcp://[fe80::1]:5558", "tcp://[fe80::1]:5658", "t"}));
    const auto before = read_sglang_server_info(
        R"({"model_path":"/m","page_size":1,"dp_size":1,"disaggregation_mode":"null","kv_events_config":"{\"publisher\":\"zmq\",\"endpoint\":\"tcp://*:6000\"}"})",
        "h");
    ASSERT_TRUE(before);
    EXPECT_EQ(before->model, "/m");
    EXPECT_EQ(before->role, "");
    EXPECT_TRUE(before->lora_hidden);
    EXPECT_THAT(before->sources, ElementsAre(KvEventSource{0, "tcp://h:6000", "", ""}));
    EXPECT_THAT(read_sglang_server_info(R"({"page_size":1,"kv_events_config":null})", "h")->sources,
                IsEmpty());
    EXPECT_FALSE(read_sglang_server_info(R"({"version":"1"})", "h"));
}

TEST(EngineFacts, EndpointsOfRanks) {
    EXPECT_EQ(*endpoint_of_rank("tcp://*:5557", "gpu1", 3), "tcp://gpu1:5560");
    EXPECT_EQ(*endpoint_of_rank("tcp://10.0.0.1:5557", "gpu1", 0), "tcp://10.0.0.1:5557");
    for (const char* bad : {"", "ipc:///tmp/x", "tcp://h", "tcp://h:x", "tcp://h:70000"}) {
        EXPECT_FALSE(endpoint_of_rank(bad, "h", 0)) << bad;
    }
    EXPECT_FALSE(endpoint_of_rank("tcp://h:65535", "h", 1));
}

TEST(EngineFacts, Versions) {
    EXPECT_TRUE(version_at_least("0.32.0", 0, 32));
    EXPECT_TRUE(version_at_least("v1.0rc3", 0, 99));
    EXPECT_FALSE(version_at_least("0.9.1", 0, 14));
    EXPECT_TRUE(version_at_least("0.14.1.dev3+cpu", 0, 14));
    EXPECT_FALSE(version_at_least("nightly", 0, 0));
}

RC_GTEST_PROP(EngineFacts, AnyTextIsReadOrRefused, (const std::string& text)) {
    (void)read_model_list(text);
    (void)read_version(text);
    (void)read_event_sources(text, "h");
    (void)read_sglang_server_info(text, "h");
    (void)read_engine_metrics("vllm:" + text);
}

}  // namespace
}  // namespace stator::engine
