#pragma once

#include <unistd.h>

#include <utility>

namespace stator::runtime {

/// Owns a file descriptor; closes it unless it was released.
class Descriptor {
  public:
    explicit Descriptor(int fd) : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;

    [[nodiscard]] int get() const { return fd_; }
    [[nodiscard]] int release() { return std::exchange(fd_, -1); }
    /// What close() says: a write may fail only there.
    [[nodiscard]] int close() { return ::close(release()); }

  private:
    int fd_;
};

}  // namespace stator::runtime
