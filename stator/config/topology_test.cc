#include "stator/config/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::config {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(Topology, ReadsWorkersWithTheirOptions) {
    const auto read = read_topology("fleet.yaml", R"(
workers:
  - name: small
    count: 2
    options:
      model: {path: small.gguf}
      engine: {max_running: 8, kind: llama}
    environment: {CUDA_VISIBLE_DEVICES: "0"}
  - name: big
)");
    ASSERT_TRUE(read.has_value());
    ASSERT_EQ(read->size(), 2U);
    const TopologyWorker& small = (*read)[0];
    EXPECT_EQ(small.name, "small");
    EXPECT_EQ(small.count, 2U);
    ASSERT_EQ(small.options.size(), 3U);
    EXPECT_EQ(small.options[0].first->flag, "--model");
    EXPECT_EQ(small.options[0].second, "small.gguf");
    EXPECT_EQ(small.options[1].second, "8");
    EXPECT_EQ(small.options[2].second, "llama");
    ASSERT_EQ(small.environment.size(), 1U);
    EXPECT_EQ(small.environment[0].first, "CUDA_VISIBLE_DEVICES");
    EXPECT_EQ((*read)[1].count, 1U);
}

struct Wrong {
    const char* text;
    const char* where;
    const char* message;
};

class WrongTopology : public testing::TestWithParam<Wrong> {};

TEST_P(WrongTopology, IsToldWithItsLine) {
    const auto read = read_topology("f.yaml", GetParam().text);
    ASSERT_FALSE(read.has_value());
    EXPECT_THAT(read.error()[0].where, StartsWith(GetParam().where));
    EXPECT_THAT(read.error()[0].message, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongTopology,
    testing::Values(
        Wrong{"", "f.yaml:", "workers"}, Wrong{"workers: 3", "f.yaml:1", "workers"},
        Wrong{"workers: []", "f.yaml:1", "empty"},
        Wrong{"workers:\n  - count: 1\n", "f.yaml:2", "no name"},
        Wrong{"workers:\n  - name: a b\n", "f.yaml:2", "letters"},
        Wrong{"workers:\n  - name: a\n  - name: a\n", "f.yaml:3", "Two workers"},
        Wrong{"workers:\n  - name: a\n    count: 0\n", "f.yaml:3", "count must be"},
        Wrong{"workers:\n  - name: a\n    count: 1000\n  - name: b\n    count: 1000\n", "f.yaml:1",
              "at most 1024"},
        Wrong{"workers:\n  - name: a\n    options:\n      engine:\n        max_running: no\n",
              "f.yaml:5", "must be"},
        Wrong{"workers:\n  - name: a\n    options:\n      nothing: {x: 1}\n", "f.yaml:4",
              "nothing"},
        Wrong{"workers:\n  - name: a\n    environment: [x]\n", "f.yaml:3", "pairs"},
        Wrong{"workers:\n  - name: a\n    what: 1\n", "f.yaml:3", "not \"what\""},
        Wrong{"workers:\n  - name: a\nfrontend: {}\n", "f.yaml:3", "only \"workers\""},
        Wrong{"workers: [", "f.yaml:", "no YAML"}));

TEST(Topology, WordsNameSome) {
    EXPECT_FALSE(named_topology("pd.yaml"));
    for (const std::string_view name : {"pd", "epd"}) {
        const auto text = named_topology(name);
        ASSERT_TRUE(text) << name;
        const auto workers = read_topology(name, *text);
        ASSERT_TRUE(workers) << name;
        EXPECT_EQ(workers->size(), name.size());
        for (const TopologyWorker& w : *workers) {
            ASSERT_EQ(w.options.size(), 1U);
            EXPECT_EQ(w.options[0].first->key, "worker.roles");
            EXPECT_EQ(w.options[0].second, w.name);
        }
    }
}

}  // namespace
}  // namespace stator::config
