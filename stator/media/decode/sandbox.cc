#include "stator/media/decode/sandbox.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cstddef>
#include <initializer_list>
#include <vector>

namespace stator::media::helper {
namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "the sandbox knows the system calls of x86-64 and AArch64 alone"
#endif

constexpr std::initializer_list<long> kAllowed = {
    SYS_read,      SYS_write,         SYS_munmap,          SYS_mremap,  SYS_brk,
    SYS_madvise,   SYS_exit,          SYS_exit_group,      SYS_futex,   SYS_rt_sigreturn,
    SYS_getrandom, SYS_clock_gettime, SYS_restart_syscall, SYS_sysinfo, SYS_sched_yield};
/// Allowed where the third argument does not ask for executable memory.
constexpr std::initializer_list<long> kAllowedUnlessExec = {SYS_mmap, SYS_mprotect};

constexpr std::uint32_t offset(std::size_t o) { return static_cast<std::uint32_t>(o); }

std::vector<sock_filter> filter() {
    // Each number that is allowed jumps to the end of its own test, so the program has no jumps
    // over many instructions.
    std::vector<sock_filter> out;
    const auto add = [&out](sock_filter f) { out.push_back(f); };
    const sock_filter kill = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    const sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    add(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset(offsetof(seccomp_data, arch))));
    add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0));
    add(kill);
    add(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset(offsetof(seccomp_data, nr))));
    for (const long number : kAllowed) {
        add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(number), 0, 1));
        add(allow);
    }
    for (const long number : kAllowedUnlessExec) {
        add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(number), 0, 4));
        add(BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                     offset(offsetof(seccomp_data, args) + 2 * sizeof(std::uint64_t))));
        add(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1));
        add(kill);
        add(allow);
    }
    add(kill);
    return out;
}

bool limit(int what, rlim_t value) {
    const rlimit both{value, value};
    return ::setrlimit(static_cast<__rlimit_resource>(what), &both) == 0;
}

}  // namespace

bool lock_in(const SandboxLimits& limits) {
    if (!limit(RLIMIT_AS, limits.address_space_bytes) || !limit(RLIMIT_CPU, limits.cpu_seconds) ||
        !limit(RLIMIT_NOFILE, 3) || !limit(RLIMIT_FSIZE, 0) || !limit(RLIMIT_CORE, 0) ||
        !limit(RLIMIT_NPROC, 0)) {
        return false;
    }
    if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return false;
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
    std::vector<sock_filter> rules = filter();
    const sock_fprog program{static_cast<unsigned short>(rules.size()), rules.data()};
    return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

}  // namespace stator::media::helper
