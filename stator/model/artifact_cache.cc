#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "stator/base/log.h"
#include "stator/model/artifacts.h"
#include "stator/model/sha256.h"

namespace stator::model {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemporary = ".artifact-";
/// Temporary files older than this belong to a process that died.
constexpr auto kAbandonedAfter = std::chrono::hours(1);

/// Digests come from other machines and become file names.
bool is_digest(std::string_view s) {
    return s.size() == 64 && std::ranges::all_of(s, [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
           });
}

bool write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const auto n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
}

/// Writes `bytes` under `path` at once. False, with errno, where it does not come about.
bool write_at_once(const std::string& folder, const std::string& path, std::string_view bytes) {
    std::error_code ec;
    if (fs::create_directories(folder, ec)) ::chmod(folder.c_str(), S_IRWXU);
    std::string temporary = folder + "/" + std::string(kTemporary) + "XXXXXX";
    const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
    if (fd < 0) return false;
    bool done = write_all(fd, bytes);
    int reason = errno;
    if (::close(fd) != 0 && done) {
        done = false;
        reason = errno;
    }
    if (done && ::rename(temporary.c_str(), path.c_str()) == 0) return true;
    if (done) reason = errno;
    ::unlink(temporary.c_str());
    errno = reason;
    return false;
}

/// Removes the files unused for longest until the rest fits; `kept` stays in any case. Other
/// processes may do the same at the same time: a file that is gone already is no error.
void forget_oldest(const std::string& folder, const std::string& kept, std::uint64_t max_bytes) {
    struct File {
        fs::file_time_type used;
        std::uint64_t bytes;
        fs::path path;
    };
    std::error_code ec;
    const auto newest = fs::last_write_time(kept, ec);
    if (ec) return;
    std::vector<File> files;
    std::uint64_t total = 0;
    for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
        std::error_code gone;
        const std::string name = it->path().filename().string();
        const auto used = it->last_write_time(gone);
        const std::uint64_t bytes = gone ? 0 : it->file_size(gone);
        if (gone) continue;
        if (is_digest(name)) {
            total += bytes;
            if (it->path() != fs::path(kept)) files.push_back({used, bytes, it->path()});
        } else if (name.starts_with(kTemporary) && newest - used > kAbandonedAfter) {
            fs::remove(it->path(), gone);
        }
    }
    std::ranges::sort(files, {}, &File::used);
    for (const File& file : files) {
        if (total <= max_bytes) return;
        fs::remove(file.path, ec);
        total -= file.bytes;
    }
}

}  // namespace

ArtifactCache::ArtifactCache(std::string folder, std::uint64_t max_bytes)
    : folder_(std::move(folder)), max_bytes_(max_bytes) {}

std::optional<std::string> ArtifactCache::find(const protocol::Artifact& artifact) const {
    if (!is_digest(artifact.sha256)) return std::nullopt;
    const std::string path = folder_ + "/" + artifact.sha256;
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) return std::nullopt;
    const std::streamoff size = file.tellg();
    std::string bytes;
    bool good = size >= 0 && static_cast<std::uint64_t>(size) == artifact.bytes;
    if (good) {
        bytes.resize(static_cast<std::size_t>(size));
        file.seekg(0);
        file.read(bytes.data(), size);
        good = file.gcount() == size && sha256_hex(bytes) == artifact.sha256;
    }
    if (!good) {
        log_warn("A cached artifact is not what its name says and is removed.", {{"path", path}});
        ::unlink(path.c_str());
        return std::nullopt;
    }
    ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // used now
    return bytes;
}

Result<void> ArtifactCache::put(const protocol::Artifact& artifact, std::string_view bytes) {
    if (!is_digest(artifact.sha256) || bytes.size() != artifact.bytes ||
        sha256_hex(bytes) != artifact.sha256) {
        return error(ErrorCode::kDataLoss,
                     "an artifact of the kind '{}' has {} bytes that are not the {} with the "
                     "digest '{}'",
                     artifact.kind.substr(0, 64), bytes.size(), artifact.bytes,
                     artifact.sha256.substr(0, 64));
    }
    if (bytes.size() > max_bytes_) {
        log_debug("An artifact is larger than the cache and is not kept.",
                  {{"bytes", bytes.size()}, {"cache_bytes", max_bytes_}});
        return {};
    }
    const std::string path = folder_ + "/" + artifact.sha256;
    if (!write_at_once(folder_, path, bytes)) {
        log_warn("An artifact can't be cached; it will be fetched again.",
                 {{"path", path}, {"reason", std::strerror(errno)}});
        return {};
    }
    forget_oldest(folder_, path, max_bytes_);
    return {};
}

}  // namespace stator::model
