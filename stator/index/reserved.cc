#include "stator/index/reserved.h"

#include <sys/mman.h>

#include <new>

namespace stator::index {
namespace {

constexpr std::size_t kPage = 4096;

}  // namespace

Reserved::Reserved(std::size_t bytes) : bytes_((bytes + kPage - 1) / kPage * kPage) {
    if (bytes_ == 0) bytes_ = kPage;
    void* data = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    data_ = data;
}

Reserved::~Reserved() {
    if (data_ != nullptr) munmap(data_, bytes_);
}

void Reserved::discard(std::size_t from, std::size_t to) {
    from = (from + kPage - 1) / kPage * kPage;
    to = to / kPage * kPage;
    if (from < to) madvise(static_cast<char*>(data_) + from, to - from, MADV_DONTNEED);
}

void Reserved::prefer_huge_pages(std::size_t from) {
    from = (from + kPage - 1) / kPage * kPage;
    if (from < bytes_) madvise(static_cast<char*>(data_) + from, bytes_ - from, MADV_HUGEPAGE);
}

}  // namespace stator::index
