#include "stator/engine/probe/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace stator::engine {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kVllmModels =
    R"({"data":[{"id":"lora-a","owned_by":"vllm","parent":"tiny","root":"/l","max_model_len":1024},
        {"id":"tiny","owned_by":"vllm","parent":null,"root":"/models/tiny","max_model_len":1024}]})";
constexpr const char* kVllmMetrics =
    "vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 0\n"
    "vllm:cache_config_info{block_size=\"32\",engine=\"0\",num_gpu_blocks=\"48\"} 1\n";
constexpr const char* kSources =
    R"({"0":{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:5557","replay_endpoint":"tcp://*:5657","topic":""}})";

/// An engine's answers by path; what is not there is 404.
struct Script {
    std::map<std::string, EngineAnswer, std::less<>> answers = {
        {"/health", {200, ""}},
        {"/v1/models", {200, kVllmModels}},
        {"/version", {200, R"({"version":"0.32.0"})"}},
        {"/metrics", {200, kVllmMetrics}},
        {"/kv_event_sources", {200, kSources}},
        {"/inference/v1/generate", {405, "{}"}},
    };
    ProbeOptions options{.kind = EngineKind::kVllm,
                         .url = "http://box:8000",
                         .host = "box",
                         .model = "",
                         .ranks = {},
                         .events = "",
                         .replay = ""};

    [[nodiscard]] Result<FoundEngine> probe() const {
        return probe_engine(options, [this](std::string_view path) {
            const auto found = answers.find(path);
            return found == answers.end() ? EngineAnswer{404, "{}"} : found->second;
        });
    }
    [[nodiscard]] std::string refusal(ErrorCode code = ErrorCode::kInvalidArgument) const {
        const auto found = probe();
        if (found) return "found";
        EXPECT_EQ(found.error().code, code) << found.error().message;
        return found.error().message;
    }
    [[nodiscard]] std::string advice() const {
        const auto found = probe();
        if (!found) return found.error().message;
        std::string out;
        for (const std::string& a : found->advice) out += a + "\n";
        return out;
    }
};

TEST(Probe, FindsAllOfANewVllm) {
    const auto found = Script{}.probe();
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(found->version, "0.32.0");
    EXPECT_EQ(found->model.name, "tiny");
    EXPECT_EQ(found->adapters, std::vector<std::string>{"lora-a"});
    EXPECT_TRUE(found->reports_full);
    EXPECT_EQ(found->model.root, "/models/tiny");
    EXPECT_EQ(found->model.context_tokens, 1024U);
    EXPECT_EQ(found->dialect, Dialect::kVllmGenerate);
    EXPECT_EQ(found->page_tokens, 32U);
    EXPECT_EQ(found->kv_tokens, 32U * 48);
    EXPECT_EQ(found->ranks, 1U);
    ASSERT_EQ(found->sources.size(), 1U);
    EXPECT_EQ(found->sources[0].endpoint, "tcp://box:5557");
    EXPECT_EQ(found->sources[0].replay, "tcp://box:5657");
    EXPECT_FALSE(found->counts_copies || found->salt_hidden || found->guided_fields);
    EXPECT_THAT(found->advice, IsEmpty());
}

