#include "stator/cli/handoff_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "stator/cli/handoff_source.h"
#include "stator/cli/scratch_folder.h"

namespace stator::cli {
namespace {

/// Both sides in one process, each with a plane of its own.
class HandoffProbeTest : public ::testing::Test {
  protected:
    void SetUp() override {
        loops.start();
        theirs = plane();
        ours = plane();
    }
    void TearDown() override {
        probe.reset();
        source.reset();
        if (ours) ours->stop();
        if (theirs) theirs->stop();
        loops.stop();
    }
    std::shared_ptr<transfer::TransferPlane> plane() {
        transfer::TransferOptions options;
        options.methods = {"shm", "tcp"};
        options.budget_bytes = 8 << 20;
        auto started = transfer::start_transfer(options, registry);
        EXPECT_TRUE(started);
        return std::move(*started);
    }
    void start(const std::string& secret) {
        auto started =
            HandoffSource::start({.listen = *net::parse_socket_address("unix:" + folder.file("s")),
                                  .secret = [secret] { return secret; },
                                  .tls = {}},
                                 theirs, loops);
        ASSERT_TRUE(started) << started.error().message;
        source = std::move(*started);
        probe = std::make_unique<HandoffProbe>(loops.at(1), ours, [this] { return stop.load(); });
    }
    requests::LinkOptions link(const std::string& secret) {
        requests::LinkOptions options;
        options.address = source->address();
        options.link.name = "test";
        options.link.secret = secret;
        return options;
    }

    ScratchFolder folder;
    runtime::LoopPool loops{2, "test"};
    metrics::Registry registry;
    std::shared_ptr<transfer::TransferPlane> theirs;
    std::shared_ptr<transfer::TransferPlane> ours;
    std::unique_ptr<HandoffSource> source;
    std::unique_ptr<HandoffProbe> probe;
    std::atomic<bool> stop = false;
};

TEST_F(HandoffProbeTest, TakesHandoffsByEachWayOneAfterTheOther) {
    start("a secret of the links");
    const auto info = probe->connect(link("a secret of the links"));
    ASSERT_TRUE(info) << info.error().message;
    for (const char* method : {"shm", "tcp", "shm"}) {
        for (const std::uint64_t bytes : {std::uint64_t{1}, std::uint64_t{3'000'001}}) {
            const auto sample = probe->take(method, bytes);
            ASSERT_TRUE(sample) << sample.error().message;
            EXPECT_GT(sample->seconds_to_claim, 0);
            EXPECT_GE(sample->seconds_to_arrive, sample->seconds_to_claim);
            EXPECT_GE(sample->seconds_to_read, sample->seconds_to_claim);
        }
    }
    const auto facts = probe->facts();
    ASSERT_TRUE(facts);
    EXPECT_GT(facts->resident_bytes, 0U);
}

TEST_F(HandoffProbeTest, WhatCannotBeTakenSaysWhyAndTheNextOneCan) {
    start("");
    ASSERT_TRUE(probe->connect(link("")));
    const auto unknown = probe->take("nixl", 100);
    ASSERT_FALSE(unknown);
    EXPECT_EQ(unknown.error().code, ErrorCode::kUnsupported);
    const auto large = probe->take("tcp", 9 << 20);
    ASSERT_FALSE(large);
    EXPECT_EQ(large.error().code, ErrorCode::kExhausted) << large.error().message;
    EXPECT_TRUE(probe->take("tcp", 100));
}

TEST_F(HandoffProbeTest, AnotherSecretIsRefused) {
    start("a secret of the links");
    const auto refused = probe->connect(link("some other secret"));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnauthenticated) << refused.error().message;
}

TEST_F(HandoffProbeTest, WhoeverIsGoneOrInterruptedIsNotWaitedFor) {
    start("");
    ASSERT_TRUE(probe->connect(link("")));
    ASSERT_TRUE(probe->take("shm", 100));
    stop = true;
    EXPECT_EQ(probe->take("shm", 100).error().code, ErrorCode::kCancelled);
    stop = false;
    source.reset();
    EXPECT_FALSE(probe->take("shm", 100));
    EXPECT_FALSE(probe->take("shm", 100)) << "the link stays lost";
}

}  // namespace
}  // namespace stator::cli
