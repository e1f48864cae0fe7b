#include "stator/cli/curve_keys.h"

#include <fmt/format.h>

#include <sstream>

#include "stator/cli/text_file.h"
#include "stator/config/value.h"

namespace stator::cli {
namespace {

constexpr std::size_t kMaxFileBytes = 256 * 1024;
constexpr std::size_t kKeyCharacters = 40;

Result<void> check_key(std::string_view key, const std::string& path, int line) {
    constexpr std::string_view kZ85 =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    if (key.size() == kKeyCharacters && key.find_first_not_of(kZ85) == std::string_view::npos) {
        return {};
    }
    return error(ErrorCode::kInvalidArgument,
                 "Line {} of {} has no key: one is 40 characters of Z85, as `stator events keygen` "
                 "prints them.",
                 line, config::path_in_quotes(path));
}

}  // namespace

Result<events::CurveKeys> read_curve_keys(const std::string& path) {
    const auto text = read_text_file("The key file for events", path, kMaxFileBytes);
    if (!text) return tl::unexpected(text.error());
    events::CurveKeys keys;
    std::istringstream lines(*text);
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number) {
        if (line.empty() || line.front() == '#') continue;
        const auto blank = line.find(' ');
        const std::string word = line.substr(0, blank);
        const std::string key = blank == std::string::npos ? "" : line.substr(blank + 1);
        if (word != "public" && word != "secret") {
            return error(ErrorCode::kInvalidArgument,
                         "Line {} of {} must begin with \"public\" or \"secret\".", number,
                         config::path_in_quotes(path));
        }
        if (auto ok = check_key(key, path, number); !ok) return tl::unexpected(ok.error());
        (word == "public" ? keys.public_key : keys.secret_key) = key;
    }
    if (keys.public_key.empty() || keys.secret_key.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "The key file {} must have a public and a secret key; `stator events keygen` "
                     "makes one.",
                     config::path_in_quotes(path));
    }
    return keys;
}

std::string format_curve_keys(const events::CurveKeys& keys) {
    return fmt::format("public {}\nsecret {}\n", keys.public_key, keys.secret_key);
}

Result<std::vector<std::string>> read_allowed_curve_keys(const std::string& path) {
    const auto text = read_text_file("The list of keys that may subscribe", path, kMaxFileBytes);
    if (!text) return tl::unexpected(text.error());
    std::vector<std::string> keys;
    std::istringstream lines(*text);
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number) {
        if (line.starts_with("public ")) line.erase(0, 7);
        // '#' is a character of Z85: only a line that is no key can be a comment.
        if (line.empty() || (line.front() == '#' && line.size() != kKeyCharacters)) continue;
        if (auto ok = check_key(line, path, number); !ok) return tl::unexpected(ok.error());
        keys.push_back(line);
    }
    if (keys.empty()) {
        return error(ErrorCode::kInvalidArgument, "The list of keys {} is empty.",
                     config::path_in_quotes(path));
    }
    return keys;
}

}  // namespace stator::cli
