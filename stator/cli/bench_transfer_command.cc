#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/cli/bench_transfer_options.h"
#include "stator/cli/commands.h"
#include "stator/cli/handoff_probe.h"
#include "stator/cli/handoff_source.h"
#include "stator/cli/interrupt.h"
#include "stator/cli/link_security.h"
#include "stator/cli/settings_source.h"
#include "stator/cli/stop_signal.h"
#include "stator/cli/terminal.h"
#include "stator/cli/text_file.h"
#include "stator/cli/transfer_figures.h"
#include "stator/cli/transfer_setup.h"
#include "stator/cli/worker_processes.h"
#include "stator/control/supervisor.h"

namespace stator::cli {
namespace {

using Mode = BenchTransferOptions::Mode;
using PlanePtr = std::shared_ptr<transfer::TransferPlane>;
using SecurityPtr = std::shared_ptr<LinkSecurity>;

ExitCode usage(const Error& why) {
    print_problem(why);
    return ExitCode::kUsage;
}

Result<PlanePtr> start_plane(const config::Settings& settings, const net::SocketAddress& beside,
                             const SecurityPtr& security, metrics::Registry& registry) {
    auto options = transfer_options(settings, beside, security);
    if (!options) return tl::unexpected<Error>(std::move(options.error()));
    auto plane = transfer::start_transfer(std::move(*options), registry);
    if (!plane) return tl::unexpected<Error>(std::move(plane.error()));
    return PlanePtr(std::move(*plane));
}

/// Between two processes of one machine certificates have no name to bear, and one place to listen
/// can't be both processes'.
void keep_local(config::Settings& settings) {
    settings.link.certificate.clear();
    settings.link.key.clear();
    settings.link.authorities.clear();
    settings.transfer.listen.clear();
    settings.transfer.advertise.clear();
}

class Loops {
  public:
    Loops() { pool_.start(); }
    ~Loops() { pool_.stop(); }
    Loops(const Loops&) = delete;
    Loops& operator=(const Loops&) = delete;
    [[nodiscard]] runtime::LoopPool& pool() { return pool_; }

  private:
    runtime::LoopPool pool_{1, "links"};
};

std::string listening_text(const net::SocketAddress& address) {
    std::string where = net::to_string(address);
    if (address.kind == net::SocketAddress::Kind::kTcp) where = where.substr(where.find("//") + 2);
    return fmt::format(
        "Handoffs are made for who connects:\n  stator bench transfer --connect {}\n"
        "with the same --link-… options. Ctrl-C ends this.\n",
        where);
}

ExitCode listen(const config::Settings& settings, const net::SocketAddress& address,
                bool supervised) {
    auto security = LinkSecurity::read(settings.link, LinkSecurity::Side::kWorker);
    if (!security) return usage(security.error());
    if (auto ok = check_link_bind(address, settings.link, settings.auth.allow_unauthenticated);
        !ok) {
        return usage(ok.error());
    }
    StopSignal stop{SIGHUP};
    metrics::Registry registry;
    auto plane = start_plane(settings, address, *security, registry);
    if (!plane) return usage(plane.error());
    Loops loops;
    auto source = HandoffSource::start({.listen = address,
                                        .secret = [s = *security] { return s->secret(); },
                                        .tls = [s = *security] { return s->tls(); },
                                        .lost_after = settings.link.lost_after},
                                       *plane, loops.pool());
    if (!source) return usage(source.error());
    stop.begin_serving();
    control::tell_ready();
    if (!supervised) print_out(listening_text((*source)->address()));
    static_cast<void>(wait_for_end(stop, **security));
    source->reset();
    (*plane)->stop();
    return ExitCode::kDone;
}

/// The second process of this machine: this program again.
class OtherProcess {
  public:
    /// Returns once it listens, or when `interrupted` says so.
    [[nodiscard]] static Result<std::unique_ptr<OtherProcess>> start(
        const std::vector<std::string>& args, const std::function<bool()>& interrupted) {
        auto folder = RunFolder::make();
        if (!folder) return tl::unexpected<Error>(std::move(folder.error()));
        std::unique_ptr<OtherProcess> made(new OtherProcess(std::move(*folder)));
        const std::string listen = "unix:" + made->folder_->path() + "/handoffs.sock";
        made->address_ = *net::parse_socket_address(listen);
        control::ChildSpec child{
            .name = "handoffs", .command = {"/proc/self/exe"}, .environment = {}};
        child.command.insert(child.command.end(), {"bench", "transfer"});
        child.command.insert(child.command.end(), args.begin(), args.end());
        child.command.push_back("--listen=" + listen);
        control::SupervisorOptions options;
        options.restart_min = options.restart_max = std::chrono::hours(1);  // not at all
        options.grace = std::chrono::seconds(2);
        auto supervisor = control::supervise({std::move(child)}, options);
        if (!supervisor) return tl::unexpected<Error>(std::move(supervisor.error()));
        made->supervisor_ = std::move(*supervisor);
        while (true) {
            const control::ChildStatus status = made->supervisor_->status().front();
            if (status.state == control::ChildState::kReady) return made;
            if (!status.last_end.empty()) {
                return error(ErrorCode::kUnavailable, "the second process could not begin ({})",
                             status.last_end);
            }
            if (interrupted()) return error(ErrorCode::kCancelled, "stopped");
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    }
    [[nodiscard]] const net::SocketAddress& address() const { return address_; }

  private:
    explicit OtherProcess(std::unique_ptr<RunFolder> folder) : folder_(std::move(folder)) {}

    std::unique_ptr<RunFolder> folder_;
    net::SocketAddress address_;
    std::unique_ptr<control::Supervisor> supervisor_;  ///< ends before its folder
};

std::uint64_t random_number() {
    std::random_device device;
    return (std::uint64_t{device()} << 32) | device();
}

/// The side that measures.
class TransferBench {
  public:
    TransferBench(BenchTransferOptions options, const config::Settings& settings)
        : options_(std::move(options)), settings_(settings) {}

