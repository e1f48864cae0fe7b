#include "stator/media/decode/serve.h"

#include <malloc.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "stator/media/decode/sandbox.h"

namespace stator::media::helper {
namespace {

constexpr int kSocket = 0;
/// On top of what the program and its libraries take.
constexpr std::uint64_t kMoreAddressSpace = 640ULL * 1024 * 1024;
constexpr std::uint32_t kCpuSeconds = 600;
constexpr int kNoSandbox = 70;
/// Memory that is given back after each item.
constexpr int kKeptBytes = 1024 * 1024;

/// Address space in use, as the kernel counts it; while files can still be opened.
std::uint64_t address_space() {
    unsigned long long pages = 0;
    std::FILE* file = std::fopen("/proc/self/statm", "r");
    if (file == nullptr) return 0;
    if (std::fscanf(file, "%llu", &pages) != 1) pages = 0;
    std::fclose(file);
    return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

bool read_all(void* to, std::size_t count) {
    auto* at = static_cast<char*>(to);
    while (count > 0) {
        const ssize_t n = ::read(kSocket, at, count);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        count -= static_cast<std::size_t>(n);
    }
    return true;
}

bool write_all(const void* from, std::size_t count) {
    const auto* at = static_cast<const char*>(from);
    while (count > 0) {
        const ssize_t n = ::write(kSocket, at, count);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        count -= static_cast<std::size_t>(n);
    }
    return true;
}

bool answer(const Decoded& decoded) {
    const bool ok = decoded.outcome == Outcome::kOk;
    Reply reply;
    reply.outcome = decoded.outcome;
    reply.width = decoded.width;
    reply.height = decoded.height;
    reply.frames = ok ? decoded.frames : 0;
    reply.pixel_bytes = ok ? decoded.pixel_bytes() : 0;
    if (!write_all(&reply, sizeof reply)) return false;
    if (!ok) return true;
    if (!decoded.frame_ms.empty() &&
        !write_all(decoded.frame_ms.data(), decoded.frame_ms.size() * sizeof(std::uint32_t))) {
        return false;
    }
    return write_all(decoded.pixels.get(), reply.pixel_bytes);
}

}  // namespace

int serve(std::uint32_t decodes, Decoded (*decode)(Bytes, const Limits&)) {
    ::mallopt(M_ARENA_MAX, 1);
    ::mallopt(M_TRIM_THRESHOLD, kKeptBytes);
    if (!lock_in({address_space() + kMoreAddressSpace, kCpuSeconds})) return kNoSandbox;
    const Hello hello{.decodes = decodes};
    if (!write_all(&hello, sizeof hello)) return 1;
    for (;;) {
        Request request;
        if (!read_all(&request, sizeof request)) return 0;
        if (request.magic != kMagic || request.bytes > kMaxInputBytes) return 1;
        const auto input = allocate(request.bytes);
        if (!input) return 1;
        if (!read_all(input.get(), request.bytes)) return 1;
        if (!answer(decode({input.get(), request.bytes}, request.limits))) return 1;
    }
}

}  // namespace stator::media::helper
