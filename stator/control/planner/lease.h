#pragma once

#include <string>

namespace stator::control {

/// "Only one at a time", among processes that see one file system: a lock on a file, which the
/// kernel gives back when its holder ends, however that happens. Not thread-safe.
class FileLease {
  public:
    /// Empty path: always held.
    explicit FileLease(std::string path) : path_(std::move(path)) {}
    ~FileLease();
    FileLease(const FileLease&) = delete;
    FileLease& operator=(const FileLease&) = delete;

    /// Whether it is held, after trying to get it if it was not.
    [[nodiscard]] bool held();
    /// Why it is not, for people.
    [[nodiscard]] const std::string& reason() const { return reason_; }

  private:
    const std::string path_;
    int fd_ = -1;
    std::string reason_;
};

}  // namespace stator::control
