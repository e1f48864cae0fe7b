#include "stator/cli/worker_places.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace stator::cli {
namespace {

using testing::HasSubstr;

std::string address(const std::string& text, std::uint32_t number, std::uint32_t count) {
    const auto own = numbered("--listen", text, number, count);
    return own ? *own : "refused: " + own.error().message;
}

TEST(WorkerPlaces, EachWorkerHasAnAddressOfItsOwn) {
    EXPECT_EQ(address("0.0.0.0:7000", 0, 1), "0.0.0.0:7000");
    EXPECT_EQ(address("0.0.0.0:7000", 3, 4), "0.0.0.0:7003");
    EXPECT_EQ(address("[::1]:7000", 3, 4), "[::1]:7003");
    EXPECT_EQ(address("127.0.0.1:0", 3, 4), "127.0.0.1:0");
    EXPECT_EQ(address("tcp://127.0.0.1:*", 3, 4), "tcp://127.0.0.1:*");
    EXPECT_EQ(address("tcp://127.0.0.1:5000", 3, 4), "tcp://127.0.0.1:5003");
    EXPECT_EQ(address("unix:/run/w%i.%p.sock", 3, 4),
              "unix:/run/w3." + std::to_string(::getpid()) + ".sock");
    EXPECT_EQ(address("unix:/run/w.sock", 0, 1), "unix:/run/w.sock");
}

TEST(WorkerPlaces, RefusesWhatSeveralWouldShare) {
    for (const char* text : {"unix:/run/w.sock", "ipc:///run/w", "localhost", "host:port"}) {
        EXPECT_THAT(address(text, 1, 4), HasSubstr("write %i where their number")) << text;
    }
    EXPECT_THAT(address("127.0.0.1:65533", 0, 4), HasSubstr("no 4 ports"));
    EXPECT_EQ(address("127.0.0.1:65532", 3, 4), "127.0.0.1:65535");
}

}  // namespace
}  // namespace stator::cli
