#include "stator/base/check.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "stator/base/log.h"

namespace stator {
namespace {
std::atomic<unsigned long> g_bugs{0};
}

unsigned long bugs_total() { return g_bugs.load(std::memory_order_relaxed); }

namespace detail {

void check_failed(const char* condition, const char* why, const char* file, int line) {
    std::fprintf(stderr, "stator: fatal: %s:%d: %s (%s)\n", file, line, condition, why);
    std::fflush(stderr);
    std::abort();
}

void bug(const char* why, const char* file, int line) {
    g_bugs.fetch_add(1, std::memory_order_relaxed);
#ifdef NDEBUG
    log_error("A state that should be impossible was reached; going on.",
              {{"why", why}, {"file", file}, {"line", line}});
#else
    check_failed("STATOR_BUG", why, file, line);
#endif
}

}  // namespace detail
}  // namespace stator
