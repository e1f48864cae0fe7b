#include "stator/protocol/worker_info.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <vector>

namespace stator::protocol {
namespace {

ModelCard card() {
    ModelCard c;
    c.name = "tiny";
    c.weights_digest = "sha256-sample:" + std::string(64, 'a');
    c.tokenizer = {.kind = "gguf-vocabulary", .sha256 = std::string(64, 'b'), .bytes = 7};
    c.vocab_size = 256;
    c.context_tokens = 4096;
    c.block_tokens = 16;
    c.hash_scheme = "xxh3-64:1337";
    c.kv_layout = "llama/f16";
    return c;
}

TEST(PoolTest, AliasesAndTitleAreNotPartOfTheIdentity) {
    ModelCard other = card();
    other.aliases = {"small"};
    other.title = "A tiny model";
    EXPECT_TRUE(same_pool(card(), other));
    EXPECT_EQ(pool_id(card()), pool_id(other));
}

TEST(PoolTest, EveryOtherFieldMakesAnotherPool) {
    const std::vector<std::function<void(ModelCard&)>> changes = {
        [](ModelCard& c) { c.name += "x"; },
        [](ModelCard& c) { c.weights_digest.back() = 'c'; },
        [](ModelCard& c) { c.tokenizer.kind += "x"; },
        [](ModelCard& c) { c.tokenizer.sha256.back() = 'c'; },
        [](ModelCard& c) { c.tokenizer.bytes += 1; },
        [](ModelCard& c) { c.chat_template.emplace(); },
        [](ModelCard& c) { c.chat_template.emplace().bytes = 1; },
        [](ModelCard& c) { c.vocab_size += 1; },
        [](ModelCard& c) { c.context_tokens += 1; },
        [](ModelCard& c) { c.block_tokens += 1; },
        [](ModelCard& c) { c.hash_scheme += "x"; },
        [](ModelCard& c) { c.kv_layout += "x"; },
        [](ModelCard& c) { c.max_top_logprobs += 1; },
        [](ModelCard& c) { c.sampling.temperature = 0.5F; },
        [](ModelCard& c) { c.sampling.top_p = 0.5F; },
        [](ModelCard& c) { c.sampling.top_k = 5; },
        [](ModelCard& c) { c.sampling.top_k = 0; },
        [](ModelCard& c) { c.sampling.min_p = 0.5F; },
        [](ModelCard& c) { c.tool_format = "hermes"; },
        [](ModelCard& c) { c.reasoning_format = "hermes"; },
    };
    std::set<std::string> ids = {pool_id(card())};
    for (std::size_t i = 0; i < changes.size(); ++i) {
        ModelCard other = card();
        changes[i](other);
        EXPECT_FALSE(same_pool(card(), other)) << i;
        EXPECT_TRUE(ids.insert(pool_id(other)).second) << i;
    }
}

TEST(PoolTest, TextsDoNotRunIntoEachOther) {
    ModelCard a = card();
    ModelCard b = card();
    a.hash_scheme = "ab";
    a.kv_layout = "c";
    b.hash_scheme = "a";
    b.kv_layout = "bc";
    EXPECT_NE(pool_id(a), pool_id(b));
}

TEST(PoolTest, AnIdIsSixteenHexDigitsAndStays) {
    EXPECT_EQ(pool_id(ModelCard{}).size(), 16U);
    // It is in logs, metrics and paths: a change of the encoding shows here.
    EXPECT_EQ(pool_id(ModelCard{}), "093c29f27ecfcf21");
}

TEST(RoleTest, EveryRoleHasAName) {
    EXPECT_EQ(to_string(Role::kAggregated), "aggregated");
    EXPECT_EQ(to_string(Role::kPrefill), "prefill");
    EXPECT_EQ(to_string(Role::kDecode), "decode");
    EXPECT_EQ(to_string(Role::kEncode), "encode");
    EXPECT_EQ(to_string(static_cast<Role>(9)), "unknown");
}

}  // namespace
}  // namespace stator::protocol
