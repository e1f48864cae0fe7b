#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/discovery/source.h"

// The folder in which workers and frontends announce themselves, and the files in it; see
// docs/discovery.md.
namespace stator::discovery {

constexpr std::size_t kMaxFileBytes = 4096;
[[nodiscard]] constexpr std::string_view file_ending(FileKind of) {
    return of == FileKind::kWorker ? ".worker" : ".frontend";
}

/// kInvalidArgument names the line.
[[nodiscard]] Result<Candidate> parse_worker_file(std::string_view text);
/// parse_worker_file() reads it. kInvalidArgument where a label does not fit or it is too long.
[[nodiscard]] Result<std::string> format_worker_file(const Candidate& candidate);

/// kPermissionDenied where the folder is neither ours nor root's, or others than its owner (and,
/// unless `group_too`, its group) may write into it; kNotFound where there is none.
[[nodiscard]] Result<void> check_folder(const std::string& path, bool group_too);

}  // namespace stator::discovery
