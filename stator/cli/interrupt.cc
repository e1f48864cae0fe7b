#include "stator/cli/interrupt.h"

#include <atomic>
#include <csignal>

namespace stator::cli {
namespace {

std::atomic<bool> requested_now{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may set it");

void note(int signal) {
    if (requested_now.exchange(true)) {
        std::signal(signal, SIG_DFL);
        std::raise(signal);
    }
}

}  // namespace

Interrupt::Interrupt() {
    requested_now = false;
    std::signal(SIGINT, note);
    std::signal(SIGTERM, note);
}

Interrupt::~Interrupt() {
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
}

bool Interrupt::requested() { return requested_now.load(std::memory_order_relaxed); }

}  // namespace stator::cli
