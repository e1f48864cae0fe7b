#pragma once

#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

#include "stator/config/options.h"
#include "stator/config/problem.h"
#include "stator/config/settings.h"

namespace stator::config {

/// Where a value comes from; a later source wins over an earlier one.
enum class Source : std::uint8_t { kDefault, kFile, kEnvironment, kFlag };

struct Origin {
    Source source = Source::kDefault;
    std::string place;  ///< "stator.yaml:12", "STATOR_PORT", "--port"; empty for a default
    bool operator==(const Origin&) const = default;
};
/// "default", or the place.
[[nodiscard]] std::string to_string(const Origin& origin);

struct FlagValue {
    const Option* option = nullptr;
    std::vector<std::string> texts;  ///< as given, in order; for all but lists the last one counts
};

/// Everything that may set an option. This room reads neither files nor the environment itself.
struct Inputs {
    struct File {
        std::string name;  ///< as it should stand in messages
        std::string text;
    };
    std::optional<File> file;
    std::vector<std::pair<std::string, std::string>>
        environment;  ///< names that begin with STATOR_; others are ignored
    std::vector<FlagValue> flags;
};

struct Loaded {
    Settings settings;
    std::vector<Origin> origins;  ///< one for each of options(), in its order
    Problems warnings;            ///< what does not keep the program from starting
};

/// Default < file < environment < flag. Reports all problems, not the first alone. An empty
/// environment variable counts as not set.
[[nodiscard]] tl::expected<Loaded, Problems> load(const Inputs& inputs);

}  // namespace stator::config
