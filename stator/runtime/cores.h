#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

namespace stator::runtime {

/// The CPU quota that cgroups put on a process, in cores (may be a fraction); none where nothing
/// limits it. `membership` is the text of /proc/<pid>/cgroup, `mount` where the cgroup file systems
/// lie (/sys/fs/cgroup). Reads `cpu.max` (v2) and `cpu.cfs_quota_us` (v1) of the group and of every
/// group above it: the smallest counts. A group whose folder does not exist (a container that sees
/// its host's path) counts as the mount's root.
[[nodiscard]] std::optional<double> cgroup_cpu_limit(std::string_view membership,
                                                     const std::filesystem::path& mount);

}  // namespace stator::runtime