    ExitCode run(const std::vector<std::string>& args) {
        if (auto ok = check_sizes(); !ok) return usage(ok.error());
        auto security = LinkSecurity::read(settings_.link, LinkSecurity::Side::kWorker);
        if (!security) return usage(security.error());
        net::SocketAddress nobody;
        nobody.host = "127.0.0.1";
        if (auto sound = transfer_options(settings_, nobody, *security); !sound) {
            return usage(sound.error());
        }
        const Interrupt interrupt;
        std::unique_ptr<OtherProcess> other;  // before the plane: NIXL wants no fork() behind it
        if (options_.mode == Mode::kLocal) {
            auto started = OtherProcess::start(args, &Interrupt::requested);
            if (!started) return failed(started.error());
            other = std::move(*started);
            options_.address = other->address();
        }
        metrics::Registry registry;
        auto plane = start_plane(settings_, nobody, *security, registry);
        if (!plane) return usage(plane.error());
        plane_ = *plane;
        const ExitCode code = with_link(*security);
        plane_->stop();
        return code;
    }

  private:
    [[nodiscard]] Result<void> check_sizes() const {
        const std::uint64_t most =
            std::min(settings_.transfer.size.bytes, settings_.transfer.incoming_size.bytes);
        if (options_.sizes.back() <= most) return {};
        return error(ErrorCode::kInvalidArgument,
                     "--bytes {} is more than may lie or come in at once: raise --transfer-size "
                     "and --transfer-incoming-size, on both sides.",
                     options_.sizes.back());
    }

    static ExitCode failed(const Error& why) {
        print_problem(why.code == ErrorCode::kCancelled ? "Stopped" : why.message);
        return ExitCode::kFailed;
    }

    ExitCode with_link(const SecurityPtr& security) {
        Loops loops;
        HandoffProbe probe(loops.pool().at(0), plane_, &Interrupt::requested);
        requests::LinkOptions link;
        link.address = *options_.address;
        link.stream.tls = security->client_tls();
        link.link.name = fmt::format("bench-{}", ::getpid());
        link.link.incarnation = protocol::Incarnation(random_number());
        link.link.secret = security->secret();
        link.link.silent_after = settings_.link.silent_after;
        link.link.lost_after = settings_.link.lost_after;
        auto info = probe.connect(std::move(link));
        if (!info) {
            auto why = info.error();
            why.message = fmt::format("{}: {}", net::to_string(*options_.address), why.message);
            return failed(why);
        }
        results_.other =
            options_.mode == Mode::kLocal
                ? std::string("a second process on this machine")
                : fmt::format("{} (stator {})", net::to_string(*options_.address), info->version);
        results_.checksums = settings_.transfer.checksums;
        return measure_all(probe);
    }

