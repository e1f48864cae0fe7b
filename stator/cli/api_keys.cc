#include "stator/cli/api_keys.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>

#include "stator/cli/text_file.h"
#include "stator/config/value.h"

namespace stator::cli {
namespace {

constexpr std::size_t kShortKey = 16;
constexpr std::size_t kLongestKey = 512;
constexpr std::size_t kMaxFileBytes = 1024 * 1024;

std::string_view trim(std::string_view s) {
    constexpr std::string_view kBlank = " \t\r";
    const auto first = s.find_first_not_of(kBlank);
    if (first == std::string_view::npos) return {};
    return s.substr(first, s.find_last_not_of(kBlank) - first + 1);
}

bool sendable(std::string_view key) {
    return key.size() <= kLongestKey &&
           std::ranges::all_of(key, [](char c) { return c > 0x20 && c < 0x7f; });
}

}  // namespace

Result<ApiKeys> parse_api_keys(std::string_view text) {
    ApiKeys out;
    for (int line = 1; !text.empty(); ++line) {
        const auto end = std::min(text.find('\n'), text.size());
        const std::string_view key = trim(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
        if (key.empty() || key.front() == '#') continue;
        if (!sendable(key)) {
            return error(ErrorCode::kInvalidArgument,
                         "line {} is no API key: a key is 1 to {} visible ASCII characters without "
                         "blanks",
                         line, kLongestKey);
        }
        if (std::ranges::find(out.keys, key) != out.keys.end()) {
            out.warnings.push_back(fmt::format("The API key in line {} is there twice.", line));
            continue;
        }
        if (key.size() < kShortKey) {
            out.warnings.push_back(fmt::format(
                "The API key in line {} has {} characters; with fewer than {} it may be "
                "guessed.",
                line, key.size(), kShortKey));
        }
        out.keys.emplace_back(key);
    }
    if (out.keys.empty()) {
        return error(ErrorCode::kInvalidArgument, "it has no API key; write one key a line");
    }
    return out;
}

Result<ApiKeys> read_api_keys(const std::string& path) {
    const auto text = read_text_file("The API key file", path, kMaxFileBytes);
    if (!text) return tl::unexpected(text.error());
    auto keys = parse_api_keys(*text);
    if (!keys) {
        return error(keys.error().code, "The API key file {} can't be used: {}.",
                     config::path_in_quotes(path), keys.error().message);
    }
    struct stat status{};
    if (::stat(path.c_str(), &status) == 0 && (status.st_mode & S_IROTH) != 0) {
        keys->warnings.push_back(fmt::format(
            "Everyone on this machine can read the API key file {}; chmod 600 keeps it to you.",
            config::path_in_quotes(path)));
    }
    return keys;
}

}  // namespace stator::cli