TEST(Probe, AnOldVllmIsSpokenToOtherwise) {
    Script s;
    s.answers["/version"] = {200, R"({"version":"0.14.1"})"};
    s.answers.erase("/kv_event_sources");
    auto found = s.probe();
    ASSERT_TRUE(found) << found.error().message;
    // Its route is there and does not stream.
    EXPECT_EQ(found->dialect, Dialect::kVllmCompletions);
    EXPECT_TRUE(found->counts_copies && found->salt_hidden);
    EXPECT_FALSE(found->guided_fields);
    EXPECT_THAT(s.advice(), HasSubstr("--engine-events tcp://box:5557"));
    EXPECT_THAT(s.advice(), HasSubstr(R"(--kv-events-config '{"enable_kv_cache_events":true)"));
    s.options.events = "tcp://*:7000";
    s.options.replay = "tcp://*:7100";
    s.options.ranks = 2;
    found = s.probe();
    ASSERT_TRUE(found) << found.error().message;
    ASSERT_EQ(found->sources.size(), 2U);
    EXPECT_EQ(found->sources[1].rank, 1U);
    EXPECT_EQ(found->sources[1].endpoint, "tcp://box:7001");
    EXPECT_EQ(found->sources[1].replay, "tcp://box:7101");
    EXPECT_THAT(found->advice, IsEmpty());
    s.answers["/version"] = {200, R"({"version":"0.11.0"})"};
    EXPECT_TRUE(s.probe()->guided_fields);
}

TEST(Probe, WithoutTheRouteForTokensCompletionsAreAsked) {
    Script s;
    s.answers.erase("/inference/v1/generate");
    EXPECT_EQ(s.probe()->dialect, Dialect::kVllmCompletions);
    s.answers.erase("/version");
    s.answers["/inference/v1/generate"] = {405, ""};
    EXPECT_EQ(s.probe()->dialect, Dialect::kVllmCompletions);
}

