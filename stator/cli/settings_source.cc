#include "stator/cli/settings_source.h"

#include <unistd.h>

#include <cstdlib>
#include <string_view>
#include <utility>

#include "stator/cli/terminal.h"
#include "stator/cli/text_file.h"
#include "stator/config/yaml_file.h"

namespace stator::cli {

std::vector<std::pair<std::string, std::string>> stator_environment() {
    std::vector<std::pair<std::string, std::string>> out;
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string_view text(*entry);
        const auto equals = text.find('=');
        if (!text.starts_with("STATOR_") || equals == std::string_view::npos) continue;
        out.emplace_back(text.substr(0, equals), text.substr(equals + 1));
    }
    return out;
}

std::optional<config::Loaded> load_settings(std::string config_path,
                                            std::vector<config::FlagValue> flags) {
    config::Inputs inputs;
    inputs.environment = stator_environment();
    inputs.flags = std::move(flags);
    if (config_path.empty()) {
        const char* path = std::getenv("STATOR_CONFIG");
        config_path = path == nullptr ? "" : path;
    }
    if (!config_path.empty()) {
        auto text = read_text_file("The configuration file", config_path, config::kMaxFileBytes);
        if (!text) {
            print_problem(text.error());
            return std::nullopt;
        }
        inputs.file = {config_path, std::move(*text)};
    }
    auto loaded = config::load(inputs);
    if (!loaded) {
        for (const config::Problem& p : loaded.error()) print_problem(p.text());
        return std::nullopt;
    }
    for (const config::Problem& p : loaded->warnings) print_problem(p.text());
    return std::move(*loaded);
}

}  // namespace stator::cli
