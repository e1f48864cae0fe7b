#include "stator/cli/text_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "stator/config/value.h"
#include "stator/runtime/descriptor.h"

namespace stator::cli {
namespace {

using runtime::Descriptor;

std::string reason(int code) { return std::generic_category().message(code); }

ErrorCode code_of(int code) {
    if (code == ENOENT || code == ENOTDIR) return ErrorCode::kNotFound;
    if (code == EACCES || code == EPERM) return ErrorCode::kPermissionDenied;
    return ErrorCode::kInvalidArgument;
}

}  // namespace

Result<std::string> read_text_file(std::string_view what, const std::string& path,
                                   std::size_t max_bytes) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) {
        return error(code_of(errno), "{} {} can't be opened: {}.", what,
                     config::path_in_quotes(path), reason(errno));
    }
    std::string text;
    std::array<char, 16'384> buffer{};
    while (true) {
        const ssize_t n = ::read(file.get(), buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            return error(code_of(errno), "{} {} can't be read: {}.", what,
                         config::path_in_quotes(path), reason(errno));
        }
        if (n == 0) return text;
        text.append(buffer.data(), static_cast<std::size_t>(n));
        if (text.size() > max_bytes) {
            return error(ErrorCode::kTooLarge, "{} {} has more than {} bytes; that can't be right.",
                         what, config::path_in_quotes(path), max_bytes);
        }
    }
}

Result<std::string> read_key_line(std::string_view flag, const std::string& path) {
    if (path.empty()) return std::string();
    constexpr std::size_t kMaxKeyFile = 64 * 1024;
    auto text = read_text_file(fmt::format("The file of {}", flag), path, kMaxKeyFile);
    if (!text) return tl::unexpected(text.error());
    std::string key = text->substr(0, text->find_first_of("\r\n"));
    if (!key.empty()) return key;
    return error(ErrorCode::kInvalidArgument, "{} {} has no key in its first line.", flag,
                 config::in_quotes(path));
}

Result<void> write_file_at_once(std::string_view what, const std::string& path,
                                std::string_view content) {
    const auto failed = [&](int code) {
        return error(ErrorCode::kUnavailable, "{} {} can't be written: {}.", what,
                     config::path_in_quotes(path), reason(code));
    };
    const std::string fresh = fmt::format("{}.{}", path, ::getpid());
    Descriptor file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (file.get() < 0) return failed(errno);
    while (!content.empty()) {
        const ssize_t n = ::write(file.get(), content.data(), content.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            const int code = errno;
            ::unlink(fresh.c_str());
            return failed(code);
        }
        content.remove_prefix(static_cast<std::size_t>(n));
    }
    if (file.close() != 0 || std::rename(fresh.c_str(), path.c_str()) != 0) {
        const int code = errno;
        ::unlink(fresh.c_str());
        return failed(code);
    }
    return {};
}

}  // namespace stator::cli
