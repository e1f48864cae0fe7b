#include "stator/model/small_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace stator::model {

Result<std::string> read_small_file(const std::string& path, std::uint64_t max_bytes) {
    // Non-blocking: to open a pipe must not hang.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct Close {
        int fd;
        ~Close() {
            if (fd >= 0) ::close(fd);
        }
    } const closer{fd};
    struct stat status{};
    if (fd < 0 || ::fstat(fd, &status) != 0) {
        const int reason = errno;
        const bool absent = reason == ENOENT || reason == ENOTDIR;
        return error(absent             ? ErrorCode::kNotFound
                     : reason == EACCES ? ErrorCode::kPermissionDenied
                                        : ErrorCode::kInvalidArgument,
                     "'{}' can't be read: {}", path, std::generic_category().message(reason));
    }
    if (!S_ISREG(status.st_mode)) {
        return error(ErrorCode::kInvalidArgument, "'{}' is not a regular file", path);
    }
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size > max_bytes) {
        return error(ErrorCode::kTooLarge, "'{}' has {} bytes; at most {} are read", path, size,
                     max_bytes);
    }
    std::string text(size, '\0');
    std::size_t have = 0;
    while (have < text.size()) {
        const ssize_t n = ::read(fd, text.data() + have, text.size() - have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            return error(ErrorCode::kDataLoss, "'{}' can't be read at byte {}: {}", path, have,
                         n == 0 ? "it got shorter" : std::generic_category().message(errno));
        }
        have += static_cast<std::size_t>(n);
    }
    return text;
}

}  // namespace stator::model
