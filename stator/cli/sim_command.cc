#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "stator/base/clock.h"
#include "stator/cli/command_line.h"
#include "stator/cli/commands.h"
#include "stator/cli/help.h"
#include "stator/cli/interrupt.h"
#include "stator/cli/terminal.h"
#include "stator/cli/text_file.h"
#include "stator/config/yaml_file.h"
#include "stator/config/yaml_tree.h"
#include "stator/report/render.h"
#include "stator/sim/fleet_sim.h"
#include "stator/sim/scenario.h"
#include "stator/sim/sweep.h"

namespace stator::cli {
namespace {

struct SimFlags {
    std::vector<std::string> files;
    std::string seed = "1";
    bool json = false;
    std::string html;
    std::vector<std::string> sweep;
    std::vector<std::string> set;
    std::string jobs;
};

/// One run of a sweep, or the only one.
struct Run {
    sim::Scenario scenario;
    std::string trace;  ///< the file it needs; empty = none
};

std::optional<std::uint64_t> whole_number(std::string_view text) {
    std::uint64_t n = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (failed != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return n;
}

/// Beside the scenario, else in $STATOR_DATA.
std::string find_trace(const std::string& name, const std::string& scenario) {
    namespace fs = std::filesystem;
    const fs::path beside = fs::path(scenario).parent_path() / name;
    if (fs::exists(beside)) return beside.string();
    const char* folder = std::getenv("STATOR_DATA");
    if (folder != nullptr && *folder != 0 && fs::exists(fs::path(folder) / name)) {
        return (fs::path(folder) / name).string();
    }
    return beside.string();
}

class Simulation {
  public:
    explicit Simulation(SimFlags flags) : flags_(std::move(flags)) {}

    ExitCode run() {
        if (!read_flags() || !read_scenarios() || !read_traces()) return ExitCode::kUsage;
        const Interrupt interrupt;
        reports_.resize(runs_.size());
        const TimePoint begin = Clock::real().now();
        begin_ = begin;
        sim::run_parallel(runs_.size(), jobs_, [this](std::size_t i) { simulate(i); });
        clear_progress();
        if (!problem_.empty()) {
            print_problem(problem_);
            return ExitCode::kUsage;
        }
        if (!show(to_seconds(Clock::real().now() - begin))) return ExitCode::kFailed;
        if (!Interrupt::requested()) return ExitCode::kDone;
        print_problem("Stopped: these are the figures up to then");
        return ExitCode::kFailed;
    }

  private:
    bool fail(std::string_view sentence) {
        print_problem(sentence);
        return false;
    }

    bool read_flags() {
        if (flags_.files.size() != 1) {
            return fail("stator sim takes one scenario file; samples are in examples/sim.");
        }
        const auto seed = whole_number(flags_.seed);
        if (!seed) return fail("--seed must be a whole number, 0 or more.");
        seed_ = *seed;
        jobs_ = std::max(1U, std::thread::hardware_concurrency());
        if (!flags_.jobs.empty()) {
            const auto jobs = whole_number(flags_.jobs);
            if (!jobs || *jobs == 0 || *jobs > 1024) {
                return fail("--jobs must be a whole number from 1 to 1024.");
            }
            jobs_ = *jobs;
        }
        return true;
    }

    bool read_scenarios() {
        const std::string& file = flags_.files.front();
        auto text = read_text_file("The scenario", file, config::kMaxFileBytes);
        if (!text) return fail(text.error().message);
        auto tree = config::read_yaml_tree(file, *text);
        if (!tree) return problems(tree.error());
        for (const std::string& change : flags_.set) {
            const std::size_t equals = std::min(change.find('='), change.size());
            const auto set =
                equals < change.size()
                    ? sim::set_value(*tree, change.substr(0, equals), change.substr(equals + 1))
                    : Result<void>(
                          error(ErrorCode::kInvalidArgument, "--set is written PLACE=VALUE"));
            if (!set) return fail(set.error().message);
        }
        std::vector<sim::Axis> axes;
        for (const std::string& word : flags_.sweep) {
            auto axis = sim::parse_axis(word);
            if (!axis) return fail(axis.error().message);
            axes.push_back(std::move(*axis));
        }
        auto points = sim::all_points(axes);
        if (!points) return fail(points.error().message);
        for (const sim::Point& point : *points) {
            if (!add_run(*tree, point, file)) return false;
        }
        return true;
    }

    bool add_run(config::YamlTree tree, const sim::Point& point, const std::string& file) {
        for (const auto& [path, value] : point) {
            if (auto set = sim::set_value(tree, path, value); !set)
                return fail(set.error().message);
        }
        auto scenario = sim::read_scenario(tree, file);
        if (!scenario) return problems(scenario.error());
        if (title_.empty()) {
            title_ = scenario->name.empty() ? std::filesystem::path(file).stem().string()
                                            : scenario->name;
        }
        scenario->name = point.empty() ? title_ : sim::name_of(point);
        Run run;
        if (!scenario->trace_file.empty()) run.trace = find_trace(scenario->trace_file, file);
        run.scenario = std::move(*scenario);
        runs_.push_back(std::move(run));
        return true;
    }

    bool problems(const config::Problems& all) {
        for (const config::Problem& p : all) print_err(p.text() + "\n");
        return false;
    }

    bool read_traces() {
        for (const Run& run : runs_) {
            if (run.trace.empty() || traces_.contains(run.trace)) continue;
            auto text = read_text_file("The trace", run.trace, workload::kMaxTraceBytes);
            if (!text) {
                return fail(text.error().message +
                            " Traces are looked for beside the scenario and in $STATOR_DATA.");
            }
            traces_.emplace(run.trace, std::move(*text));
        }
        return true;
    }

    void simulate(std::size_t i) {
        if (Interrupt::requested()) return;
        const Run& run = runs_[i];
        const std::string_view trace =
            run.trace.empty() ? std::string_view() : std::string_view(traces_.at(run.trace));
        workload::SkippedLines skipped;
        auto workload = workload::make_workload(run.scenario.workload, trace, seed_, &skipped);
        if (!workload) {
            const std::scoped_lock lock(mutex_);
            if (problem_.empty()) problem_ = workload.error().message;
            return;
        }
        sim::RunOptions options;
        options.seed = seed_;
        options.go_on = [this](const sim::Progress& p) {
            show_progress(p);
            return !Interrupt::requested();
        };
        report::Report report = sim::run_scenario(run.scenario, **workload, options);
        if (skipped.count > 0) {
            report.warnings.push_back(
                fmt::format("{} bad lines were passed over; {}", skipped.count, skipped.first));
        }
        const std::scoped_lock lock(mutex_);
        reports_[i] = std::move(report);
        ++finished_;
    }

    void show_progress(const sim::Progress& p) {
        if (!is_terminal(STDERR_FILENO)) return;
        const std::scoped_lock lock(mutex_);
        const TimePoint now = Clock::real().now();
        if (now - last_shown_ < std::chrono::milliseconds(200)) return;
        last_shown_ = now;
        print_err(fmt::format(
            "\r\x1b[K{}{:.0f} s simulated, {} requests started, {} ended, {:.1f} s",
            runs_.size() > 1 ? fmt::format("{} of {} runs; ", finished_, runs_.size()) : "",
            p.seconds, p.started, p.ended, to_seconds(now - begin_)));
        shown_ = true;
    }
    void clear_progress() {
        if (shown_) print_err("\r\x1b[K");
    }

    bool show(double wall_s) {
        std::erase_if(reports_, [](const report::Report& r) { return r.requests == 0; });
        if (reports_.empty()) return fail("Nothing was simulated.");
        double simulated = 0;
        for (const report::Report& r : reports_) simulated += r.seconds;
        for (const report::Report& r : reports_) {
            if (flags_.json) {
                print_out(report::to_json(r));
            } else {
                const bool terminal = is_terminal(STDOUT_FILENO);
                print_out(report::to_table(r, {.colour = terminal, .unicode = true}));
            }
        }
        if (!flags_.json) {
            print_out(fmt::format("\n{:.0f} s simulated in {:.2f} s ({:.0f} times real time).\n",
                                  simulated, wall_s, simulated / std::max(wall_s, 1e-6)));
        }
        if (flags_.html.empty()) return true;
        const auto written =
            write_file_at_once("The page", flags_.html, report::to_html(reports_, title_));
        if (!written) return fail(written.error().message);
        print_err(fmt::format("Plots: {}\n", flags_.html));
        return true;
    }

    SimFlags flags_;
    std::uint64_t seed_ = 1;
    std::size_t jobs_ = 1;
    std::string title_;
    std::vector<Run> runs_;
    std::map<std::string, std::string> traces_;
    TimePoint begin_;

    std::mutex mutex_;
    std::vector<report::Report> reports_;
    std::string problem_;
    std::size_t finished_ = 0;
    TimePoint last_shown_;
    bool shown_ = false;
};

}  // namespace

ExitCode run_sim(const Invocation& invocation) {
    SimFlags flags;
    CommandLine words("stator sim");
    words.add_words(flags.files);
    words.add_value("--seed", flags.seed);
    words.add_switch("--json", flags.json);
    words.add_value("--html", flags.html);
    words.add_values("--sweep", flags.sweep);
    words.add_values("--set", flags.set);
    words.add_value("--jobs", flags.jobs);
    const auto parsed = words.parse(invocation.args);
    if (!parsed) {
        print_problem(parsed.error());
        return ExitCode::kUsage;
    }
    if (*parsed == CommandLine::Outcome::kHelp) {
        print_out(sim_help(style_of(STDOUT_FILENO)));
        return ExitCode::kDone;
    }
    return Simulation(std::move(flags)).run();
}

}  // namespace stator::cli
