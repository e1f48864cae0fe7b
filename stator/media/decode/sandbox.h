#pragma once

#include <cstdint>

namespace stator::media::helper {

struct SandboxLimits {
    std::uint64_t address_space_bytes = 0;
    std::uint32_t cpu_seconds = 0;  ///< of the process, all its items together
};

/// Locks this process in, for good: limits on memory, CPU time, files and core dumps, no new
/// privileges, and a list of the few system calls that computing, reading and writing need (no
/// opening, no sockets, no processes, no memory that can be executed). Any other call kills the
/// process. False where the system can't do that: then the process must not go on. The sockets it
/// has go on working.
[[nodiscard]] bool lock_in(const SandboxLimits& limits);

}  // namespace stator::media::helper
