#include "stator/runtime/cores.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>

#include "stator/runtime/loop.h"

namespace stator::runtime {
namespace {

namespace fs = std::filesystem;

class CgroupTree : public testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "cgroup.XXXXXX").string();
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        root_ = pattern;
    }
    void TearDown() override { fs::remove_all(root_); }

    void put(const std::string& path, const std::string& text) {
        fs::create_directories((root_ / path).parent_path());
        std::ofstream(root_ / path) << text;
    }

    fs::path root_;
};

TEST_F(CgroupTree, ReadsVersionTwo) {
    put("app/cpu.max", "150000 100000\n");
    EXPECT_DOUBLE_EQ(cgroup_cpu_limit("0::/app\n", root_).value_or(-1), 1.5);
}

TEST_F(CgroupTree, TheTightestGroupAboveCounts) {
    put("slice/cpu.max", "200000 100000\n");
    put("slice/app/cpu.max", "max 100000\n");
    EXPECT_DOUBLE_EQ(cgroup_cpu_limit("0::/slice/app", root_).value_or(-1), 2.0);
}

TEST_F(CgroupTree, NoLimitIsNone) {
    put("app/cpu.max", "max 100000\n");
    EXPECT_FALSE(cgroup_cpu_limit("0::/app\n", root_).has_value());
    EXPECT_FALSE(cgroup_cpu_limit("", root_).has_value());
    EXPECT_FALSE(cgroup_cpu_limit("nonsense\n12\n:\n", root_).has_value());
}

TEST_F(CgroupTree, ReadsVersionOne) {
    put("cpu,cpuacct/docker/cpu.cfs_quota_us", "400000\n");
    put("cpu,cpuacct/docker/cpu.cfs_period_us", "100000\n");
    const std::string text = "7:memory:/docker\n4:cpu,cpuacct:/docker\n0::/\n";
    EXPECT_DOUBLE_EQ(cgroup_cpu_limit(text, root_).value_or(-1), 4.0);
}

TEST_F(CgroupTree, VersionOneWithoutQuotaIsNone) {
    put("cpu/app/cpu.cfs_quota_us", "-1\n");
    put("cpu/app/cpu.cfs_period_us", "100000\n");
    EXPECT_FALSE(cgroup_cpu_limit("4:cpu:/app\n3:cpuset:/app\n", root_).has_value());
}

TEST_F(CgroupTree, AContainerSeesItsOwnGroupAtTheRoot) {
    put("cpu/cpu.cfs_quota_us", "100000\n");
    put("cpu/cpu.cfs_period_us", "100000\n");
    EXPECT_DOUBLE_EQ(cgroup_cpu_limit("4:cpu:/docker/0123abcd\n", root_).value_or(-1), 1.0);
}

TEST(UsableCores, FollowsTheAffinityMask) {
    EXPECT_GE(usable_cores(), 1U);
    EXPECT_LE(usable_cores(), static_cast<std::size_t>(sysconf(_SC_NPROCESSORS_CONF)));
    std::thread pinned([] {  // the mask is the thread's
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(static_cast<unsigned>(sched_getcpu()), &set);
        ASSERT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
        EXPECT_EQ(usable_cores(), 1U);
    });
    pinned.join();
}

}  // namespace
}  // namespace stator::runtime
