#include "stator/control/planner/demand_scrape.h"

#include <gtest/gtest.h>

namespace stator::control {
namespace {

TEST(DemandMetrics, OfOurFrontends) {
    const auto all = read_demand_metrics(R"(# HELP stator_sequences_offered_total Sequences.
# TYPE stator_sequences_offered_total counter
stator_sequences_offered_total{model="org/m"} 12
stator_sequences_refused_total{model="org/m"} 2
stator_offered_prompt_tokens_total{model="org/m"} 1200
stator_offered_media_items_total{model="org/m"} 3
stator_prompt_tokens_total{model="org/m"} 1000
stator_cached_prompt_tokens_total{model="org/m"} 400
stator_output_tokens_total{model="org/m"} 640
stator_sequences_ended_total{finish="stop",model="org/m"} 7
stator_sequences_ended_total{finish="length",model="org/m"} 2
stator_sequences_ended_total{finish="cancelled",model="org/m"} 1
stator_time_to_first_token_seconds_bucket{model="org/m",le="0.1"} 4
stator_time_to_first_token_seconds_bucket{model="org/m",le="1"} 9
stator_time_to_first_token_seconds_bucket{model="org/m",le="+Inf"} 10
stator_time_to_first_token_seconds_sum{model="org/m"} 3.5
stator_sequences_offered_total{model="other"} 1
)");
    ASSERT_EQ(all.size(), 2U);
    const protocol::DemandTotals& m = all[0];
    EXPECT_EQ(m.model, "org/m");
    EXPECT_EQ(m.offered, 12U);
    EXPECT_EQ(m.refused, 2U);
    EXPECT_EQ(m.prompt_tokens, 1200U);
    EXPECT_EQ(m.media_items, 3U);
    EXPECT_EQ(m.started_prompt_tokens, 1000U);
    EXPECT_EQ(m.cached_tokens, 400U);
    EXPECT_EQ(m.finished, 9U);
    EXPECT_EQ(m.output_tokens, 640U);
    EXPECT_EQ(m.ttft.bounds, (std::vector<double>{0.1, 1}));
    EXPECT_EQ(m.ttft.counts, (std::vector<std::uint64_t>{4, 5, 1}));
    EXPECT_DOUBLE_EQ(m.ttft.sum_s, 3.5);
    EXPECT_EQ(all[1].offered, 1U);
}

TEST(DemandMetrics, OfVllmAllRanksTogether) {
    const auto all = read_demand_metrics(R"(
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 5.0
vllm:request_success_total{engine="1",finished_reason="length",model_name="m"} 3.0
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 1e+3
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 512
vllm:generation_tokens_total{engine="0",model_name="m"} 77
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.05",model_name="m"} 6
vllm:inter_token_latency_seconds_bucket{engine="1",le="0.05",model_name="m"} 1
vllm:inter_token_latency_seconds_bucket{engine="0",le="+Inf",model_name="m"} 8
)");
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0].model, "m");
    EXPECT_EQ(all[0].offered, 11U);
    EXPECT_EQ(all[0].finished, 8U);
    EXPECT_EQ(all[0].prompt_tokens, 1000U);
    EXPECT_EQ(all[0].cached_tokens, 512U);
    EXPECT_EQ(all[0].output_tokens, 77U);
    EXPECT_EQ(all[0].itl.counts, (std::vector<std::uint64_t>{7, 1}));
}

TEST(DemandMetrics, OfSglangAndDynamo) {
    auto all = read_demand_metrics(
        "sglang_num_requests_total{model_name=\"m\"} 4\nsglang:prompt_tokens_total{model_name="
        "\"m\"} 40\n");
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0].offered, 4U);
    EXPECT_EQ(all[0].prompt_tokens, 40U);
    all = read_demand_metrics(
        "dynamo_frontend_requests_total{model=\"m\",status=\"success\"} 6\n"
        "dynamo_frontend_requests_total{model=\"m\",status=\"error\"} 2\n"
        "dynamo_frontend_input_sequence_tokens_sum{model=\"m\"} 600\n");
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0].offered, 8U);
    EXPECT_EQ(all[0].finished, 6U);
    EXPECT_EQ(all[0].prompt_tokens, 600U);
}

TEST(DemandMetrics, WhatIsNotUnderstoodIsPassedOver) {
    for (const char* text :
         {"", "\n\n", "{", "stator_sequences_offered_total", "stator_sequences_offered_total{} x",
          "stator_sequences_offered_total{model=\"m\"} -3",
          "stator_sequences_offered_total{model=\"m\"} NaN",
          "stator_sequences_offered_total{model=\"m\"} +Inf", "stator_sequences_offered_total{ 3",
          "stator_time_to_first_token_seconds_bucket{le=\"x\"} 3", "go_threads 7"}) {
        EXPECT_TRUE(read_demand_metrics(text).empty()) << text;
    }
    // Buckets that go down, and no +Inf: no underflow, one count more than bounds.
    const auto odd = read_demand_metrics(
        "vllm:time_to_first_token_seconds_bucket{le=\"1\"} 5\n"
        "vllm:time_to_first_token_seconds_bucket{le=\"2\"} 3\n");
    ASSERT_EQ(odd.size(), 1U);
    EXPECT_EQ(odd[0].ttft.counts, (std::vector<std::uint64_t>{5, 0, 0}));
    std::string many;
    for (int i = 0; i < 3000; ++i) {
        many += "vllm:prompt_tokens_total{model_name=\"m" + std::to_string(i) + "\"} 1\n";
    }
    EXPECT_EQ(read_demand_metrics(many).size(), 1024U);
}

}  // namespace
}  // namespace stator::control
