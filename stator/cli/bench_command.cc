#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/version.h"
#include "stator/cli/bench_options.h"
#include "stator/cli/bench_progress.h"
#include "stator/cli/bench_results.h"
#include "stator/cli/commands.h"
#include "stator/cli/interrupt.h"
#include "stator/cli/terminal.h"
#include "stator/cli/text_file.h"
#include "stator/loadgen/load_run.h"
#include "stator/loadgen/server.h"
#include "stator/planner/profile_fit.h"
#include "stator/report/compare.h"
#include "stator/report/figure.h"
#include "stator/report/knee.h"
#include "stator/report/render.h"
#include "stator/runtime/loop.h"
#include "stator/workload/options.h"

namespace stator::cli {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLook{50};  // how soon Ctrl-C counts

/// A run and how it ended.
struct Measured {
    report::Report report;
    loadgen::RunEnd end = loadgen::RunEnd::kDone;
    std::string why;
};

class LoopThread {
  public:
    LoopThread() { loop_.start(); }
    ~LoopThread() { loop_.stop(); }
    LoopThread(const LoopThread&) = delete;
    LoopThread& operator=(const LoopThread&) = delete;
    [[nodiscard]] runtime::Loop& get() { return loop_; }

  private:
    runtime::Loop loop_{"bench"};
};

class Bench {
  public:
    explicit Bench(BenchOptions options) : options_(std::move(options)) {}

    ExitCode run() {
        if (options_.mode == BenchOptions::Mode::kDraw) return draw();
        if (!read_trace() || !check_workload()) return ExitCode::kUsage;
        const Interrupt interrupt;
        switch (options_.mode) {
            case BenchOptions::Mode::kRun:
            case BenchOptions::Mode::kDraw:
                return run_once();
            case BenchOptions::Mode::kKnee:
                return find_knee();
            case BenchOptions::Mode::kCompare:
                return compare();
            case BenchOptions::Mode::kProfile:
                return profile();
        }
        return ExitCode::kFailed;
    }

  private:
    static bool fail(const Error& e) {
        print_problem(e);
        return false;
    }

    bool read_trace() {
        if (options_.trace.empty()) return true;
        auto text = read_text_file("The trace", options_.trace, workload::kMaxTraceBytes);
        if (!text) return fail(text.error());
        trace_ = std::move(*text);
        return true;
    }

    /// What is wrong with the workload is said before anything is sent.
    bool check_workload() {
        workload::SkippedLines skipped;
        const auto made =
            workload::make_workload(options_.workload, trace_, options_.seed, &skipped);
        if (!made) {
            const bool of_trace = !options_.trace.empty() && made.error().param.empty();
            print_problem(of_trace ? fmt::format("{}: {}", options_.trace, made.error().message)
                                   : made.error().message);
            return false;
        }
        if (skipped.count > 0) {
            skipped_ = fmt::format("{} bad lines of the trace were passed over; the first: {}",
                                   skipped.count, skipped.first);
            print_err(skipped_ + "\n");
        }
        return true;
    }

    std::optional<loadgen::Server> find(const std::string& url) {
        loadgen::ServerOptions wanted = options_.server;
        wanted.url = url;
        wanted.calibrate = options_.workload.kind != workload::Kind::kPrompts;
        auto server = loadgen::find_server(std::move(wanted), loop_.get(), Clock::real(),
                                           [] { return Interrupt::requested(); });
        if (server) return std::move(*server);
        print_problem(server.error());
        exit_ = server.error().code == ErrorCode::kInvalidArgument ? ExitCode::kUsage
                                                                   : ExitCode::kFailed;
        return std::nullopt;
    }

    Measured measure(const loadgen::Server& server, const workload::WorkloadOptions& wanted,
                     std::uint64_t seed, const std::string& name, loadgen::RunOptions run) {
        auto made = workload::make_workload(wanted, trace_, seed);
        if (!made) return {{}, loadgen::RunEnd::kBadRequest, made.error().message};
        run.report.name = name;
        run.report.facts = facts(server, seed);
        run.report.slo = options_.slo;
        run.report.closed_loop = run.concurrency != 0;
        run.report.seed = seed;
        loadgen::LoadRun load(loop_.get(), server, std::move(*made), std::move(run), Clock::real());
        BenchProgress progress(name, Clock::real());
        load.start();
        while (!load.wait(kLook)) {
            if (Interrupt::requested()) load.stop();
            progress.show(load.progress());
        }
        Measured out{load.report(), load.end(), load.why()};
        if (!skipped_.empty()) out.report.warnings.push_back(skipped_);
        out.report.facts.push_back({"own cost", fmt::format("{:.3f} CPU s for {} chunks",
                                                            load.cpu_seconds(), load.pieces())});
        return out;
    }

