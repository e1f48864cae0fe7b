#include "stator/cli/startup_summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

StartupFacts facts() {
    StartupFacts f;
    f.program = "./stator";
    f.version = "1.2.3";
    f.model_id = "smollm2";
    f.model_title = "SmolLM2 135M";
    f.file_bytes = 91'600'000;
    f.load_seconds = 0.153;
    f.engine.kind = "llama";
    f.engine.device = "cpu";
    f.engine.context_tokens = 8192;
    f.engine.max_running = 16;
    f.engine.max_waiting = 256;
    f.kv_tokens = 32'768;
    f.threads = {1, 2};
    f.host = "127.0.0.1";
    f.port = 8000;
    return f;
}

TEST(LocalUrl, IsOneThatWorksOnThisMachine) {
    EXPECT_EQ(local_url("127.0.0.1", 8000), "http://127.0.0.1:8000");
    EXPECT_EQ(local_url("0.0.0.0", 1), "http://127.0.0.1:1");
    EXPECT_EQ(local_url("::", 1), "http://[::1]:1");
    EXPECT_EQ(local_url("[::1]", 1), "http://[::1]:1");
    EXPECT_EQ(local_url("fe80::1", 1), "http://[fe80::1]:1");
    EXPECT_EQ(local_url("localhost", 1), "http://localhost:1");
}

TEST(StartupSummary, TellsWhatServesWhereAndHowToTryIt) {
    const std::string text = startup_summary(facts(), plain_style());
    EXPECT_EQ(
        text,
        "Stator 1.2.3 serves smollm2 on http://127.0.0.1:8000\n"
        "\n"
        "  model   SmolLM2 135M, 92 MB, llama on cpu, loaded in 0.15 s\n"
        "  context 8192 tokens a request, 32768 in the KV cache for all\n"
        "  load    16 requests at a time, 256 may wait\n"
        "  threads 1 for the model, 2 for HTTP\n"
        "  access  no API keys; reachable from this machine alone\n"
        "\n"
        "Try it:\n"
        "  curl -N http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' "
        "\\\n"
        "    -d '{\"model\": \"smollm2\", \"stream\": true, \"max_tokens\": 200, \"messages\": "
        "[{\"role\": \"user\", "
        "\"content\": \"Why is the sky blue?\"}]}'\n"
        "  ./stator chat\n"
        "\n"
        "Ctrl-C ends it.\n");
}

TEST(StartupSummary, WithKeysAnotherPortAndNoTemplate) {
    StartupFacts f = facts();
    f.api_keys = true;
    f.host = "0.0.0.0";
    f.port = 9000;
    std::string text = startup_summary(f, plain_style());
    EXPECT_THAT(text, HasSubstr("Authorization: Bearer $STATOR_API_KEY"));
    EXPECT_THAT(text, HasSubstr("API keys are asked for"));
    EXPECT_THAT(text, HasSubstr("./stator chat --url http://127.0.0.1:9000\n"));
    f.api_keys = false;
    f.can_chat = false;
    text = startup_summary(f, plain_style());
    EXPECT_THAT(text, HasSubstr("anyone who can reach this address may use it"));
    EXPECT_THAT(text, HasSubstr("/v1/completions "));
    EXPECT_THAT(text, Not(HasSubstr("chat")));
}

TEST(StartupSummary, NamesAreQuotedForTheShell) {
    StartupFacts f = facts();
    f.model_id = "it's \"new\"";
    EXPECT_THAT(startup_summary(f, plain_style()), HasSubstr(R"('{"model": "it'\''s \"new\"")"));
}

TEST(StartupSummary, ColoursOnlyWhenAsked) {
    EXPECT_THAT(startup_summary(facts(), plain_style()), Not(HasSubstr("\x1b")));
    EXPECT_THAT(startup_summary(facts(), Style{"\x1b[1m", "\x1b[2m", "", "\x1b[0m"}),
                HasSubstr("\x1b[1mStator 1.2.3"));
}

}  // namespace
}  // namespace stator::cli