    ExitCode measure_all(HandoffProbe& probe) {
        auto facts = probe.facts();
        if (!facts) return failed(facts.error());
        results_.off = plane_->why_off();
        results_.off.insert(facts->why_off.begin(), facts->why_off.end());
        std::optional<Error> broken;
        for (const std::uint64_t bytes : options_.sizes) {
            if (Interrupt::requested() || broken) break;
            results_.rows.push_back(measure_memcpy(bytes, options_.handoffs));
            for (const std::string& method : plane_->methods()) {
                if (results_.off.contains(method)) continue;
                progress(fmt::format("{} by {}", size_text(bytes), method));
                auto measured = measure(probe, method, bytes);
                if (!measured) {
                    broken = std::move(measured.error());
                    break;
                }
            }
        }
        progress("");
        results_.complete = !broken && !Interrupt::requested();
        return show(broken);
    }

    /// An error: nothing more can be measured. A way that does not work between the two is noted.
    Result<void> measure(HandoffProbe& probe, const std::string& method, std::uint64_t bytes) {
        const auto first = probe.take(method, bytes);
        if (!first) {
            const ErrorCode code = first.error().code;
            if (code != ErrorCode::kUnavailable && code != ErrorCode::kUnsupported) {
                return tl::unexpected<Error>(first.error());
            }
            // Whether it is the way or the other process that is gone, its next answer says.
            if (auto alive = probe.facts(); !alive) {
                return tl::unexpected<Error>(std::move(alive.error()));
            }
            results_.off.emplace(method, first.error().message);
            return {};
        }
        if (auto warm = probe.take(method, bytes); !warm) {
            return tl::unexpected<Error>(std::move(warm.error()));
        }
        const auto before = probe.facts();
        if (!before) return tl::unexpected<Error>(before.error());
        std::vector<HandoffSample> samples;
        Result<void> outcome;
        while (samples.size() < options_.handoffs) {
            auto sample = probe.take(method, bytes);
            if (!sample) {
                outcome = tl::unexpected<Error>(std::move(sample.error()));
                break;
            }
            samples.push_back(std::move(*sample));
        }
        if (samples.empty()) return outcome;
        // What the last one cost is known when the next one is asked for.
        const auto after = outcome ? probe.facts() : Result<HandoffFacts>(samples.back().facts);
        const double cpu = after ? after->cpu_seconds - before->cpu_seconds : 0;
        results_.rows.push_back(figures_of(method, bytes, *first, samples, cpu));
        return outcome;
    }

    static void progress(const std::string& text) {
        if (!is_terminal(STDERR_FILENO)) return;
        print_err(fmt::format("\r\x1b[K{}{}", text, text.empty() ? "" : " …"));
    }

    ExitCode show(const std::optional<Error>& broken) {
        const std::string table = to_table(results_);
        const std::string json = to_json(results_);
        if (options_.json == "-") {
            print_err(table);
            print_out(json);
        } else {
            print_out(table);
        }
        if (broken) return failed(*broken);
        if (!options_.json.empty() && options_.json != "-") {
            if (auto ok = write_file_at_once("The report", options_.json, json); !ok) {
                return failed(ok.error());
            }
        }
        if (!results_.complete) return failed(error(ErrorCode::kCancelled, "stopped").value());
        if (results_.off.size() >= settings_.transfer.methods.size()) {
            print_problem("There was no way to measure");
            return ExitCode::kFailed;
        }
        return ExitCode::kDone;
    }

    BenchTransferOptions options_;
    const config::Settings& settings_;
    PlanePtr plane_;
    TransferResults results_;
};

}  // namespace

ExitCode run_bench_transfer(const Invocation& invocation) {
    const bool supervised = std::getenv("STATOR_READY_FD") != nullptr;
    auto options = parse_bench_transfer_options(invocation.args, supervised);
    if (!options) return usage(options.error());
    if (!*options) {
        print_out(bench_transfer_help(style_of(STDOUT_FILENO)));
        return ExitCode::kDone;
    }
    auto loaded = load_settings((*options)->config_path, std::move((*options)->flags));
    if (!loaded) return ExitCode::kUsage;
    config::Settings& settings = loaded->settings;
    if ((*options)->mode == Mode::kLocal || supervised) keep_local(settings);
    // Beside the table only what is wrong.
    const bool serves = (*options)->mode == Mode::kListen && !supervised;
    set_log(serves ? settings.log.level : std::max(settings.log.level, LogLevel::kWarn),
            settings.log.format);
    if ((*options)->mode == Mode::kListen) {
        return listen(settings, *(*options)->address, supervised);
    }
    return TransferBench(std::move(**options), settings).run(invocation.args);
}

}  // namespace stator::cli
