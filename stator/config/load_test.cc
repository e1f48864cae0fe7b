#include "stator/config/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Origin& origin_of(const Loaded& loaded, std::string_view key) {
    return loaded.origins[index_of(*find_option(key))];
}

FlagValue flag(std::string_view key, std::vector<std::string> texts) {
    return {find_option(key), std::move(texts)};
}

TEST(Load, NothingGivenIsTheDefaults) {
    const auto loaded = load({});
    ASSERT_TRUE(loaded.has_value());
    EXPECT_EQ(loaded->settings, Settings{});
    EXPECT_EQ(loaded->origins.size(), options().size());
    for (const Origin& o : loaded->origins) EXPECT_EQ(to_string(o), "default");
    EXPECT_THAT(loaded->warnings, IsEmpty());
}

TEST(Load, LaterSourcesWin) {
    Inputs inputs;
    inputs.file = {"s.yaml", "server: {host: file, port: 1, threads: 3}\nlog:\n  level: warn\n"};
    inputs.environment = {{"STATOR_HOST", "environment"}, {"STATOR_PORT", "2"}};
    inputs.flags = {flag("server.port", {"3"})};
    const auto loaded = load(inputs);
    ASSERT_TRUE(loaded.has_value());
    EXPECT_EQ(loaded->settings.server.port, 3U);
    EXPECT_EQ(loaded->settings.server.host, "environment");
    EXPECT_EQ(loaded->settings.server.threads, 3U);
    EXPECT_EQ(loaded->settings.log.level, LogLevel::kWarn);
    EXPECT_EQ(to_string(origin_of(*loaded, "server.port")), "--port");
    EXPECT_EQ(to_string(origin_of(*loaded, "server.host")), "STATOR_HOST");
    EXPECT_EQ(to_string(origin_of(*loaded, "server.threads")), "s.yaml:1");
    EXPECT_EQ(to_string(origin_of(*loaded, "log.level")), "s.yaml:3");
    EXPECT_EQ(origin_of(*loaded, "log.format").source, Source::kDefault);
}

TEST(Load, TheLastOfRepeatedFlagsCountsAndListsAddUp) {
    Inputs inputs;
    inputs.flags = {flag("server.port", {"1", "2"}), flag("model.aliases", {"a", "b,c"})};
    const auto loaded = load(inputs);
    ASSERT_TRUE(loaded.has_value());
    EXPECT_EQ(loaded->settings.server.port, 2U);
    EXPECT_THAT(loaded->settings.model.aliases, ElementsAre("a", "b", "c"));
}

TEST(Load, AllProblemsOfAllSourcesAreReported) {
    Inputs inputs;
    inputs.file = {"s.yaml", "server:\n  port: -1\n  prot: 5\n"};
    inputs.environment = {{"STATOR_THREADS", "many"}};
    inputs.flags = {flag("log.level", {"loud"})};
    const auto loaded = load(inputs);
    ASSERT_FALSE(loaded.has_value());
    ASSERT_EQ(loaded.error().size(), 4U);
    EXPECT_EQ(loaded.error()[0].where, "s.yaml:2");
    EXPECT_EQ(loaded.error()[1].where, "s.yaml:3");
    EXPECT_EQ(loaded.error()[2].text(),
              "STATOR_THREADS: \"many\" is not possible here; it must be a whole number from 0 to "
              "1024.");
    EXPECT_EQ(loaded.error()[3].where, "--log-level");
}

TEST(Load, EnvironmentVariablesThatAreNoOptions) {
    Inputs inputs;
    inputs.environment = {{"STATOR_PROT", "1"}, {"STATOR_CACHE", "/x"}, {"STATOR_CONFIG", "/y"},
                          {"STATOR_ROOT", "z"}, {"PATH", "/bin"},       {"STATOR_PORT", ""}};
    const auto loaded = load(inputs);
    ASSERT_TRUE(loaded.has_value());
    EXPECT_EQ(loaded->settings, Settings{});
    ASSERT_EQ(loaded->warnings.size(), 1U);
    EXPECT_EQ(loaded->warnings[0].text(),
              "STATOR_PROT: No option has this environment variable. Did you mean STATOR_PORT?");
}

TEST(Load, LimitsThatContradictEachOther) {
    Inputs inputs;
    inputs.flags = {flag("limits.max_body_size", {"1G"})};
    const auto loaded = load(inputs);
    ASSERT_FALSE(loaded.has_value());
    ASSERT_EQ(loaded.error().size(), 1U);
    EXPECT_EQ(loaded.error()[0].where, "--max-body-size");
    EXPECT_THAT(loaded.error()[0].message,
                HasSubstr("One body may have 1G, but all of them together "
                          "only 512M"));
}

TEST(Load, PrivateAddressesNeedHostsWithThem) {
    Inputs inputs;
    inputs.flags = {flag("media.allow_private", {"true"})};
    const auto loaded = load(inputs);
    ASSERT_FALSE(loaded.has_value());
    ASSERT_EQ(loaded.error().size(), 1U);
    EXPECT_EQ(loaded.error()[0].where, "--media-allow-private");
    EXPECT_THAT(loaded.error()[0].message, HasSubstr("--media-allow-private alone"));
    EXPECT_THAT(loaded.error()[0].message, HasSubstr("--media-host"));
    inputs.flags.push_back(flag("media.hosts", {"*.media.internal"}));
    EXPECT_TRUE(load(inputs).has_value());
}

TEST(Load, AttachedEngines) {
    const auto engine = [](std::vector<std::string> texts) {
        Inputs inputs;
        inputs.flags = {flag("engine.kind", std::move(texts))};
        return load(inputs);
    };
    const auto two = engine({"vllm=http://a:8000", "sglang=https://b"});
    ASSERT_TRUE(two.has_value());
    EXPECT_EQ(two->settings.engine.kind, EngineKind::kAttached);
    EXPECT_EQ(two->settings.engine.attached,
              (std::vector<AttachedEngine>{{"vllm", "http://a:8000"}, {"sglang", "https://b"}}));
    // Of engines of ours the last one counts, whatever stands before it.
    const auto own = engine({"vllm=http://a:8000", "llama", "mock"});
    ASSERT_TRUE(own.has_value());
    EXPECT_EQ(own->settings.engine.kind, EngineKind::kMock);
    EXPECT_TRUE(own->settings.engine.attached.empty());
    for (const auto& [text, said] : {std::pair{"vllm", "vllm=http://127.0.0.1:8000"},
                                     {"vllm=a:1", "vllm=http://127.0.0.1"},
                                     {"gpt", "one of llama, echo, mock"},
                                     {"tgi=http://a", "vllm=URL, sglang=URL"}}) {
        const auto bad = engine({text});
        ASSERT_FALSE(bad.has_value()) << text;
        EXPECT_EQ(bad.error()[0].where, "--engine");
        EXPECT_THAT(bad.error()[0].message, HasSubstr(said));
    }
    Inputs yaml;
    yaml.file = {"s.yaml", "engine:\n  kind: [\"vllm=http://a\", \"trtllm=http://b\"]\n"};
    const auto listed = load(yaml);
    ASSERT_TRUE(listed.has_value());
    EXPECT_EQ(listed->settings.engine.attached.size(), 2U);
    yaml.file = {"s.yaml", "engine:\n  kind: [llama, gpt]\n"};
    const auto wrong = load(yaml);
    ASSERT_FALSE(wrong.has_value());
    EXPECT_EQ(wrong.error()[0].where, "s.yaml:2");
}

}  // namespace
}  // namespace stator::config
