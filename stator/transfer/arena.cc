#include "stator/transfer/arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "stator/net/posix_socket.h"

namespace stator::transfer {
namespace {

constexpr std::uint64_t kPage = 4096;
/// What is populated and given back at once.
constexpr std::uint64_t kGranule = 256 * 1024;

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

tl::unexpected<Error> no_memory(std::uint64_t bytes, int reason) {
    return error(ErrorCode::kExhausted, "no memory of {} bytes can be had: {}", bytes,
                 net::system_message(reason));
}

std::uint64_t rounded(std::uint64_t capacity) {
    return std::max(kGranule, (capacity + kGranule - 1) / kGranule * kGranule);
}

}  // namespace

Result<std::shared_ptr<Arena>> Arena::make_private(std::uint64_t capacity) {
    capacity = rounded(capacity);
    void* memory = ::mmap(nullptr, capacity, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return no_memory(capacity, errno);
    ::madvise(memory, capacity, MADV_HUGEPAGE);
    ::madvise(memory, capacity, MADV_DONTDUMP);
    return std::shared_ptr<Arena>(new Arena(-1, -1, static_cast<std::byte*>(memory), capacity));
}

Result<std::shared_ptr<Arena>> Arena::make(const char* name, std::uint64_t capacity) {
    capacity = rounded(capacity);
    runtime::Descriptor fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (fd.get() < 0 || ::ftruncate(fd.get(), static_cast<off_t>(capacity)) != 0 ||
        ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        return no_memory(capacity, errno);
    }
    void* memory =
        ::mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
    if (memory == MAP_FAILED) return no_memory(capacity, errno);
    ::madvise(memory, capacity, MADV_HUGEPAGE);  // where the system gives them to shared memory
    ::madvise(memory, capacity, MADV_DONTDUMP);
    const std::string path = "/proc/self/fd/" + std::to_string(fd.get());
    // Without /proc others can't map it; every other way to the bytes still works.
    const int read_only = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    return std::shared_ptr<Arena>(
        new Arena(fd.release(), read_only, static_cast<std::byte*>(memory), capacity));
}

Arena::Arena(int fd, int read_only, std::byte* memory, std::uint64_t capacity)
    : fd_(fd),
      read_only_(read_only),
      memory_(memory),
      capacity_(capacity),
      ranges_(capacity, kPage),
      present_(capacity / kGranule) {}

Arena::~Arena() { ::munmap(memory_, capacity_); }

Result<std::shared_ptr<ArenaRange>> Arena::take(std::uint64_t bytes) {
    std::uint64_t offset = 0;
    {
        const std::scoped_lock lock(mutex_);
        const auto found = ranges_.take(bytes);
        if (!found) {
            return error(ErrorCode::kExhausted,
                         "no {} bytes in one piece are free: {} of {} are in use", bytes,
                         ranges_.taken_bytes(), capacity_);
        }
        offset = *found;
        high_ = std::max(high_, ranges_.taken_bytes());
    }
    return std::make_shared<ArenaRange>(shared_from_this(), offset, bytes);
}

void Arena::give_back(std::uint64_t offset) {
    const std::scoped_lock lock(mutex_);
    ranges_.give_back(offset);
}

Result<void> Arena::populate(std::uint64_t offset, std::uint64_t bytes) {
    if (bytes == 0) return {};
    const std::uint64_t first = offset / kGranule;
    const std::uint64_t end = (offset + bytes - 1) / kGranule + 1;
    std::uint64_t at = first;
    while (at < end) {
        std::uint64_t until = at;
        {
            const std::scoped_lock lock(mutex_);
            while (at < end && present_[at]) ++at;
            until = at;
            while (until < end && !present_[until]) ++until;
        }
        if (at == until) break;
        // The caller's range lies in these granules, so that trim() leaves them alone.
        if (::madvise(memory_ + at * kGranule, (until - at) * kGranule, MADV_POPULATE_WRITE) != 0 &&
            errno != EINVAL) {  // EINVAL: a kernel before 5.14; pages come by faults
            return no_memory(bytes, errno);
        }
        const std::scoped_lock lock(mutex_);
        for (; at < until; ++at) {
            if (present_[at]) continue;
            present_[at] = true;
            ++present_count_;
        }
    }
    return {};
}

void Arena::trim(std::uint64_t keep_bytes) {
    const std::scoped_lock lock(mutex_);
    const std::uint64_t keep = std::max({keep_bytes, high_, earlier_high_}) / kGranule + 1;
    earlier_high_ = high_;
    high_ = ranges_.taken_bytes();
    // From the top: the lowest ranges are taken first.
    const auto& free = ranges_.free_ranges();
    for (auto range = free.rbegin(); range != free.rend() && present_count_ > keep; ++range) {
        const std::uint64_t first = (range->first + kGranule - 1) / kGranule;
        for (std::uint64_t g = (range->first + range->second) / kGranule;
             g > first && present_count_ > keep; --g) {
            if (!present_[g - 1]) continue;
            const int how = fd_.get() >= 0 ? MADV_REMOVE : MADV_DONTNEED;
            if (::madvise(memory_ + (g - 1) * kGranule, kGranule, how) != 0) return;
            present_[g - 1] = false;
            --present_count_;
        }
    }
}

std::uint64_t Arena::taken_bytes() const {
    const std::scoped_lock lock(mutex_);
    return ranges_.taken_bytes();
}

std::uint64_t Arena::resident_bytes() const {
    const std::scoped_lock lock(mutex_);
    return present_count_ * kGranule;
}

ArenaRange::~ArenaRange() { arena_->give_back(offset_); }

std::span<std::byte> ArenaRange::bytes() const { return arena_->memory().subspan(offset_, bytes_); }

Result<void> ArenaRange::populate() const { return arena_->populate(offset_, bytes_); }

}  // namespace stator::transfer
