#include "stator/cli/api_keys.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>

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

struct Owner {
    std::string tenant;
    std::optional<double> weight;
    bool trusted = false;
};

/// What follows a key in its line.
std::optional<Owner> read_owner(std::string_view rest) {
    constexpr std::size_t kLongestName = 256;
    constexpr std::string_view kTenant = "tenant=";
    constexpr std::string_view kWeight = "weight=";
    Owner out;
    while (!(rest = trim(rest)).empty()) {
        const auto end = std::min(rest.find_first_of(" \t"), rest.size());
        std::string_view word = rest.substr(0, end);
        rest.remove_prefix(end);
        if (word.starts_with(kTenant)) {
            word.remove_prefix(kTenant.size());
            if (word.empty() || word.size() > kLongestName || !sendable(word)) return std::nullopt;
            out.tenant = word;
        } else if (word.starts_with(kWeight)) {
            word.remove_prefix(kWeight.size());
            out.weight = read_tenant_weight(word);
            if (!out.weight) return std::nullopt;
        } else if (word == "hints=yes" || word == "hints=no") {
            out.trusted = word == "hints=yes";
        } else {
            return std::nullopt;
        }
    }
    return out;
}

}  // namespace

std::optional<double> read_tenant_weight(std::string_view text) {
    double weight = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), weight);
    const bool whole = failed == std::errc{} && end == text.data() + text.size();
    if (!whole || !(weight >= 0.001 && weight <= 1000)) return std::nullopt;
    return weight;
}

Result<ApiKeys> parse_api_keys(std::string_view text) {
    ApiKeys out;
    for (int line = 1; !text.empty(); ++line) {
        const auto end = std::min(text.find('\n'), text.size());
        const std::string_view whole = trim(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
        if (whole.empty() || whole.front() == '#') continue;
        const auto blank = std::min(whole.find_first_of(" \t"), whole.size());
        const std::string_view key = whole.substr(0, blank);
        const auto owner = read_owner(whole.substr(blank));
        if (!sendable(key) || !owner) {
            return error(ErrorCode::kInvalidArgument,
                         "line {} is no API key: a key is 1 to {} visible ASCII characters without "
                         "blanks; tenant=NAME, weight=NUMBER and hints=yes may follow it",
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
        out.tenants.push_back(owner->tenant.empty() ? fmt::format("key-{}", out.keys.size())
                                                    : owner->tenant);
        out.trusted.push_back(owner->trusted);
        if (owner->weight) out.weights.emplace_back(out.tenants.back(), *owner->weight);
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
