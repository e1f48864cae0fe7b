#include "stator/config/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "stator/base/check.h"
#include "stator/config/suggest.h"
#include "stator/config/value.h"
#include "stator/config/yaml_file.h"

namespace stator::config {
namespace {

constexpr std::string_view kPrefix = "STATOR_";

class Loader {
  public:
    Loader() { out_.origins.resize(options().size()); }

    void file(const Inputs::File& file) {
        FileReading reading = read_yaml(file.name, file.text);
        for (FileEntry& entry : reading.entries) {
            set(*entry.option, entry.value,
                {Source::kFile, fmt::format("{}:{}", file.name, entry.line)});
        }
        std::ranges::move(reading.problems, std::back_inserter(problems_));
    }

    void environment(const std::vector<std::pair<std::string, std::string>>& variables) {
        std::vector<std::string> names;
        for (const Option& o : options()) names.push_back(o.environment());
        for (const auto& [name, text] : variables) {
            if (!name.starts_with(kPrefix) || text.empty()) continue;
            const auto at = std::ranges::find(names, name);
            if (at != names.end()) {
                const Option& option = options()[static_cast<std::size_t>(at - names.begin())];
                text_value(option, text, {Source::kEnvironment, name});
            } else {
                unknown_variable(name, names);
            }
        }
    }

    void flags(const std::vector<FlagValue>& flags) {
        for (const FlagValue& flag : flags) {
            STATOR_CHECK(flag.option != nullptr && !flag.texts.empty(), "a flag without a value");
            const Origin origin{Source::kFlag, std::string(flag.option->flag)};
            if (flag.option->type == OptionType::kList) {
                text_value(*flag.option, fmt::format("{}", fmt::join(flag.texts, ",")), origin);
            } else {
                text_value(*flag.option, flag.texts.back(), origin);
            }
        }
    }

    /// What no option can know alone.
    void together() {
        const LimitSettings& limits = out_.settings.limits;
        if (limits.max_body_size > limits.max_buffered_bodies) {
            const Option& body = *find_option("limits.max_body_size");
            const Option& all = *find_option("limits.max_buffered_bodies");
            problems_.push_back(
                {place(body),
                 fmt::format("One body may have {}, but all of them together only {}; {} must be "
                             "at least as large as {}.",
                             format_value(body, body.get(out_.settings)),
                             format_value(all, all.get(out_.settings)), all.key, body.key)});
        }
        const MediaSettings& media = out_.settings.media;
        if (media.allow_private && media.hosts.empty()) {
            const Option& priv = *find_option("media.allow_private");
            const Option& hosts = *find_option("media.hosts");
            problems_.push_back(
                {place(priv),
                 fmt::format("{} alone would let everybody who may send a message read what only "
                             "this server can reach; name the hosts that are meant with {} ({}).",
                             priv.flag, hosts.flag, hosts.key)});
        }
    }

    tl::expected<Loaded, Problems> take() {
        if (!problems_.empty()) return tl::unexpected(std::move(problems_));
        return std::move(out_);
    }

  private:
    void set(const Option& option, const Value& value, Origin origin) {
        option.set(out_.settings, value);
        out_.origins[index_of(option)] = std::move(origin);
    }

    void text_value(const Option& option, std::string_view text, Origin origin) {
        const auto value = parse_value(option, text);
        if (!value) {
            problems_.push_back({origin.place, value.error().message + "."});
            return;
        }
        set(option, *value, std::move(origin));
    }

    /// Others have variables of that beginning too (STATOR_CACHE, what Kubernetes adds for a
    /// service): only what looks like a slip is worth a word.
    void unknown_variable(const std::string& name, const std::vector<std::string>& names) {
        std::vector<std::string_view> endings;
        for (const std::string& n : names)
            endings.push_back(std::string_view(n).substr(kPrefix.size()));
        const std::string_view meant =
            nearest(std::string_view(name).substr(kPrefix.size()), endings);
        if (meant.empty()) return;
        out_.warnings.push_back(
            {name, fmt::format("No option has this environment variable. Did you mean {}{}?",
                               kPrefix, meant)});
    }

    std::string place(const Option& option) const {
        const std::string& place = out_.origins[index_of(option)].place;
        return place.empty() ? std::string(option.key) : place;
    }

    Loaded out_;
    Problems problems_;
};

}  // namespace

std::string to_string(const Origin& origin) {
    return origin.source == Source::kDefault ? "default" : origin.place;
}

tl::expected<Loaded, Problems> load(const Inputs& inputs) {
    Loader loader;
    if (inputs.file) loader.file(*inputs.file);
    loader.environment(inputs.environment);
    loader.flags(inputs.flags);
    loader.together();
    return loader.take();
}

}  // namespace stator::config
