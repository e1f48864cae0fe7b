#include "stator/runtime/cores.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "stator/runtime/loop.h"

namespace stator::runtime {
namespace {

namespace fs = std::filesystem;

std::optional<double> read_quota_v2(const fs::path& group) {
    std::ifstream file(group / "cpu.max");
    std::string quota;
    double period = 0;
    if (!(file >> quota >> period) || quota == "max" || period <= 0) return std::nullopt;
    const double value = std::strtod(quota.c_str(), nullptr);
    if (value <= 0) return std::nullopt;
    return value / period;
}

std::optional<double> read_quota_v1(const fs::path& group) {
    std::ifstream quota_file(group / "cpu.cfs_quota_us");
    std::ifstream period_file(group / "cpu.cfs_period_us");
    double quota = 0;
    double period = 0;
    if (!(quota_file >> quota) || !(period_file >> period)) return std::nullopt;
    if (quota <= 0 || period <= 0) return std::nullopt;  // -1: no limit
    return quota / period;
}

void keep_smaller(std::optional<double>& least, std::optional<double> value) {
    if (value && (!least || *value < *least)) least = value;
}

std::optional<double> limit_along(const fs::path& root, std::string_view group,
                                  std::optional<double> (*read)(const fs::path&)) {
    std::optional<double> least;
    keep_smaller(least, read(root));
    fs::path at = root;
    for (const auto& part : fs::path(group).relative_path()) {
        if (part == "..") return least;  // outside what this namespace shows
        at /= part;
        keep_smaller(least, read(at));
    }
    return least;
}

bool names_cpu(std::string_view controllers) {
    while (!controllers.empty()) {
        const auto comma = controllers.find(',');
        if (controllers.substr(0, comma) == "cpu") return true;
        if (comma == std::string_view::npos) return false;
        controllers.remove_prefix(comma + 1);
    }
    return false;
}

std::size_t affinity_cores() {
    // The kernel's mask may be wider than cpu_set_t's 1024 bits.
    for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
        cpu_set_t* set = CPU_ALLOC(cpus);
        const std::size_t bytes = CPU_ALLOC_SIZE(cpus);
        CPU_ZERO_S(bytes, set);
        const bool ok = sched_getaffinity(0, bytes, set) == 0;
        const int count = ok ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (ok) return static_cast<std::size_t>(std::max(count, 1));
    }
    return std::max(std::thread::hardware_concurrency(), 1U);
}

}  // namespace

std::optional<double> cgroup_cpu_limit(std::string_view membership, const fs::path& mount) {
    std::optional<double> least;
    while (!membership.empty()) {
        const auto end = membership.find('\n');
        const std::string_view line = membership.substr(0, end);
        membership.remove_prefix(end == std::string_view::npos ? membership.size() : end + 1);
        // hierarchy-ID:controllers:path
        const auto first = line.find(':');
        if (first == std::string_view::npos) continue;
        const auto second = line.find(':', first + 1);
        if (second == std::string_view::npos) continue;
        const std::string_view controllers = line.substr(first + 1, second - first - 1);
        const std::string_view group = line.substr(second + 1);
        if (controllers.empty()) {
            keep_smaller(least, limit_along(mount, group, read_quota_v2));
        } else if (names_cpu(controllers)) {
            std::error_code ignored;
            fs::path root = mount / controllers;
            if (!fs::is_directory(root, ignored)) root = mount / "cpu";
            keep_smaller(least, limit_along(root, group, read_quota_v1));
        }
    }
    return least;
}

std::size_t usable_cores() {
    const std::size_t cores = affinity_cores();
    std::ifstream file("/proc/self/cgroup");
    const std::string membership((std::istreambuf_iterator<char>(file)), {});
    const auto limit = cgroup_cpu_limit(membership, "/sys/fs/cgroup");
    if (!limit) return cores;
    // Rounded down: a thread more than the quota pays for gets all of them throttled.
    const auto whole = static_cast<std::size_t>(std::max(std::floor(*limit), 1.0));
    return std::min(cores, whole);
}

}  // namespace stator::runtime
