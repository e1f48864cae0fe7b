#include "stator/cli/chat_input.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <utility>

namespace stator::cli {
namespace {

std::atomic<int> g_interrupts{0};
struct sigaction g_old_interrupt;

extern "C" void on_interrupt(int number) {
    // A third one: whatever we are doing about the others takes too long.
    if (g_interrupts.fetch_add(1) >= 2) ::_exit(128 + number);
}

}  // namespace

bool MessageLines::add(std::string_view line) {
    const bool more = line.ends_with('\\');
    text_ += line.substr(0, line.size() - (more ? 1 : 0));
    if (more) text_ += '\n';
    return !more;
}

std::string MessageLines::take() { return std::exchange(text_, {}); }

std::string printable(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto u = static_cast<unsigned char>(text[i]);
        if ((u < 0x20 && u != '\n' && u != '\t') || u == 0x7f) continue;
        // U+0080 to U+009F: the second set of control characters.
        if (u == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0) {
            ++i;
            continue;
        }
        out += text[i];
    }
    return out;
}

LineReader::Outcome LineReader::read(std::string& line) {
    while (true) {
        const auto end = buffer_.find('\n');
        if (end != std::string::npos || buffer_.size() >= kMaxLine) {
            const auto length = std::min(end, kMaxLine);
            line = buffer_.substr(0, length);
            buffer_.erase(0, end == length ? length + 1 : length);
            if (line.ends_with('\r')) line.pop_back();
            return Outcome::kLine;
        }
        std::array<char, 4096> piece{};
        const ssize_t n = ::read(descriptor_, piece.data(), piece.size());
        if (n < 0 && errno == EINTR) {
            buffer_.clear();
            return Outcome::kInterrupted;
        }
        if (n <= 0) {
            if (buffer_.empty()) return Outcome::kEnd;
            line = std::exchange(buffer_, {});
            return Outcome::kLine;
        }
        buffer_.append(piece.data(), static_cast<std::size_t>(n));
    }
}

std::string read_all(int descriptor, std::size_t max_bytes) {
    std::string out;
    std::array<char, 16'384> piece{};
    while (out.size() < max_bytes) {
        const ssize_t n = ::read(descriptor, piece.data(), piece.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        out.append(piece.data(), static_cast<std::size_t>(n));
    }
    out.resize(std::min(out.size(), max_bytes));
    return out;
}

Interrupts::Interrupts() {
    g_interrupts = 0;
    struct sigaction action{};
    action.sa_handler = on_interrupt;
    action.sa_flags = 0;  // no SA_RESTART: a read that waits for a line must return
    ::sigaction(SIGINT, &action, &g_old_interrupt);
}

Interrupts::~Interrupts() { ::sigaction(SIGINT, &g_old_interrupt, nullptr); }

int Interrupts::count() const { return g_interrupts.load(); }

void Interrupts::clear() { g_interrupts = 0; }

}  // namespace stator::cli
