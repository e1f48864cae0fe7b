#include "stator/cli/model_location.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include "stator/config/value.h"

namespace stator::cli {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? std::string() : std::string(value);
}

std::vector<fs::path> entries(const fs::path& folder) {
    std::vector<fs::path> out;
    std::error_code ec;
    for (fs::directory_iterator at(folder, ec), end; !ec && at != end; at.increment(ec))
        out.push_back(at->path());
    return out;
}

std::vector<std::string> models_in(const fs::path& folder) {
    std::vector<std::string> out;
    std::error_code ec;
    for (const fs::path& path : entries(folder)) {
        if (path.extension() == ".gguf" && fs::is_regular_file(path, ec))
            out.push_back(path.string());
    }
    return out;
}

std::vector<fs::path> folders_in(const fs::path& folder) {
    std::vector<fs::path> out;
    std::error_code ec;
    for (const fs::path& path : entries(folder)) {
        if (fs::is_directory(path, ec)) out.push_back(path);
    }
    return out;
}

}  // namespace

std::string model_folder() {
    if (const std::string own = variable("STATOR_CACHE"); !own.empty()) return own + "/models";
    if (const std::string xdg = variable("XDG_CACHE_HOME"); !xdg.empty())
        return xdg + "/stator/models";
    if (const std::string home = variable("HOME"); !home.empty())
        return home + "/.cache/stator/models";
    return {};
}

Result<std::string> find_default_model(const std::string& folder) {
    constexpr std::string_view kHow =
        "give one with --model FILE.gguf, or run ./dev serve in the source tree, which fetches a "
        "small "
        "one";
    const fs::path usual = fs::path(folder) / "default.gguf";
    std::error_code ec;
    if (!folder.empty() && fs::is_regular_file(usual, ec)) return usual.string();
    std::vector<std::string> found = models_in(folder);
    for (const fs::path& below : folders_in(folder)) {
        const std::vector<std::string> more = models_in(below);
        found.insert(found.end(), more.begin(), more.end());
    }
    if (found.size() == 1) return found.front();
    if (found.empty()) {
        return error(ErrorCode::kNotFound, "There is no model to serve{}: {}.",
                     folder.empty() ? "" : fmt::format(" in {}", config::path_in_quotes(folder)),
                     kHow);
    }
    std::ranges::sort(found);
    constexpr std::size_t kShown = 5;
    found.resize(std::min(found.size(), kShown));
    return error(ErrorCode::kInvalidArgument,
                 "There are several models in the cache folder; say which one with --model: {}.",
                 fmt::join(found, ", "));
}

std::string served_name(std::string_view name) {
    std::string out;
    for (const char c : name) {
        if (c >= 'A' && c <= 'Z') {
            out += static_cast<char>(c - 'A' + 'a');
        } else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_') {
            out += c;
        } else if (!out.empty() && out.back() != '-') {
            out += '-';
        }
    }
    while (!out.empty() && out.back() == '-') out.pop_back();
    return out.empty() ? "model" : out;
}

}  // namespace stator::cli
