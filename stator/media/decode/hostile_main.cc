// For tests: a helper that was taken over. What it is sent says what it tries.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "stator/media/decode/serve.h"

namespace {

using namespace stator::media::helper;

Decoded black() {
    Decoded out;
    out.outcome = Outcome::kOk;
    out.width = 1;
    out.height = 1;
    out.pixels = allocate(3);
    std::memset(out.pixels.get(), 0, 3);
    return out;
}

/// Answers with a black dot where the attempt changed nothing.
Decoded attempt(Bytes bytes, const Limits&) {
    const std::string_view what(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (what == "open") static_cast<void>(::open("/etc/passwd", O_RDONLY));
    if (what == "socket") static_cast<void>(::socket(AF_INET, SOCK_STREAM, 0));
    if (what == "exec") ::execl("/bin/true", "true", nullptr);
    if (what == "fork") static_cast<void>(::fork());
    if (what == "code") {
        static_cast<void>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    }
    if (what == "crash") std::abort();
    if (what == "exit") ::_exit(0);
    if (what == "spin") {
        for (volatile int i = 0;; i = i + 1) {
        }
    }
    if (what == "memory") {
        const auto much = allocate(4ULL << 30U);
        void* volatile seen = much.get();  // or the compiler leaves it out
        return seen != nullptr ? black() : failed(Outcome::kNoMemory);
    }
    if (what == "lie") {
        Decoded out = black();
        out.width = 60'000;
        out.height = 60'000;
        return out;
    }
    if (what == "environment" && ::getenv("PATH") != nullptr) return failed(Outcome::kBroken);
    return black();
}

}  // namespace

int main() { return serve(kDecodesImages, attempt); }
