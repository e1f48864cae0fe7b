#include "stator/workload/options.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "stator/config/suggest.h"
#include "stator/config/value.h"
#include "stator/config/yaml_tree.h"

namespace stator::workload {
namespace {

using Setter = std::function<Result<void>(WorkloadOptions&, std::string_view)>;

struct Entry {
    OptionDescription description;
    Setter set;
};

Result<void> wrong(std::string_view text, std::string_view expected) {
    return error(ErrorCode::kInvalidArgument, "is {}; it must be {}", config::in_quotes(text),
                 expected);
}

template <typename T>
Setter whole(T WorkloadOptions::* member, std::uint64_t min, std::uint64_t max) {
    return [=](WorkloadOptions& o, std::string_view text) -> Result<void> {
        const auto n = config::parse_number(text);
        if (!n || *n != std::floor(*n) || *n < static_cast<double>(min) ||
            *n > static_cast<double>(max)) {
            return wrong(text, fmt::format("a whole number from {} to {}", min, max));
        }
        if constexpr (std::is_same_v<T, std::optional<std::uint32_t>>) {
            o.*member = static_cast<std::uint32_t>(*n);
        } else {
            o.*member = static_cast<T>(*n);
        }
        return {};
    };
}

Setter real(double WorkloadOptions::* member, double min, double max) {
    return [=](WorkloadOptions& o, std::string_view text) -> Result<void> {
        const auto n = config::parse_number(text);
        if (!n || *n < min || *n > max) {
            return wrong(text, fmt::format("a number from {} to {}", min, max));
        }
        o.*member = *n;
        return {};
    };
}

Setter time(double WorkloadOptions::* member) {
    return [=](WorkloadOptions& o, std::string_view text) -> Result<void> {
        const auto n = config::parse_seconds(text);
        if (!n || *n < 0 || *n > 1e7) return wrong(text, "a time such as 500ms, 30s or 2m");
        o.*member = *n;
        return {};
    };
}

Setter yes_or_no(bool WorkloadOptions::* member) {
    return [=](WorkloadOptions& o, std::string_view text) -> Result<void> {
        if (text != "true" && text != "false") return wrong(text, "true or false");
        o.*member = text == "true";
        return {};
    };
}

constexpr std::array<std::string_view, 7> kKinds{"fixed",    "shared-prefix", "chat",   "agent",
                                                 "mooncake", "azure",         "prompts"};
constexpr std::array<std::string_view, 5> kArrivals{"constant", "poisson", "gamma", "trace",
                                                    "closed"};

template <typename E, std::size_t N, typename Member>
Setter word(Member member, const std::array<std::string_view, N>& words) {
    return [member, &words](WorkloadOptions& o, std::string_view text) -> Result<void> {
        for (std::size_t i = 0; i < N; ++i) {
            if (words[i] != text) continue;
            o.*member = static_cast<E>(i);
            return {};
        }
        return wrong(text, fmt::format("one of {}", fmt::join(words, ", ")));
    };
}

std::vector<Entry> make_table() {
    using W = WorkloadOptions;
    constexpr std::uint64_t kMany = 1'000'000'000;
    constexpr double kHuge = 1e9;
    return {
        {{"kind", "KIND",
          "What the requests are: fixed lengths, shared-prefix groups, chat sessions of several "
          "turns, agent sessions with bursts of calls, a mooncake or azure trace, a file of "
          "prompts.",
          "fixed"},
         word<Kind>(&W::kind, kKinds)},
        {{"arrivals", "KIND",
          "When they start: constant, poisson or gamma gaps at a rate, a trace's own times, or "
          "closed (a fixed number at a time).",
          ""},
         word<Arrivals>(&W::arrivals, kArrivals)},
        {{"rate", "PER-SECOND", "Requests per second; sessions per second for chat and agent.",
          "1"},
         real(&W::rate, 1e-6, kHuge)},
        {{"rate-end", "PER-SECOND",
          "The rate goes evenly from --rate to this one over the run's duration; 0 keeps it.", "0"},
         real(&W::rate_end, 0, kHuge)},
        {{"cv", "NUMBER",
          "Coefficient of variation of gamma gaps: 1 is as irregular as poisson, more is "
          "burstier.",
          "1"},
         real(&W::cv, 0.01, 100)},
        {{"speed", "FACTOR", "A trace's times are divided by this: 2 plays it twice as fast.", "1"},
         real(&W::speed, 1e-6, kHuge)},
        {{"concurrency", "NUMBER", "Requests at a time, with closed arrivals.", "1"},
         whole(&W::concurrency, 1, 1'000'000)},
        {{"requests", "NUMBER", "End after so many requests; 0 means no such end.", "0"},
         whole(&W::requests, 0, kMany)},
        {{"duration", "TIME", "Start nothing later than this; 0 means no such end.", "0"},
         time(&W::duration_s)},
        {{"skip", "NUMBER", "Leave out so many requests at a trace's beginning.", "0"},
         whole(&W::skip, 0, kMany)},
        {{"isl", "TOKENS", "Length of a prompt; of what a user says in a turn of a chat.", "1000"},
         whole(&W::isl, 1, kMaxTokens)},
        {{"osl", "TOKENS", "Tokens to generate. For a trace: instead of what it says.", "100"},
         whole(&W::osl, 1, kMaxTokens)},
        {{"isl-cv", "NUMBER", "Spread of prompt lengths: their coefficient of variation.", "0"},
         real(&W::isl_cv, 0, 10)},
        {{"osl-cv", "NUMBER", "Spread of output lengths.", "0"}, real(&W::osl_cv, 0, 10)},
        {{"groups", "NUMBER", "Groups of prompts that begin alike; of chats with one system text.",
          "10"},
         whole(&W::groups, 1, kMany)},
        {{"prefix", "TOKENS", "How much of the prompts of a group is the same, within --isl.",
          "500"},
         whole(&W::prefix, 0, kMaxTokens)},
        {{"zipf", "EXPONENT",
          "How unequal the groups are: group k is chosen in proportion to k to the power of minus "
          "this; 0 makes them equal.",
          "0"},
         real(&W::zipf, 0, 10)},
        {{"turns", "NUMBER", "Turns of a chat; bursts of an agent.", "4"},
         whole(&W::turns, 1, 10'000)},
        {{"system", "TOKENS", "Length of a chat's system text, of an agent's common context.",
          "500"},
         whole(&W::system, 0, kMaxTokens)},
        {{"think-time", "TIME", "Mean time between an answer and the next turn.", "5s"},
         time(&W::think_s)},
        {{"calls", "NUMBER", "Parallel calls of an agent's burst.", "4"},
         whole(&W::calls, 1, 10'000)},
        {{"max-isl", "TOKENS", "Longer prompts of a trace are left out; 0 keeps them all.", "0"},
         whole(&W::max_isl, 0, kMaxTokens)},
        {{"skip-bad", "true|false", "Pass over bad lines of a trace and count them.", "false"},
         yes_or_no(&W::skip_bad)},
        {{"spread-ties", "true|false",
          "Requests of a trace that carry the same time start evenly until the next time: traces "
          "are often rounded to seconds.",
          "false"},
         yes_or_no(&W::spread_ties)},
        {{"images", "NUMBER", "Images in a request.", "0"}, whole(&W::images, 0, 100)},
        {{"image-share", "SHARE", "Share of the requests that have images.", "1"},
         real(&W::image_share, 0, 1)},
        {{"image-size", "PIXELS", "Width and height of an image.", "512"},
         whole(&W::image_size, 8, 8192)},
        {{"image-pool", "NUMBER", "Different images there are; 0 makes each a new one.", "0"},
         whole(&W::image_pool, 0, kMany)},
        {{"adapters", "NUMBER", "LoRA adapters adapter-1, adapter-2, … used in turn at random.",
          "0"},
         whole(&W::adapters, 0, 10'000)},
    };
}

const std::vector<Entry>& table() {
    static const std::vector<Entry> entries = make_table();
    return entries;
}

}  // namespace

std::span<const OptionDescription> option_descriptions() {
    static const std::vector<OptionDescription> descriptions = [] {
        std::vector<OptionDescription> all;
        for (const Entry& entry : table()) all.push_back(entry.description);
        return all;
    }();
    return descriptions;
}

Result<void> set_option(WorkloadOptions& options, std::string_view name, std::string_view text) {
    std::vector<std::string_view> names;
    for (const Entry& entry : table()) {
        if (entry.description.name != name) {
            names.push_back(entry.description.name);
            continue;
        }
        auto set = entry.set(options, text);
        if (set) return set;
        Error e = std::move(set.error());
        e.message = fmt::format("{} {}", name, e.message);
        e.param = std::string(name);
        return tl::unexpected(std::move(e));
    }
    return error(ErrorCode::kNotFound, "there is no option {} of a workload.{}",
                 config::in_quotes(name), config::did_you_mean(name, names));
}

}  // namespace stator::workload
