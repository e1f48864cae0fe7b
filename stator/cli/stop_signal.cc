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
std::atomic<std::uint64_t> g_others{0};  ///< bit n: signal n has come
struct sigaction g_old_others[4];

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

extern "C" void on_other_signal(int number) {
    const int saved = errno;
    g_others.fetch_or(std::uint64_t{1} << static_cast<unsigned>(number));
    const std::uint64_t one = 1;
    static_cast<void>(::write(g_event.load(), &one, sizeof one));
    errno = saved;
}

}  // namespace

StopSignal::StopSignal(std::initializer_list<int> others) {
    STATOR_CHECK(others.size() <= kMaxOthers, "too many signals");
    STATOR_CHECK(g_event.load() == -1, "two StopSignals at the same time");
    g_event = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    STATOR_CHECK(g_event.load() >= 0, "no eventfd");
    g_first = 0;
    g_serving = false;
    struct sigaction action{};
    action.sa_handler = on_stop_signal;
    action.sa_flags = SA_RESTART;
    ::sigaction(SIGINT, &action, &g_old_int);
    ::sigaction(SIGTERM, &action, &g_old_term);
    g_others = 0;
    action.sa_handler = on_other_signal;
    for (const int number : others) {
        ::sigaction(number, &action, &g_old_others[other_count_]);
        others_[other_count_++] = number;
    }
}

StopSignal::~StopSignal() {
    ::sigaction(SIGINT, &g_old_int, nullptr);
    ::sigaction(SIGTERM, &g_old_term, nullptr);
    for (int i = 0; i < other_count_; ++i) ::sigaction(others_[i], &g_old_others[i], nullptr);
    ::close(g_event.exchange(-1));
}

void StopSignal::begin_serving() { g_serving = true; }

int StopSignal::wait() {
    pollfd event{g_event.load(), POLLIN, 0};
    while (true) {
        if (const int first = g_first.load(); first != 0) return first;
        for (int i = 0; i < other_count_; ++i) {
            const std::uint64_t bit = std::uint64_t{1} << static_cast<unsigned>(others_[i]);
            if ((g_others.fetch_and(~bit) & bit) != 0) return others_[i];
        }
        ::poll(&event, 1, -1);
        std::uint64_t count = 0;
        if ((event.revents & POLLIN) != 0) {
            static_cast<void>(::read(event.fd, &count, sizeof count));
        }
    }
}

bool StopSignal::ends(int signal) { return signal == SIGINT || signal == SIGTERM; }

}  // namespace stator::cli