    /// Requests of another seed, a few at a time, so that the run meets a server at work.
    bool warm_up(const loadgen::Server& server) {
        if (options_.warmup == 0) return true;
        constexpr std::uint32_t kAtATime = 8;
        workload::WorkloadOptions w = options_.workload;
        w.arrivals = workload::Arrivals::kClosed;
        w.requests = options_.warmup;
        w.duration_s = 0;
        w.rate_end = 0;
        w.think_s = 0;
        loadgen::RunOptions run = options_.run;
        run.concurrency = kAtATime;
        const Measured warm = measure(server, w, ~options_.seed, "warm-up", run);
        if (warm.end != loadgen::RunEnd::kDone) print_problem(warm.why);
        return warm.end == loadgen::RunEnd::kDone;
    }

    [[nodiscard]] std::vector<report::Fact> facts(const loadgen::Server& server,
                                                  std::uint64_t seed) const {
        constexpr std::array<std::string_view, 3> kApis{"chat", "completions", "tokens"};
        std::vector<report::Fact> out{
            {"server", server.name},
            {"model", server.dialect.model},
            {"API", std::string(kApis[static_cast<std::size_t>(server.dialect.api)])},
            {"workload", options_.workload_text.empty() ? "as it comes" : options_.workload_text},
            {"seed", std::to_string(seed)},
            {"generator", fmt::format("stator bench {} ({})", version(), commit())}};
        if (!options_.trace.empty()) out.insert(out.begin() + 4, {"trace", options_.trace});
        return out;
    }

    [[nodiscard]] std::string title() const {
        return options_.name.empty() ? std::string("stator bench") : options_.name;
    }

    /// What the run was good for, and the sentence where it did not go to its end.
    ExitCode outcome_of(const Measured& m) const {
        switch (m.end) {
            case loadgen::RunEnd::kDone:
                break;
            case loadgen::RunEnd::kStopped:
                print_problem("Stopped: these are the figures up to then");
                return ExitCode::kFailed;
            case loadgen::RunEnd::kServerGone:
                print_problem(m.why);
                return ExitCode::kFailed;
            case loadgen::RunEnd::kBadRequest:
                print_problem(m.why);
                return ExitCode::kUsage;
        }
        if (m.report.requests == 0) {
            print_problem("The workload has no requests");
            return ExitCode::kUsage;
        }
        if (m.report.count(report::Outcome::kOk) > 0) return ExitCode::kDone;
        print_problem("No request ended well");
        return ExitCode::kFailed;
    }

    ExitCode run_once() {
        const auto server = find(options_.server.url);
        if (!server) return exit_;
        if (!warm_up(*server)) return ExitCode::kFailed;
        const Measured m =
            measure(*server, options_.workload, options_.seed, options_.name, options_.run);
        if (m.end == loadgen::RunEnd::kBadRequest) return outcome_of(m);
        results_.reports.push_back(m.report);
        show(report::to_table(m.report, table_style()));
        return write(outcome_of(m));
    }

    ExitCode find_knee() {
        const auto server = find(options_.server.url);
        if (!server || !warm_up(*server)) return server ? ExitCode::kFailed : exit_;
        report::KneeOptions search_options;
        search_options.start_rate = options_.workload.rate;
        report::KneeSearch search(search_options);
        ExitCode exit = ExitCode::kDone;
        std::uint64_t seed = options_.seed;
        while (const auto rate = search.next()) {
            workload::WorkloadOptions w = options_.workload;
            w.rate = *rate;
            w.rate_end = 0;
            w.requests = 0;
            w.duration_s = options_.knee_duration_s;
            loadgen::RunOptions run = options_.run;
            // A rate far above the knee must not take ages to empty the server's queue.
            if (run.drain.count() == 0) run.drain = knee_drain();
            const Measured m =
                measure(*server, w, seed++, fmt::format("{} req/s", report::figure(*rate)), run);
            if (m.end != loadgen::RunEnd::kDone) {
                exit = outcome_of(m);
                break;
            }
            const bool met = m.report.requests > 0 && m.report.good_share >= options_.knee_share;
            search.tell(*rate, met);
            results_.reports.push_back(m.report);
            print_err(knee_line(m.report, *rate, met));
        }
        results_.knee = search.result();
        show(knee_sentence(*results_.knee));
        return write(exit);
    }

