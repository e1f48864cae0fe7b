#include "stator/cli/stop_signal.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>

#include "stator/base/check.h"

namespace stator::cli {
namespace {

// A signal handler reaches globals only; all of them are lock-free atomics.
std::atomic<bool> g_serving{false};
std::atomic<int> g_first{0};
std::atomic<int> g_event{-1};
struct sigaction g_old_int;
struct sigaction g_old_term;

extern "C" void on_stop_signal(int number) {
    int none = 0;
    if (!g_serving.load() || !g_first.compare_exchange_strong(none, number)) {
        ::_exit(128 + number);
    }
    const int saved = errno;
    const std::uint64_t one = 1;
    static_cast<void>(::write(g_event.load(), &one, sizeof one));
    errno = saved;
}

}  // namespace

StopSignal::StopSignal() {
    STATOR_CHECK(g_event.load() == -1, "two StopSignals at the same time");
    g_event = ::eventfd(0, EFD_CLOEXEC);
    STATOR_CHECK(g_event.load() >= 0, "no eventfd");
    g_first = 0;
    g_serving = false;
    struct sigaction action{};
    action.sa_handler = on_stop_signal;
    action.sa_flags = SA_RESTART;
    ::sigaction(SIGINT, &action, &g_old_int);
    ::sigaction(SIGTERM, &action, &g_old_term);
}

StopSignal::~StopSignal() {
    ::sigaction(SIGINT, &g_old_int, nullptr);
    ::sigaction(SIGTERM, &g_old_term, nullptr);
    ::close(g_event.exchange(-1));
}

void StopSignal::begin_serving() { g_serving = true; }

int StopSignal::wait() {
    pollfd event{g_event.load(), POLLIN, 0};
    while (g_first.load() == 0) ::poll(&event, 1, -1);
    return g_first.load();
}

}  // namespace stator::cli
