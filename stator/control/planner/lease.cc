#include "stator/control/planner/lease.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace stator::control {

FileLease::~FileLease() {
    if (fd_ >= 0) ::close(fd_);
}

bool FileLease::held() {
    if (path_.empty() || fd_ >= 0) return true;
    const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        reason_ = "the file " + path_ + " can't be opened: " + std::strerror(errno);
        return false;
    }
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
        reason_ = errno == EWOULDBLOCK
                      ? "another planner is active; it holds " + path_
                      : "the file " + path_ + " can't be locked: " + std::strerror(errno);
        ::close(fd);
        return false;
    }
    fd_ = fd;
    reason_.clear();
    return true;
}

}  // namespace stator::control