    [[nodiscard]] std::chrono::nanoseconds knee_drain() const {
        return std::chrono::nanoseconds(
            static_cast<std::int64_t>(std::max(5.0, options_.knee_duration_s / 2) * 1e9));
    }

    ExitCode compare() {
        std::vector<loadgen::Server> servers;
        for (const std::string& url : options_.words) {
            auto server = find(url);
            if (!server) return exit_;
            servers.push_back(std::move(*server));
        }
        for (const loadgen::Server& server : servers) {
            if (!warm_up(server)) return ExitCode::kFailed;
        }
        std::vector<report::Report> sides[2];
        ExitCode exit = ExitCode::kDone;
        for (std::uint32_t pair = 0; pair < options_.pairs && exit == ExitCode::kDone; ++pair) {
            // A B, B A, A B: a drift of the machine falls on both alike.
            for (const std::size_t side : {pair % 2, 1 - pair % 2}) {
                const std::string name = fmt::format("{}{}", side == 0 ? "A" : "B", pair + 1);
                const Measured m = measure(servers[side], options_.workload, options_.seed + pair,
                                           name, options_.run);
                exit = outcome_of(m);
                if (m.end == loadgen::RunEnd::kDone) sides[side].push_back(m.report);
                if (exit != ExitCode::kDone) break;
            }
        }
        results_.comparison =
            report::compare(sides[0], sides[1], options_.words[0], options_.words[1]);
        show(report::to_table(*results_.comparison, table_style()));
        for (std::size_t i = 0; i < std::max(sides[0].size(), sides[1].size()); ++i) {
            for (auto& side : sides) {
                if (i < side.size()) results_.reports.push_back(side[i]);
            }
        }
        return write(exit);
    }

    /// Requests one after the other, or `at_a_time`, of one shape.
    std::optional<report::Report> measure_shape(const loadgen::Server& server, std::uint32_t isl,
                                                std::uint32_t osl, std::uint32_t at_a_time,
                                                std::uint64_t requests) {
        workload::WorkloadOptions w = options_.workload;
        w.kind = workload::Kind::kFixed;
        w.arrivals = workload::Arrivals::kClosed;
        w.requests = requests;
        w.duration_s = 0;
        w.rate_end = 0;
        w.isl = isl;
        w.osl = osl;
        loadgen::RunOptions run = options_.run;
        run.concurrency = at_a_time;
        const std::string name = fmt::format("{} in, {} out, {} at a time", isl, osl, at_a_time);
        const Measured m = measure(server, w, profile_seed_++, name, run);
        exit_ = outcome_of(m);
        if (exit_ != ExitCode::kDone) return std::nullopt;
        results_.reports.push_back(m.report);
        return m.report;
    }

    ExitCode profile() {
        const auto role = profile_role_of(options_.profile_role);
        if (!role) {
            print_problem("--profile-role must be aggregated, prefill, decode or encode.");
            return ExitCode::kUsage;
        }
        auto file = read_profile_file(options_.profile);
        if (!file) return fail(file.error()) ? ExitCode::kDone : ExitCode::kUsage;
        const auto server = find(options_.server.url);
        if (!server) return exit_;
        profile_seed_ = options_.seed;
        std::vector<planner::PromptPoint> prompts;
        constexpr std::uint64_t kEach = 8;
        for (const std::uint32_t isl : {64U, 256U, 1024U, 4096U}) {
            const auto report = measure_shape(*server, isl, 2, 1, kEach);
            if (!report && prompts.size() >= 2) break;  // longer than the model's context
            if (!report) return exit_;
            const double tokens = static_cast<double>(report->input_tokens) /
                                  static_cast<double>(report->count(report::Outcome::kOk));
            prompts.push_back({tokens, report->ttft.p50 / 1e3});
            print_err(fmt::format("{:.0f} prompt tokens: {:.1f} ms to the first one\n", tokens,
                                  report->ttft.p50));
        }
        std::vector<planner::DecodePoint> decodes;
        for (const std::uint32_t at_a_time : {1U, 4U, 16U, 64U}) {
            constexpr std::uint32_t kOut = 48;
            const auto report = measure_shape(*server, 256, kOut, at_a_time, 2ULL * at_a_time);
            if (!report && !decodes.empty()) break;
            if (!report) return exit_;
            decodes.push_back({static_cast<double>(at_a_time), report->itl.p50 / 1e3});
            print_err(fmt::format("{} sequences: {:.2f} ms between tokens\n", at_a_time,
                                  report->itl.p50));
        }
        const auto cost = planner::fit_step_cost(prompts, decodes);
        if (!cost) return fail(cost.error()) ? ExitCode::kDone : ExitCode::kFailed;
        planner::RoleProfile& of_role =
            file->roles[*role] ? *file->roles[*role] : file->roles[*role].emplace();
        of_role.cost = *cost;
        file->engine = server->dialect.model;
        file->source = fmt::format("stator bench {} --profile, {}", version(), server->name);
        const auto written =
            write_file_at_once("The profile", options_.profile, planner::write_profile(*file));
        if (!written) return fail(written.error()) ? ExitCode::kDone : ExitCode::kFailed;
        show(
            fmt::format("A step takes {:.3g} ms, {:.3g} µs for each prompt token and {:.3g} µs for "
                        "each sequence; written to {}.\n",
                        cost->base_s * 1e3, cost->prefill_token_s * 1e6, cost->decode_token_s * 1e6,
                        options_.profile));
        return write(ExitCode::kDone);
    }