TEST(Probe, EventsThatCanNotBeRepeatedAreWorthAWord) {
    Script s;
    s.answers["/kv_event_sources"] = {
        200, R"({"0":{"publisher":"zmq","endpoint":"tcp://*:5557","replay_endpoint":null}})"};
    EXPECT_THAT(s.advice(), HasSubstr("no replay endpoint"));
    s.answers["/kv_event_sources"] = {200, "nonsense"};
    EXPECT_THAT(s.advice(), HasSubstr("shows no KV events"));
    s.options.events = "off";
    EXPECT_EQ(s.advice(), "");
    EXPECT_THAT(s.probe()->sources, IsEmpty());
    s.options.events = "5557";
    EXPECT_THAT(s.refusal(), HasSubstr("--engine-events"));
}

TEST(Probe, RanksAreCounted) {
    Script s;
    s.answers["/metrics"].body += "vllm:num_requests_running{engine=\"1\",model_name=\"tiny\"} 0\n";
    EXPECT_EQ(s.probe()->ranks, 2U);
    s.options.ranks = 1;
    EXPECT_EQ(s.probe()->ranks, 1U);
}

TEST(Probe, OneThatIsNotThereYetIsWaitedFor) {
    constexpr auto kYet = ErrorCode::kUnavailable;
    Script s;
    s.answers["/health"] = {0, "connection refused"};
    EXPECT_THAT(s.refusal(kYet), HasSubstr("http://box:8000 does not answer: connection refused"));
    s.answers["/health"] = {503, ""};
    EXPECT_THAT(s.refusal(kYet), HasSubstr("is not ready"));
    s.answers["/health"] = {200, ""};
    s.answers["/v1/models"] = {502, ""};
    EXPECT_THAT(s.refusal(kYet), HasSubstr("502"));
}

TEST(Probe, WhatIsWrongIsOneSentence) {
    Script s;
    s.answers["/v1/models"] = {401, ""};
    EXPECT_THAT(s.refusal(), HasSubstr("--engine-key-file"));
    s.answers["/v1/models"] = {404, ""};
    EXPECT_THAT(s.refusal(), HasSubstr("no vLLM is there"));
    s.answers["/v1/models"] = {200, "<html>"};
    EXPECT_THAT(s.refusal(), HasSubstr("/v1/models"));
    s.answers["/v1/models"] = {200, R"({"data":[{"id":"m","owned_by":"sglang"}]})"};
    EXPECT_THAT(s.refusal(), HasSubstr("SGLang, not vLLM: write --engine sglang=http://box:8000"));
    s.answers["/v1/models"] = {200, kVllmModels};
    s.options.model = "big";
    EXPECT_THAT(s.refusal(), HasSubstr("does not serve \"big\"; it serves lora-a, tiny"));
    s.options.model.clear();
    s.options.kind = EngineKind::kOpenai;
    EXPECT_THAT(s.refusal(), HasSubstr("openai"));
}

TEST(Probe, Sglang) {
    Script s;
    s.options.kind = EngineKind::kSglang;
    s.answers = {{"/health", {200, ""}},
                 {"/v1/models", {200, R"({"data":[{"id":"m","owned_by":"sglang"}]})"}},
                 {"/get_server_info",
                  {200, R"({"version":"0.5.23","served_model_name":"m","page_size":1,"dp_size":2,
                    "max_total_num_tokens":5000,"context_length":2048,
                    "kv_events_config":"{\"publisher\":\"zmq\",\"endpoint\":\"tcp://*:5557\"}"})"}}};
    const auto found = s.probe();
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(found->dialect, Dialect::kSglang);
    EXPECT_EQ(found->ranks, 2U);
    EXPECT_EQ(found->model.context_tokens, 2048U);
    EXPECT_EQ(found->kv_tokens, 5000U);
    ASSERT_EQ(found->sources.size(), 2U);
    EXPECT_EQ(found->sources[1].endpoint, "tcp://box:5558");
    EXPECT_TRUE(found->lora_hidden);
    EXPECT_THAT(s.advice(), HasSubstr("--page-size 16"));
    EXPECT_THAT(s.advice(), HasSubstr("no replay endpoint"));
    s.answers["/get_server_info"] = {200, "{}"};
    EXPECT_THAT(s.refusal(), HasSubstr("/server_info"));
}

TEST(Probe, Trtllm) {
    Script s;
    s.options.kind = EngineKind::kTrtllm;
    s.answers = {{"/health", {200, ""}},
                 {"/version", {200, R"({"version":"1.2.1"})"}},
                 {"/v1/models", {200, R"({"data":[{"id":"m","owned_by":"tensorrt_llm"}]})"}}};
    const auto found = s.probe();
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(found->dialect, Dialect::kTrtllm);
    EXPECT_EQ(found->page_tokens, 32U);
    EXPECT_THAT(s.advice(), HasSubstr("kv_events_config: {enable_kv_cache_events: true"));
    EXPECT_THAT(s.advice(), HasSubstr("--engine-events drain"));
    EXPECT_FALSE(found->drained_events);
    s.options.events = "drain";
    EXPECT_THAT(s.refusal(), HasSubstr("/kv_cache_events"));
    s.answers["/kv_cache_events"] = {405, ""};
    EXPECT_TRUE(s.probe()->drained_events);
    EXPECT_TRUE(s.probe()->sources.empty());
}

TEST(Probe, BlocksAreWholePages) {
    EXPECT_EQ(pool_block(0), 16U);
    EXPECT_EQ(pool_block(1), 16U);
    EXPECT_EQ(pool_block(16), 16U);
    EXPECT_EQ(pool_block(64), 64U);
    EXPECT_EQ(pool_block(12), 24U);
}

TEST(Probe, WhatHasChangedSoThatAllMustBeginAnew) {
    const FoundEngine before = *Script{}.probe();
    EXPECT_EQ(changed(before, before), "");
    FoundEngine now = before;
    now.page_tokens = 64;
    now.sources.clear();
    EXPECT_EQ(changed(before, now), "");
    now.model.name = "big";
    EXPECT_THAT(changed(before, now), HasSubstr("\"big\" and not \"tiny\""));
    now = before;
    now.model.context_tokens = 1;
    EXPECT_THAT(changed(before, now), HasSubstr("context"));
    now = before;
    now.ranks = 2;
    EXPECT_THAT(changed(before, now), HasSubstr("2 ranks"));
    now = before;
    now.dialect = Dialect::kVllmCompletions;
    EXPECT_THAT(changed(before, now), HasSubstr("spoken to otherwise"));
}

}  // namespace
}  // namespace stator::engine
