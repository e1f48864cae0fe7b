#include <dirent.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "stator/base/log.h"
#include "stator/discovery/sources.h"
#include "stator/discovery/worker_file.h"
#include "stator/runtime/asio.h"

namespace stator::discovery {
namespace {

namespace asio = boost::asio;

constexpr std::uint32_t kEvents = IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CLOSE_WRITE |
                                  IN_DELETE_SELF | IN_MOVE_SELF | IN_ATTRIB | IN_ONLYDIR;
// A burst of changes is one look.
constexpr std::chrono::milliseconds kGather{20};
// A folder that is not there can't be watched; and on a network's file system nobody tells us what
// other machines do.
constexpr std::chrono::milliseconds kLookForFolder{250};
constexpr std::chrono::milliseconds kLookAnyway{5'000};

/// Which writing of a file this is.
struct Version {
    std::uint64_t inode = 0;
    std::int64_t size = 0;
    std::int64_t seconds = 0;
    std::int64_t nanoseconds = 0;
    bool operator==(const Version&) const = default;

    static Version of(const struct stat& status) {
        return {status.st_ino, status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
    }
};

struct Entry {
    Version version;
    std::optional<Candidate> candidate;  ///< none: the file is bad
    bool said_bad = false;
};

std::string reason_of(int error) { return ::strerrordesc_np(error); }

Result<Candidate> read_worker_file(int folder, const std::string& name) {
    // Not blocking: a FIFO of that name must not hold up the loop.
    const int fd = ::openat(folder, name.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return error(ErrorCode::kUnavailable, "{}", reason_of(errno));
    std::array<char, kMaxFileBytes + 1> text{};
    struct stat status{};
    const bool regular = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    const ssize_t n = regular ? ::read(fd, text.data(), text.size()) : -1;
    const int reason = errno;
    ::close(fd);
    if (!regular) return error(ErrorCode::kInvalidArgument, "it is not a plain file");
    if (n < 0) return error(ErrorCode::kUnavailable, "{}", reason_of(reason));
    return parse_worker_file({text.data(), static_cast<std::size_t>(n)});
}

class DirectorySource final : public SourceBase {
  public:
    DirectorySource(const std::string& folder, FileKind of, runtime::Loop& loop, Changes changes)
        : SourceBase("directory:" + folder, loop, std::move(changes)),
          folder_(folder),
          ending_(file_ending(of)),
          inotify_(runtime::asio_context(loop)),
          gather_(runtime::asio_context(loop)),
          look_again_(runtime::asio_context(loop)) {}

    void start() override {
        const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (fd >= 0) {
            inotify_.assign(fd);
            wait_for_events();
        }  // without it the regular look has to do
        look();
    }

  private:
    std::shared_ptr<DirectorySource> self() {
        return std::static_pointer_cast<DirectorySource>(shared_from_this());
    }

    void wait_for_events();
    void look_soon();
    void look();
    [[nodiscard]] Result<void> watch();
    [[nodiscard]] Result<std::vector<Candidate>> read_folder();
    void read_entry(int folder, const std::string& name, std::map<std::string, Entry>& entries);

    void on_stop() override {
        boost::system::error_code ignored;
        inotify_.close(ignored);
        gather_.cancel();
        look_again_.cancel();
    }

    const std::string folder_;
    const std::string_view ending_;
    asio::posix::stream_descriptor inotify_;
    asio::steady_timer gather_;
    asio::steady_timer look_again_;
    bool gathering_ = false;
    int watch_ = -1;
    std::map<std::string, Entry> entries_;
};

void DirectorySource::wait_for_events() {
    inotify_.async_wait(
        asio::posix::stream_descriptor::wait_read,
        [self = self()](const boost::system::error_code& ec) {
            if (ec || self->stopped()) return;
            // What happened does not matter: the folder is looked at anyway.
            std::array<char, 16 * 1024> events;
            while (::read(self->inotify_.native_handle(), events.data(), events.size()) > 0) {
            }
            self->look_soon();
            self->wait_for_events();
        });
}

void DirectorySource::look_soon() {
    if (std::exchange(gathering_, true)) return;
    gather_.expires_after(kGather);
    gather_.async_wait([self = self()](const boost::system::error_code& ec) {
        self->gathering_ = false;
        if (!ec && !self->stopped()) self->look();
    });
}

/// Watching begins before reading, so that nothing happens in between unseen.
void DirectorySource::look() {
    auto outcome = watch();
    Result<std::vector<Candidate>> found;
    if (outcome) {
        found = read_folder();
        if (!found) outcome = tl::unexpected<Error>(found.error());
    }
    look_again_.expires_after(outcome ? kLookAnyway : kLookForFolder);
    look_again_.async_wait([self = self()](const boost::system::error_code& ec) {
        if (!ec && !self->stopped()) self->look();
    });
    if (outcome) {
        succeeded();
        tell(*std::move(found));
    } else {
        failed(outcome.error().message);
    }
}

Result<void> DirectorySource::watch() {
    if (auto ok = check_folder(folder_, true); !ok) return ok;
    if (!inotify_.is_open()) return {};
    // The same folder gives the same number and no second watch; one that has taken its place, a
    // new one.
    const int watch = ::inotify_add_watch(inotify_.native_handle(), folder_.c_str(), kEvents);
    if (watch < 0 && errno == ENOENT) {
        return error(ErrorCode::kNotFound, "the folder '{}' is gone", folder_);
    }
    if (watch != watch_ && watch_ >= 0) ::inotify_rm_watch(inotify_.native_handle(), watch_);
    watch_ = watch;
    return {};
}

Result<std::vector<Candidate>> DirectorySource::read_folder() {
    DIR* open = ::opendir(folder_.c_str());
    if (open == nullptr) {
        return error(ErrorCode::kUnavailable, "the folder '{}' can't be read: {}", folder_,
                     reason_of(errno));
    }
    const std::unique_ptr<DIR, int (*)(DIR*)> owner(open, &::closedir);
    std::map<std::string, Entry> entries;
    while (const dirent* entry = ::readdir(open)) {  // NOLINT(concurrency-mt-unsafe): own DIR
        const std::string name = entry->d_name;
        if (name.starts_with('.') || !name.ends_with(ending_)) continue;
        read_entry(::dirfd(open), name, entries);
        if (entries.size() > kMaxCandidates) break;  // one more, so that it is noticed
    }
    entries_ = std::move(entries);
    std::vector<Candidate> candidates;
    for (const auto& [name, entry] : entries_) {
        if (entry.candidate) candidates.push_back(*entry.candidate);
    }
    return candidates;
}

/// Only what has been written since the last look is read.
void DirectorySource::read_entry(int folder, const std::string& name,
                                 std::map<std::string, Entry>& entries) {
    struct stat status{};
    if (::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return;  // just gone
    Entry entry;
    if (const auto known = entries_.find(name); known != entries_.end()) entry = known->second;
    const Version version = Version::of(status);
    if (!(entry.version == version)) {
        entry.version = version;
        auto read = read_worker_file(folder, name);
        entry.candidate.reset();
        if (read) {
            entry.candidate = *std::move(read);
        } else if (!std::exchange(entry.said_bad, true)) {
            log_warn("A worker's file can't be used and is skipped.",
                     {{"file", folder_ + "/" + name}, {"reason", read.error().message}});
        }
    }
    entries.emplace(name, std::move(entry));
}

}  // namespace

std::shared_ptr<SourceBase> make_directory_source(std::string folder, FileKind of,
                                                  runtime::Loop& loop, Source::Changes changes) {
    return std::make_shared<DirectorySource>(folder, of, loop, std::move(changes));
}

}  // namespace stator::discovery