    static std::optional<planner::Role> profile_role_of(std::string_view name) {
        for (const planner::Role role : planner::kRoles) {
            if (to_string(role) == name) return role;
        }
        return std::nullopt;
    }

    /// What is in the file already, of other roles; nothing where there is no file.
    static Result<planner::Profile> read_profile_file(const std::string& path) {
        if (::access(path.c_str(), F_OK) != 0) return planner::Profile{};
        const auto text = read_text_file("--profile", path, planner::kMaxProfileBytes);
        if (!text) return tl::unexpected(text.error());
        return planner::read_profile(*text);
    }

    ExitCode draw() {
        for (const std::string& path : options_.words) {
            auto text = read_text_file("The report", path, kMaxResultBytes);
            if (!text) return fail(text.error()) ? ExitCode::kDone : ExitCode::kUsage;
            auto reports = read_results(*text, path);
            if (!reports) return fail(reports.error()) ? ExitCode::kDone : ExitCode::kUsage;
            for (report::Report& r : *reports) results_.reports.push_back(std::move(r));
        }
        return write(ExitCode::kDone);
    }

    static report::TableStyle table_style() {
        winsize size{};
        report::TableStyle style;
        style.colour = !style_of(STDOUT_FILENO).bold.empty();
        if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
            style.columns = size.ws_col;
        }
        return style;
    }

    /// Standard output is the JSON's where it was asked for there.
    void show(const std::string& text) const {
        if (options_.json == "-") {
            print_err(text);
        } else {
            print_out(text);
        }
    }

    ExitCode write(ExitCode exit) {
        if (results_.reports.empty()) return exit;
        if (options_.json == "-") {
            print_out(to_json(results_));
        } else if (!options_.json.empty()) {
            const auto done = write_file_at_once("The report", options_.json, to_json(results_));
            if (!done) return fail(done.error()) ? exit : ExitCode::kFailed;
        }
        if (!options_.html.empty()) {
            const auto page = report::to_html(
                results_.reports, title(), results_.comparison ? &*results_.comparison : nullptr);
            const auto done = write_file_at_once("The page", options_.html, page);
            if (!done) return fail(done.error()) ? exit : ExitCode::kFailed;
        }
        return exit;
    }

    BenchOptions options_;
    std::string trace_;
    std::string skipped_;
    LoopThread loop_;
    BenchResults results_;
    ExitCode exit_ = ExitCode::kFailed;
    std::uint64_t profile_seed_ = 1;
};

}  // namespace

ExitCode run_bench(const Invocation& invocation) {
    if (!invocation.args.empty() && invocation.args.front() == "transfer") {
        return run_bench_transfer(
            {invocation.program, {invocation.args.begin() + 1, invocation.args.end()}});
    }
    auto options = parse_bench_options(invocation.args);
    if (!options) {
        print_problem(options.error());
        return ExitCode::kUsage;
    }
    if (!*options) {
        print_out(bench_help(style_of(STDOUT_FILENO)));
        return ExitCode::kDone;
    }
    return Bench(std::move(**options)).run();
}

}  // namespace stator::cli
