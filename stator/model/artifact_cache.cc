#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "stator/base/log.h"
#include "stator/model/artifacts.h"
#include "stator/model/sha256.h"

namespace stator::model {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemporary = ".stator-artifact-";
/// A temporary file this much older than one just written was left by a process that died.
constexpr auto kTemporaryLives = std::chrono::hours(1);

struct Descriptor {
    explicit Descriptor(int f) : fd(f) {}
    ~Descriptor() {
        if (fd >= 0) ::close(fd);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int fd;
};

std::optional<std::string> read_exactly(int fd, std::uint64_t bytes) {
    struct stat status{};
    if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
    if (std::cmp_not_equal(status.st_size, bytes)) return std::nullopt;
    std::string out(bytes, '\0');
    for (std::size_t at = 0; at < out.size();) {
        const ssize_t n = ::read(fd, out.data() + at, out.size() - at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return std::nullopt;
        at += static_cast<std::size_t>(n);
    }
    return out;
}

bool write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
}

/// The reason, where it did not work.
std::error_code write_file_at_once(const std::string& folder, const std::string& name,
                                   std::string_view bytes) {
    std::error_code ec;
    if (const auto parent = fs::path(folder).parent_path(); !parent.empty()) {
        fs::create_directories(parent, ec);
    }
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
        return {errno, std::generic_category()};
    }
    std::string temporary = fmt::format("{}/{}XXXXXX", folder, kTemporary);
    const Descriptor file(::mkostemp(temporary.data(), O_CLOEXEC));
    if (file.fd < 0) return {errno, std::generic_category()};
    // Not synced: what a crash leaves half written is found out by its digest.
    if (write_all(file.fd, bytes) &&
        ::rename(temporary.c_str(), (folder + '/' + name).c_str()) == 0)
        return {};
    ec = {errno, std::generic_category()};
    ::unlink(temporary.c_str());
    return ec;
}

struct Kept {
    fs::path path;
    fs::file_time_type used;
    std::uint64_t bytes = 0;
};

/// Looks at files of ours alone: the folder may be anyone's.
void forget_oldest(const std::string& folder, const std::string& newest, std::uint64_t max_bytes) {
    std::error_code ec;
    const auto now = fs::last_write_time(fs::path(folder) / newest, ec);
    if (ec) return;
    std::vector<Kept> kept;
    std::uint64_t total = 0;
    for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
        // Other processes remove files too; what is gone meanwhile is skipped.
        std::error_code gone;
        if (!it->is_regular_file(gone) || gone) continue;
        const std::string name = it->path().filename().string();
        const auto used = it->last_write_time(gone);
        const std::uint64_t bytes = gone ? 0 : it->file_size(gone);
        if (gone) continue;
        if (name.starts_with(kTemporary)) {
            if (now - used > kTemporaryLives) fs::remove(it->path(), gone);
        } else if (is_sha256_hex(name)) {
            total += bytes;
            if (name != newest) kept.push_back({it->path(), used, bytes});
        }
    }
    std::ranges::sort(kept, {}, &Kept::used);
    for (const Kept& k : kept) {
        if (total <= max_bytes) return;
        std::error_code ignored;
        fs::remove(k.path, ignored);
        total -= k.bytes;
    }
}

}  // namespace

ArtifactCache::ArtifactCache(std::string folder, std::uint64_t max_bytes)
    : folder_(std::move(folder)), max_bytes_(max_bytes) {}

std::optional<std::string> ArtifactCache::find(const protocol::Artifact& artifact) const {
    if (!is_sha256_hex(artifact.sha256) || artifact.bytes > max_bytes_) return std::nullopt;
    const std::string path = folder_ + '/' + artifact.sha256;
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (file.fd < 0) return std::nullopt;
    auto bytes = read_exactly(file.fd, artifact.bytes);
    if (!bytes || sha256_hex(*bytes) != artifact.sha256) {
        log_warn("A cached artifact is not what its name says; it is removed.", {{"file", path}});
        ::unlink(path.c_str());
        return std::nullopt;
    }
    ::futimens(file.fd, nullptr);  // used just now: the last to be forgotten
    return bytes;
}

Result<void> ArtifactCache::put(const protocol::Artifact& artifact, std::string_view bytes) {
    if (!is_sha256_hex(artifact.sha256) || bytes.size() != artifact.bytes ||
        sha256_hex(bytes) != artifact.sha256) {
        return error(ErrorCode::kDataLoss,
                     "an artifact of kind '{}' came as {} bytes that do not have its digest",
                     artifact.kind, bytes.size());
    }
    if (bytes.size() > max_bytes_) return {};
    if (const auto reason = write_file_at_once(folder_, artifact.sha256, bytes)) {
        if (!warned_.exchange(true)) {
            log_warn("Artifacts can't be kept on disk; they are fetched again after a restart.",
                     {{"folder", folder_}, {"reason", reason.message()}});
        }
        return {};
    }
    forget_oldest(folder_, artifact.sha256, max_bytes_);
    return {};
}

}  // namespace stator::model
