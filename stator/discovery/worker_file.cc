#include "stator/discovery/worker_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace stator::discovery {
namespace {

constexpr std::size_t kMaxLabels = 64;

bool is_label(std::string_view name) {
    return !name.empty() && name.size() <= 63 && std::ranges::all_of(name, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-' || c == '.' || c == '/';
    });
}

bool is_value(std::string_view value) {
    return std::ranges::none_of(
        value, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

}  // namespace

Result<Candidate> parse_worker_file(std::string_view text) {
    if (text.size() > kMaxFileBytes) {
        return error(ErrorCode::kInvalidArgument, "it has more than {} bytes", kMaxFileBytes);
    }
    Candidate candidate;
    for (std::size_t line_number = 1; !text.empty(); ++line_number) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (line_number == 1) {
            auto address = net::parse_socket_address(line);
            if (!address) return tl::unexpected<Error>(address.error());
            candidate.address = *std::move(address);
            continue;
        }
        if (line.empty()) continue;
        const std::size_t equals = line.find('=');
        if (equals == std::string_view::npos || !is_label(line.substr(0, equals)) ||
            !is_value(line.substr(equals + 1))) {
            return error(ErrorCode::kInvalidArgument, "line {} is not label=value", line_number);
        }
        if (candidate.labels.size() == kMaxLabels) {
            return error(ErrorCode::kInvalidArgument, "it has more than {} labels", kMaxLabels);
        }
        if (!candidate.labels.emplace(line.substr(0, equals), line.substr(equals + 1)).second) {
            return error(ErrorCode::kInvalidArgument, "line {} repeats a label", line_number);
        }
    }
    if (candidate.address == net::SocketAddress{}) {
        return error(ErrorCode::kInvalidArgument, "it is empty; its first line is an address");
    }
    return candidate;
}

Result<std::string> format_worker_file(const Candidate& candidate) {
    std::string text = to_string(candidate.address) + "\n";
    for (const auto& [label, value] : candidate.labels) {
        if (!is_label(label) || !is_value(value)) {
            return error(ErrorCode::kInvalidArgument,
                         "'{}={}' is no label: letters, digits and _-./ before the '=', no control "
                         "characters behind it",
                         label.substr(0, 80), value.substr(0, 80));
        }
        text += label + "=" + value + "\n";
    }
    auto read = parse_worker_file(text);
    if (!read) {
        return error(ErrorCode::kInvalidArgument, "a worker can't be announced: {}",
                     read.error().message);
    }
    return text;
}

Result<void> check_folder(const std::string& path, bool group_too) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode) && status.st_uid != 0 &&
        status.st_uid != ::geteuid()) {
        return error(ErrorCode::kPermissionDenied, "'{}' is a link that another user has made",
                     path);
    }
    if (::stat(path.c_str(), &status) != 0) {
        const int reason = errno;
        return error(reason == EACCES ? ErrorCode::kPermissionDenied : ErrorCode::kNotFound,
                     "the folder '{}' can't be looked at: {}", path, ::strerrordesc_np(reason));
    }
    if (!S_ISDIR(status.st_mode)) {
        return error(ErrorCode::kInvalidArgument, "'{}' is no folder", path);
    }
    if (status.st_uid != 0 && status.st_uid != ::geteuid()) {
        return error(ErrorCode::kPermissionDenied,
                     "the folder '{}' belongs to user {}, who could send our requests anywhere; it "
                     "must belong to user {} or root",
                     path, status.st_uid, ::geteuid());
    }
    const mode_t forbidden = S_IWOTH | (group_too ? 0U : S_IWGRP);
    if ((status.st_mode & forbidden) != 0) {
        return error(ErrorCode::kPermissionDenied,
                     "others may write into the folder '{}' (mode {:04o}) and could send our "
                     "requests anywhere; chmod go-w it",
                     path, status.st_mode & 07777U);
    }
    return {};
}

}  // namespace stator::discovery
