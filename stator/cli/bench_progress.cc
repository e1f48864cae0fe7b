#include "stator/cli/bench_progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "stator/cli/terminal.h"
#include "stator/report/figure.h"

namespace stator::cli {
namespace {

constexpr std::chrono::milliseconds kOften{250};
constexpr std::chrono::seconds kNowAndThen{10};

std::size_t terminal_columns() {
    winsize size{};
    constexpr std::size_t kUsual = 80;
    if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsual;
    return size.ws_col;
}

}  // namespace

std::string progress_text(const loadgen::Progress& p) {
    const report::Snapshot& s = p.figures;
    std::string out = fmt::format("{:.0f} s: {} started, {} running, {} ok", p.seconds, p.started,
                                  p.in_flight, s.ok);
    if (s.failed > 0) out += fmt::format(", {} failed", s.failed);
    if (s.ok > 0) {
        out += fmt::format("; TTFT {}, p99 {}; {} tokens/s", report::latency(s.ttft_p50_ms),
                           report::latency(s.ttft_p99_ms), report::figure(s.recent_output_rate));
    }
    if (p.stopping) out += "; stopping";
    return out;
}

BenchProgress::BenchProgress(std::string title, const Clock& clock)
    : title_(std::move(title)),
      clock_(clock),
      terminal_(is_terminal(STDERR_FILENO)),
      next_(clock.now() + (terminal_ ? std::chrono::nanoseconds(0) : kNowAndThen)) {}

BenchProgress::~BenchProgress() {
    if (shown_ && terminal_) print_err("\r\x1b[K");
}

void BenchProgress::show(const loadgen::Progress& progress) {
    const TimePoint now = clock_.now();
    if (now < next_) return;
    next_ = now + (terminal_ ? std::chrono::nanoseconds(kOften) : kNowAndThen);
    shown_ = true;
    std::string line = title_.empty() ? "" : title_ + "  ";
    line += progress_text(progress);
    if (!terminal_) {
        print_err(line + "\n");
        return;
    }
    // A line that wraps could not be written over.
    print_err("\r\x1b[K" + line.substr(0, terminal_columns() - 1));
}

}  // namespace stator::cli
