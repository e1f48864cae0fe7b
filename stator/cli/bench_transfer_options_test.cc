#include "stator/cli/bench_transfer_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace stator::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Mode = BenchTransferOptions::Mode;
using Words = std::vector<std::string>;

BenchTransferOptions parsed(const Words& args, bool supervised = false) {
    auto options = parse_bench_transfer_options(args, supervised);
    EXPECT_TRUE(options) << options.error().message;
    if (!options || !*options) return {};
    return std::move(**options);
}

std::string problem(const Words& args) {
    const auto options = parse_bench_transfer_options(args, false);
    EXPECT_FALSE(options);
    return options ? std::string() : options.error().message;
}

TEST(BenchTransferOptions, NothingMeansTwoProcessesHere) {
    const auto o = parsed({});
    EXPECT_EQ(o.mode, Mode::kLocal);
    EXPECT_THAT(o.sizes, ElementsAre(1U << 20, 64U << 20));
    EXPECT_EQ(o.handoffs, 100U);
    EXPECT_TRUE(o.flags.empty());
}

TEST(BenchTransferOptions, SizesComeInAnyFormOnceEachAndInOrder) {
    EXPECT_THAT(parsed({"--bytes", "1G,147456", "--bytes=64MiB", "--bytes", "1G"}).sizes,
                ElementsAre(147'456U, 64U << 20, 1U << 30));
    EXPECT_EQ(parsed({"--handoffs", "7"}).handoffs, 7U);
    EXPECT_EQ(parsed({"--json", "-"}).json, "-");
}

TEST(BenchTransferOptions, TwoMachinesAreListenAndConnect) {
    auto o = parsed({"--listen", "10.0.0.7:7100"});
    EXPECT_EQ(o.mode, Mode::kListen);
    EXPECT_EQ(net::to_string(*o.address), "tcp://10.0.0.7:7100");
    EXPECT_TRUE(o.flags.empty()) << "it is not the workers' --listen";
    o = parsed({"--connect", "[::1]:7100", "--link-secret-file", "s", "--transfer", "tcp"});
    EXPECT_EQ(o.mode, Mode::kConnect);
    EXPECT_EQ(o.address->host, "::1");
    EXPECT_EQ(o.flags.size(), 2U);
}

TEST(BenchTransferOptions, AProcessThatWasStartedForItPassesOverWhatIsNotItsOwn) {
    const Words args{"--bytes", "1M", "--json=x", "--listen=unix:/tmp/a"};
    EXPECT_EQ(parsed(args, true).mode, Mode::kListen);
    EXPECT_THAT(problem(args), HasSubstr("belong to the side that connects"));
}

TEST(BenchTransferOptions, WhatIsWrongIsNamed) {
    EXPECT_THAT(problem({"--bytes", "0"}), HasSubstr("--bytes is \"0\"; it must be"));
    EXPECT_THAT(problem({"--bytes", "1M,,2M"}), HasSubstr("--bytes is \"\""));
    EXPECT_THAT(problem({"--bytes", "65G"}), HasSubstr("--bytes is \"65G\""));
    EXPECT_THAT(problem({"--bytes", "lots"}), HasSubstr("\"lots\""));
    EXPECT_THAT(problem({"--handoffs", "0"}), HasSubstr("--handoffs is \"0\"; it must be"));
    EXPECT_THAT(problem({"--handoffs", "1.5"}), HasSubstr("--handoffs"));
    EXPECT_THAT(problem({"--connect", "nowhere"}), HasSubstr("--connect: "));
    EXPECT_THAT(problem({"--connect", "a:0"}), HasSubstr("--connect needs the port"));
    EXPECT_THAT(problem({"--listen", "a:99999"}), HasSubstr("--listen: "));
    EXPECT_THAT(problem({"--listen", "a:1", "--connect", "b:2"}), HasSubstr("don't go together"));
    EXPECT_THAT(problem({"shm"}), HasSubstr("\"shm\" is not expected here"));
    EXPECT_THAT(problem({"--handoff", "1"}), HasSubstr("--handoffs"));
    EXPECT_THAT(problem({"--bytes", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"}),
                HasSubstr("16 are the most"));
}

TEST(BenchTransferOptions, HelpFitsAHundredColumnsAndNamesEveryFlag) {
    const auto asked = parse_bench_transfer_options({"--help"}, false);
    ASSERT_TRUE(asked);
    EXPECT_FALSE(*asked);
    const std::string text = bench_transfer_help(plain_style());
    for (const char* flag : {"--bytes", "--handoffs", "--listen", "--connect", "--json",
                             "--link-secret-file", "--transfer", "--nixl-library"}) {
        EXPECT_THAT(text, HasSubstr(std::string("  ") + flag));
    }
    std::size_t begin = 0;
    while (begin < text.size()) {
        const std::size_t end = text.find('\n', begin);
        ASSERT_NE(end, std::string::npos);
        EXPECT_LE(end - begin, 101U) << text.substr(begin, end - begin);
        begin = end + 1;
    }
}

}  // namespace
}  // namespace stator::cli
