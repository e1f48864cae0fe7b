#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "stator/discovery/worker_file.h"

namespace stator::discovery {
namespace {

constexpr std::size_t kMaxName = 200;

bool is_name(const std::string& name) {
    return !name.empty() && name.size() <= kMaxName && name.front() != '.' &&
           std::ranges::all_of(name, [](char c) {
               return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '-' || c == '.';
           });
}

tl::unexpected<Error> failed(const std::string& what, int reason) {
    return error(reason == EACCES || reason == EPERM || reason == EROFS
                     ? ErrorCode::kPermissionDenied
                     : ErrorCode::kUnavailable,
                 "{}: {}", what, ::strerrordesc_np(reason));
}

Result<void> make_folder(const std::string& folder) {
    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(folder).parent_path(), ignored);
    if (::mkdir(folder.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
        return failed("the folder '" + folder + "' can't be made", errno);
    }
    return check_folder(folder, true);
}

/// The inode of the file written.
Result<std::uint64_t> write_file(const std::string& path, const std::string& text) {
    ::unlink(path.c_str());  // of a process with our number that did not get to its rename
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                          S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH);
    if (fd < 0) return failed("'" + path + "' can't be written", errno);
    struct stat status{};
    const ssize_t written = ::write(fd, text.data(), text.size());
    int reason = written < 0 ? errno : ENOSPC;
    bool ok = written == static_cast<ssize_t>(text.size());
    if (ok && ::fstat(fd, &status) != 0) {
        ok = false;
        reason = errno;
    }
    ::close(fd);
    if (ok) return status.st_ino;
    ::unlink(path.c_str());
    return failed("'" + path + "' can't be written", reason);
}

}  // namespace

Result<std::unique_ptr<Announcement>> Announcement::write(const std::string& folder,
                                                          const std::string& name,
                                                          const Candidate& candidate, FileKind of) {
    if (!is_name(name)) {
        return error(ErrorCode::kInvalidArgument,
                     "'{}' is no worker's name: 1 to {} letters, digits and _-., not a dot first",
                     name.substr(0, 80), kMaxName);
    }
    auto text = format_worker_file(candidate);
    if (!text) return tl::unexpected<Error>(std::move(text.error()));
    if (auto ok = make_folder(folder); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    const std::string path = folder + "/" + name + std::string(file_ending(of));
    const std::string before = folder + "/." + name + "." + std::to_string(::getpid()) + ".tmp";
    auto inode = write_file(before, *text);
    if (!inode) return tl::unexpected<Error>(std::move(inode.error()));
    if (::rename(before.c_str(), path.c_str()) != 0) {
        const int reason = errno;
        ::unlink(before.c_str());
        return failed("'" + path + "' can't be written", reason);
    }
    return std::unique_ptr<Announcement>(new Announcement(path, *inode));
}

Announcement::~Announcement() {
    struct stat status{};
    if (::lstat(path_.c_str(), &status) == 0 && status.st_ino == inode_) ::unlink(path_.c_str());
}

Result<std::string> default_folder() {
    const char* runtime = std::getenv("XDG_RUNTIME_DIR");  // NOLINT(concurrency-mt-unsafe)
    std::string folder = runtime != nullptr && runtime[0] == '/'
                             ? std::string(runtime) + "/stator"
                             : "/tmp/stator-" + std::to_string(::geteuid());
    const auto checked = check_folder(folder, false);
    if (!checked && checked.error().code != ErrorCode::kNotFound) {
        return tl::unexpected<Error>(checked.error());
    }
    return folder;
}

}  // namespace stator::discovery
