#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <csignal>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "stator/base/clock.h"
#include "stator/base/log.h"
#include "stator/cli/command_line.h"
#include "stator/cli/commands.h"
#include "stator/cli/curve_keys.h"
#include "stator/cli/fleet_front.h"
#include "stator/cli/help.h"
#include "stator/cli/link_security.h"
#include "stator/cli/settings_source.h"
#include "stator/cli/stop_signal.h"
#include "stator/cli/terminal.h"
#include "stator/codec/json_writer.h"
#include "stator/codec/msgpack.h"
#include "stator/config/value.h"
#include "stator/events/subscriber.h"
#include "stator/fleet/fleet.h"

namespace stator::cli {
namespace {

struct TailOptions {
    std::vector<std::string> topics;
    bool json = false;
    bool heartbeats = false;
    std::uint64_t count = 0;  ///< 0: without end
};

/// "worker-0 kv rank 0 #17 {…}", or an object.
std::string line_of(const std::string& worker, const events::Message& m, bool json,
                    const Style& style) {
    std::string payload;
    if (m.payload.empty()) {
        payload = "null";
    } else if (auto ok = codec::append_msgpack_as_json(m.payload, payload); !ok) {
        payload.clear();
        codec::append_json_string(payload, "not MessagePack: " + ok.error().message);
    }
    if (!json) {
        return fmt::format("{}{}{} {}{} rank {} #{} {}\n", style.bold, worker, style.reset,
                           m.heartbeat ? "heartbeat " : "", m.topic, m.rank, m.sequence,
                           m.heartbeat ? "" : payload);
    }
    std::string out;
    codec::JsonWriter w(out);
    w.begin_object().key("worker").string(worker).key("topic").string(m.topic);
    w.key("incarnation").string(fmt::format("{:016x}", m.incarnation.value));
    w.key("rank").number(m.rank).key("sequence").number(m.sequence);
    w.key("heartbeat").boolean(m.heartbeat).key("payload").raw(payload).end_object();
    return out + "\n";
}

/// Follows the publishers of whatever workers a fleet has.
class Tail {
  public:
    Tail(TailOptions options, std::unique_ptr<events::SubscriberHost> host)
        : options_(std::move(options)), style_(style_of(STDOUT_FILENO)), host_(std::move(host)) {}

    /// On the fleet's loop.
    void follow(const fleet::FleetView& view) {
        std::set<std::uint64_t> there;
        for (const fleet::WorkerView& worker : view.workers) {
            if (!worker.info || !worker.info->events) continue;
            const std::uint64_t incarnation = worker.info->incarnation.value;
            there.insert(incarnation);
            if (subscriptions_.contains(incarnation)) continue;
            auto made = host_->listen(
                *worker.info->events, options_.topics,
                [this, name = worker.info->name](const events::Message& m) { take(name, m); });
            if (!made) {
                print_problem(made.error());
                continue;
            }
            log_info("Listening to a worker's events.",
                     {{"worker", worker.info->name}, {"address", worker.info->events->address}});
            subscriptions_.emplace(incarnation, std::move(*made));
        }
        std::erase_if(subscriptions_,
                      [&](const auto& entry) { return !there.contains(entry.first); });
    }
    void stop() { subscriptions_.clear(); }

  private:
    /// On the subscriber's thread.
    void take(const std::string& worker, const events::Message& message) {
        if (done_ || (message.heartbeat && !options_.heartbeats)) return;
        print_out(line_of(worker, message, options_.json, style_));
        if (options_.count != 0 && ++printed_ >= options_.count) {
            done_ = true;
            ::kill(::getpid(), SIGTERM);
        }
    }

    TailOptions options_;
    Style style_;
    std::unique_ptr<events::SubscriberHost> host_;
    std::map<std::uint64_t, std::unique_ptr<events::Subscription>> subscriptions_;
    std::atomic<bool> done_{false};
    std::uint64_t printed_ = 0;
};

ExitCode tail(const config::Settings& settings, TailOptions options) {
    const auto fail = [](const Error& why) {
        print_problem(why);
        return ExitCode::kUsage;
    };
    if (const auto ok = check_fleet_settings(settings.fleet); !ok) return fail(ok.error());
    auto security = LinkSecurity::read(settings.link, LinkSecurity::Side::kFrontend);
    if (!security) return fail(security.error());
    auto host_options = subscriber_options(settings);
    if (!host_options) return fail(host_options.error());
    // Workers; the host checks that so many sockets can be had.
    constexpr std::size_t kExpected = 1024;
    auto host = events::start_subscribers(std::move(*host_options), kExpected);
    if (!host) return fail(host.error());
    auto fleet_options = fleet_options_of(settings, {}, *security, "events");
    if (!fleet_options) return fail(fleet_options.error());

    StopSignal stop;
    metrics::Registry registry;
    runtime::LoopPool loops(1, "fleet");
    loops.start();
    Tail following(std::move(options), std::move(*host));
    auto fleet = fleet::start_fleet(std::move(*fleet_options), loops, registry);
    if (!fleet) {
        loops.stop();
        return fail(fleet.error());
    }
    (*fleet)->watch(
        [&following](std::shared_ptr<const fleet::FleetView> view) { following.follow(*view); });
    stop.begin_serving();
    static_cast<void>(stop.wait());
    (*fleet)->stop();
    loops.stop();
    following.stop();
    return ExitCode::kDone;
}

Result<std::uint64_t> read_count(const std::string& text) {
    std::uint64_t count = 0;
    if (text.empty()) return count;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), count);
    if (read.ec == std::errc{} && read.ptr == text.data() + text.size() && count > 0) return count;
    return error(ErrorCode::kInvalidArgument, "--count must be a whole number from 1, not {}.",
                 config::in_quotes(text));
}

}  // namespace

ExitCode run_events(const Invocation& invocation) {
    CommandLine line("stator events");
    TailOptions options;
    std::string config_path;
    std::string count;
    std::vector<std::string> words;
    std::vector<config::FlagValue> flags;
    line.add_words(words);
    line.add_values("--topic", options.topics);
    line.add_switch("--json", options.json);
    line.add_switch("--heartbeats", options.heartbeats);
    line.add_value("--count", count);
    line.add_value("--config", config_path);
    line.add_options(flags);
    const auto outcome = line.parse(invocation.args);
    if (!outcome) {
        print_problem(outcome.error());
        return ExitCode::kUsage;
    }
    if (*outcome == CommandLine::Outcome::kHelp) {
        print_out(events_help(style_of(STDOUT_FILENO)));
        return ExitCode::kDone;
    }
    if (words == std::vector<std::string>{"keygen"}) {
        print_out(format_curve_keys(events::make_curve_keys()));
        return ExitCode::kDone;
    }
    if (words != std::vector<std::string>{"tail"}) {
        print_problem("Say what to do: stator events tail, or stator events keygen.");
        return ExitCode::kUsage;
    }
    auto number = read_count(count);
    if (!number) {
        print_problem(number.error());
        return ExitCode::kUsage;
    }
    options.count = *number;
    auto loaded = load_settings(config_path, std::move(flags));
    if (!loaded) return ExitCode::kUsage;
    set_log(loaded->settings.log.level, loaded->settings.log.format);
    return tail(loaded->settings, std::move(options));
}

}  // namespace stator::cli
