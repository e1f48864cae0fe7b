#include "stator/cli/bench_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <utility>

#include "stator/cli/api_keys.h"
#include "stator/cli/command_line.h"
#include "stator/cli/help.h"
#include "stator/codec/json.h"
#include "stator/config/value.h"
#include "stator/config/yaml_tree.h"

namespace stator::cli {
namespace {

using Setter = std::function<Result<void>(BenchOptions&, const std::string&)>;

struct Flag {
    std::string_view section;
    std::string_view name;
    std::string_view value;
    std::string_view meaning;
    Setter set;
};

tl::unexpected<Error> wrong(const std::string& text, std::string_view expected) {
    return error(ErrorCode::kInvalidArgument, "is {}; it must be {}", config::in_quotes(text),
                 expected);
}

Setter text(std::string BenchOptions::* member) {
    return [member](BenchOptions& o, const std::string& t) -> Result<void> {
        o.*member = t;
        return {};
    };
}

template <typename F>
Setter number(double min, double max, bool whole, F store) {
    return [=](BenchOptions& o, const std::string& t) -> Result<void> {
        const auto n = config::parse_number(t);
        if (!n || *n < min || *n > max || (whole && *n != std::floor(*n))) {
            return wrong(t,
                         fmt::format("a {}number from {} to {}", whole ? "whole " : "", min, max));
        }
        store(o, *n);
        return {};
    };
}

template <typename F>
Setter time(F store) {
    return [=](BenchOptions& o, const std::string& t) -> Result<void> {
        constexpr double kLongest = 1e6;
        const auto seconds = config::parse_seconds(t);
        if (!seconds || *seconds < 0 || *seconds > kLongest) {
            return wrong(t, "a time such as 50ms, 2s or 5m");
        }
        store(o, *seconds);
        return {};
    };
}

std::chrono::milliseconds ms(double seconds) {
    return std::chrono::milliseconds(std::max<std::int64_t>(1, std::llround(seconds * 1e3)));
}

Result<void> set_api(BenchOptions& o, const std::string& t) {
    constexpr std::array<std::string_view, 3> kWords{"chat", "completions", "tokens"};
    const auto at = std::ranges::find(kWords, t);
    if (at == kWords.end()) return wrong(t, fmt::format("one of {}", fmt::join(kWords, ", ")));
    o.server.api = static_cast<loadgen::Api>(at - kWords.begin());
    return {};
}

Result<void> set_key_file(BenchOptions& o, const std::string& path) {
    auto keys = read_api_keys(path);
    if (!keys) return tl::unexpected(std::move(keys.error()));
    o.server.api_key = keys->keys.front();
    return {};
}

Result<void> set_itl_rule(BenchOptions& o, const std::string& t) {
    if (t != "mean" && t != "p99") return wrong(t, "mean or p99");
    o.slo.itl_rule = t == "mean" ? report::ItlRule::kMean : report::ItlRule::kP99;
    return {};
}

/// An object's members, as they stand between its braces.
Result<void> set_body(BenchOptions& o, const std::string& t) {
    codec::JsonDocument json;
    const auto root = json.parse(t);
    if (!root) return tl::unexpected(root.error());
    if (root->type() != codec::JsonType::kObject) {
        return wrong(t, R"(a JSON object such as {"temperature":0})");
    }
    std::string whole;
    root->write_to(whole);
    o.server.extra = whole.substr(1, whole.size() - 2);
    return {};
}

constexpr std::string_view kServer = "Server";
constexpr std::string_view kLimits = "What counts as good";
constexpr std::string_view kRunning = "Running";
constexpr std::string_view kOutput = "Output";

std::vector<Flag> server_flags() {
    return {
        {kServer, "--url", "URL",
         "The server: http://, https:// or unix:/path. (default: http://127.0.0.1:8000)",
         [](BenchOptions& o, const std::string& t) -> Result<void> {
             o.server.url = t;
             return {};
         }},
        {kServer, "--model", "NAME", "The model to ask. (default: the first one the server has)",
         [](BenchOptions& o, const std::string& t) -> Result<void> {
             o.server.model = t;
             return {};
         }},
        {kServer, "--api", "KIND",
         "chat: /v1/chat/completions; completions: /v1/completions with texts; tokens: the same "
         "with token ids, so that lengths are exact. (default: chat)",
         set_api},
        {kServer, "--api-key-file", "FILE",
         "For servers that ask for a key: the first one in a file. (else: $STATOR_API_KEY)",
         set_key_file},
        {kServer, "--body", "JSON", "More fields for every request, such as '{\"temperature\":0}'.",
         set_body},
        {kServer, "--connect-timeout", "TIME", "How long connecting may take. (default: 5s)",
         time([](BenchOptions& o, double s) { o.server.connect_timeout = ms(s); })},
        {kServer, "--timeout", "TIME",
         "How long a server may send nothing before a request counts as failed. (default: 300s)",
         time([](BenchOptions& o, double s) { o.server.silence_timeout = ms(s); })},
    };
}

std::vector<Flag> measuring_flags() {
    return {
        {kLimits, "--slo-ttft", "TIME", "A request is good if its first token comes within this.",
         time([](BenchOptions& o, double s) { o.slo.ttft_ms = s * 1e3; })},
        {kLimits, "--slo-itl", "TIME", "… and if the time between its tokens is at most this.",
         time([](BenchOptions& o, double s) { o.slo.itl_ms = s * 1e3; })},
        {kLimits, "--slo-itl-of", "mean|p99",
         "Which of a request's gaps --slo-itl binds. (default: mean)", set_itl_rule},
        {kLimits, "--slo-e2e", "TIME", "… and if its last token comes within this.",
         time([](BenchOptions& o, double s) { o.slo.e2e_ms = s * 1e3; })},
        {kRunning, "--seed", "NUMBER",
         "The same seed and options give the same requests at the same times. (default: 1)",
         number(0, 9e15, true,
                [](BenchOptions& o, double n) { o.seed = static_cast<std::uint64_t>(n); })},
        {kRunning, "--warmup", "NUMBER",
         "Requests before the run, which are not counted. (default: 0)",
         number(0, 1e9, true,
                [](BenchOptions& o, double n) { o.warmup = static_cast<std::uint64_t>(n); })},
        {kRunning, "--max-in-flight", "NUMBER",
         "The most requests that run at once with fixed starts; beyond, they start late, which is "
         "measured. (default: 10000)",
         number(
             1, 1e6, true,
             [](BenchOptions& o, double n) { o.run.max_in_flight = static_cast<std::size_t>(n); })},
        {kRunning, "--drain", "TIME",
         "Cut off what still runs so long after the last start; 0 waits for all. (default: 0)",
         time([](BenchOptions& o, double s) {
             o.run.drain = std::chrono::nanoseconds(std::llround(s * 1e9));
         })},
        {kRunning, "--max-connect-failures", "NUMBER",
         "So many failed connections in a row end the run. (default: 50)",
         number(1, 1e9, true,
                [](BenchOptions& o, double n) {
                    o.run.max_connect_failures = static_cast<std::uint32_t>(n);
                })},
        {kRunning, "--knee-duration", "TIME", "How long --find-knee runs each rate. (default: 30s)",
         time([](BenchOptions& o, double s) { o.knee_duration_s = s; })},
        {kRunning, "--knee-share", "SHARE",
         "The share of requests that must be good for a rate to meet the SLO. (default: 0.9)",
         number(0.01, 1, false, [](BenchOptions& o, double n) { o.knee_share = n; })},
        {kRunning, "--pairs", "NUMBER", "How many times --compare runs both servers. (default: 5)",
         number(1, 1000, true,
                [](BenchOptions& o, double n) { o.pairs = static_cast<std::uint32_t>(n); })},
        {kRunning, "--profile-role", "ROLE",
         "Of which role's workers --profile writes: aggregated, prefill, decode or encode. A file "
         "that is there keeps its other roles. (default: aggregated)",
         text(&BenchOptions::profile_role)},
        {kOutput, "--name", "TEXT", "What the run is called in its report.",
         text(&BenchOptions::name)},
        {kOutput, "--json", "FILE", "All figures for programs; - is standard output.",
         text(&BenchOptions::json)},
        {kOutput, "--html", "FILE", "One page with plots, for people.", text(&BenchOptions::html)},
    };
}

const std::vector<Flag>& flags() {
    static const std::vector<Flag> all = [] {
        std::vector<Flag> f = server_flags();
        for (Flag& more : measuring_flags()) f.push_back(std::move(more));
        return f;
    }();
    return all;
}

bool is_switch(const workload::OptionDescription& d) { return d.value == "true|false"; }

/// Where the words of the command line end up, in the order of their tables.
struct Targets {
    std::vector<std::string> own;
    std::vector<std::string> of_workload;
    std::vector<char> switches;  // vector<bool> has no references
    std::vector<std::string> headers;
    std::string trace;
    bool strict = false;
    bool find_knee = false;
    std::string profile;
    bool compare = false;
    bool draw = false;
};

Result<void> set_workload(BenchOptions& o, Targets& given, const std::vector<bool>& switches) {
    const auto table = workload::option_descriptions();
    for (std::size_t i = 0; i < table.size(); ++i) {
        std::string value = given.of_workload[i];
        if (switches[i]) value = "true";
        if (value.empty()) continue;
        if (auto set = workload::set_option(o.workload, table[i].name, value); !set) {
            set.error().message = "--" + set.error().message;
            return set;
        }
        o.workload_text +=
            fmt::format("{}--{} {}", o.workload_text.empty() ? "" : " ", table[i].name, value);
    }
    o.trace = given.trace;
    workload::WorkloadOptions& w = o.workload;
    const auto has = [&](std::string_view name) {
        const auto at = std::ranges::find(table, name, &workload::OptionDescription::name);
        return !given.of_workload[static_cast<std::size_t>(at - table.begin())].empty();
    };
    if (has("concurrency") && !w.arrivals) w.arrivals = workload::Arrivals::kClosed;
    const bool closed = w.effective_arrivals() == workload::Arrivals::kClosed;
    if (!w.needs_file() && w.requests == 0 && w.duration_s == 0) {
        constexpr double kUsualDuration = 30;
        constexpr std::uint64_t kUsualRequests = 100;
        if (closed) {
            w.requests = kUsualRequests;
        } else {
            w.duration_s = kUsualDuration;
        }
    }
    if (closed) o.run.concurrency = w.concurrency;
    if (w.needs_file() && o.trace.empty()) {
        return error(ErrorCode::kInvalidArgument,
                     "this kind of workload needs a file: give one with --trace");
    }
    return {};
}

Result<void> set_headers(BenchOptions& o, const std::vector<std::string>& headers) {
    for (const std::string& header : headers) {
        const auto colon = header.find(':');
        if (colon == std::string::npos || colon == 0) {
            return error(ErrorCode::kInvalidArgument,
                         "--header is {}; it must be of the form 'Name: value'",
                         config::in_quotes(header));
        }
        auto value = header.substr(colon + 1);
        value.erase(0, value.find_first_not_of(' '));
        o.server.headers.emplace_back(header.substr(0, colon), value);
    }
    return {};
}

Result<void> set_mode(BenchOptions& o, const Targets& given) {
    const int profile = given.profile.empty() ? 0 : 1;
    if (given.find_knee + given.compare + given.draw + profile > 1) {
        return error(ErrorCode::kInvalidArgument,
                     "--find-knee, --compare, --draw and --profile don't go together");
    }
    using Mode = BenchOptions::Mode;
    if (given.find_knee) o.mode = Mode::kKnee;
    if (given.compare) o.mode = Mode::kCompare;
    if (given.draw) o.mode = Mode::kDraw;
    if (profile != 0) {
        o.mode = Mode::kProfile;
        o.profile = given.profile;
    }
    if (o.mode == Mode::kCompare && o.words.size() != 2) {
        return error(ErrorCode::kInvalidArgument,
                     "--compare needs two URLs: --compare URL_A URL_B");
    }
    if (o.mode == Mode::kDraw && (o.words.empty() || o.html.empty())) {
        return error(ErrorCode::kInvalidArgument,
                     "--draw needs files and a page: --draw A.json B.json --html PAGE.html");
    }
    if (o.mode != Mode::kCompare && o.mode != Mode::kDraw && !o.words.empty()) {
        return error(ErrorCode::kInvalidArgument, "{} is not expected here; see --help",
                     config::in_quotes(o.words.front()));
    }
    if (o.mode == Mode::kKnee) {
        const auto arrivals = o.workload.effective_arrivals();
        if (arrivals == workload::Arrivals::kClosed || arrivals == workload::Arrivals::kTrace) {
            return error(ErrorCode::kInvalidArgument,
                         "--find-knee needs arrivals with a rate: constant, poisson or gamma");
        }
        if (o.slo.empty()) {
            return error(ErrorCode::kInvalidArgument,
                         "--find-knee needs to know what is good: give --slo-ttft, --slo-itl or "
                         "--slo-e2e");
        }
    }
    return {};
}

std::string section_help(std::string_view section, const Style& style) {
    std::string out = fmt::format("\n{}{}{}\n", style.bold, section, style.reset);
    for (const Flag& f : flags()) {
        if (f.section == section) {
            out += help_entry(fmt::format("{} {}", f.name, f.value), f.meaning);
        }
    }
    return out;
}

}  // namespace

Result<std::optional<BenchOptions>> parse_bench_options(const std::vector<std::string>& args) {
    BenchOptions o;
    o.server.url = "http://127.0.0.1:8000";
    const auto table = workload::option_descriptions();
    Targets given;
    given.own.resize(flags().size());
    given.of_workload.resize(table.size());
    const auto switches = std::make_unique<bool[]>(table.size());
    CommandLine line("stator bench");
    for (std::size_t i = 0; i < flags().size(); ++i) {
        line.add_value(std::string(flags()[i].name), given.own[i]);
    }
    for (std::size_t i = 0; i < table.size(); ++i) {
        const std::string name = fmt::format("--{}", table[i].name);
        if (is_switch(table[i])) {
            line.add_switch(name, switches[i]);
        } else {
            line.add_value(name, given.of_workload[i]);
        }
    }
    line.add_values("--header", given.headers);
    line.add_value("--trace", given.trace);
    line.add_switch("--strict", given.strict);
    line.add_switch("--find-knee", given.find_knee);
    line.add_value("--profile", given.profile);
    line.add_switch("--compare", given.compare);
    line.add_switch("--draw", given.draw);
    line.add_words(o.words);
    const auto parsed = line.parse(args);
    if (!parsed) return tl::unexpected(parsed.error());
    if (*parsed == CommandLine::Outcome::kHelp) return std::nullopt;

    for (std::size_t i = 0; i < flags().size(); ++i) {
        if (given.own[i].empty()) continue;
        if (auto set = flags()[i].set(o, given.own[i]); !set) {
            set.error().message = fmt::format("{} {}", flags()[i].name, set.error().message);
            return tl::unexpected(std::move(set.error()));
        }
    }
    o.server.strict = given.strict;
    if (const char* key = std::getenv("STATOR_API_KEY"); key != nullptr && o.server.api_key.empty())
        o.server.api_key = key;
    if (auto set = set_headers(o, given.headers); !set) return tl::unexpected(set.error());
    const std::vector<bool> on(switches.get(), switches.get() + table.size());
    if (auto set = given.draw ? Result<void>() : set_workload(o, given, on); !set) {
        return tl::unexpected(set.error());
    }
    if (auto set = set_mode(o, given); !set) return tl::unexpected(set.error());
    return o;
}

std::string bench_help(const Style& style) {
    std::string out =
        "stator bench: load for any OpenAI-compatible server, and what came of it.\n\n"
        "Requests start at times that are fixed before the run, whether or not others have ended, "
        "and\nlatencies count from those times: a server that stalls can't hide it. With "
        "--concurrency the\nnext request waits for another's end instead.\n";
    out += fmt::format("\n{}Examples{}\n", style.bold, style.reset);
    out +=
        "  stator bench --rate 4 --isl 1000 --osl 100 --duration 1m\n"
        "  stator bench --concurrency 32 --requests 500 --html report.html\n"
        "  stator bench --kind chat --turns 5 --rate 0.5 --slo-ttft 2s --slo-itl 50ms\n"
        "  stator bench --kind mooncake --trace conversation_trace.jsonl --speed 2 --json "
        "out.json\n"
        "  stator bench --profile engine.json\n"
        "  stator bench --find-knee --slo-ttft 2s --slo-itl 50ms --isl 2000 --osl 200\n"
        "  stator bench --compare http://a:8000 http://b:8000 --rate 4 --pairs 5\n"
        "  stator bench --draw monday.json tuesday.json --html both.html\n";
    out += fmt::format("\n{}What to do{}\n", style.bold, style.reset);
    out += help_entry("", "Without one of these: one run.");
    out += help_entry("--find-knee", "Search the highest rate that meets the SLO, from --rate on.");
    out += help_entry("--profile FILE",
                      "Measure what steps of the engine cost, at several lengths of prompts and "
                      "numbers of sequences, and write it for --planner-profile.");
    out += help_entry("--compare URL_A URL_B",
                      "Run two servers alternately; ratios with confidence intervals.");
    out += help_entry("--draw FILE…", "A page from the JSON of earlier runs.");
    out += section_help(kServer, style);
    out += help_entry("--header 'NAME: VALUE'",
                      "Sent with every request. May be given several times.");
    out += help_entry("--strict",
                      "Send only OpenAI's own fields: no ignore_eos, no min_tokens. Answers may "
                      "then be shorter than asked.");
    out += fmt::format("\n{}Workload{}\n", style.bold, style.reset);
    for (const auto& d : workload::option_descriptions()) {
        std::string right(d.meaning);
        if (is_switch(d)) {
            out += help_entry(fmt::format("--{}", d.name), right);
            continue;
        }
        if (!d.standard.empty()) right += fmt::format(" (default: {})", d.standard);
        out += help_entry(fmt::format("--{} {}", d.name, d.value), right);
    }
    out += help_entry("--trace FILE", "The trace or file of prompts, where --kind needs one.");
    out += "  Without --requests and --duration: 30 s, or 100 requests with --concurrency.\n";
    for (const std::string_view section : {kLimits, kRunning, kOutput}) {
        out += section_help(section, style);
    }
    out += "\nCtrl-C ends the run and shows what was measured; a second one ends the program.\n";
    out +=
        "`stator bench transfer` measures something else, handoffs between workers: see its "
        "--help.\n";
    return out;
}

}  // namespace stator::cli
