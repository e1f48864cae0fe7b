#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "stator/frontend/frontend_metrics.h"

namespace stator::frontend {
namespace {

double resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    double total = 0;
    double resident = 0;
    statm >> total >> resident;
    return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double cpu_seconds() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double open_descriptors() {
    DIR* dir = opendir("/proc/self/fd");
    if (dir == nullptr) return 0;
    double count = -3;  // ".", ".." and the folder's own descriptor
    while (readdir(dir) != nullptr) ++count;
    closedir(dir);
    return count;
}

}  // namespace

void add_process_metrics(metrics::Registry& registry) {
    registry.callback("process_resident_memory_bytes", "Resident memory size in bytes.", false,
                      resident_bytes);
    registry.callback("process_cpu_seconds_total", "Total user and system CPU time in seconds.",
                      true, cpu_seconds);
    registry.callback("process_open_fds", "Number of open file descriptors.", false,
                      open_descriptors);
}

}  // namespace stator::frontend
