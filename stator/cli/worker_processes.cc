#include "stator/cli/worker_processes.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "stator/config/value.h"
#include "stator/discovery/source.h"

namespace stator::cli {
namespace {

/// Flags that are lists, whose items all count: a worker gets its own alone.
constexpr std::array<std::string_view, 3> kEngineFlags{"--engine", "--engine-events",
                                                       "--engine-replay"};

std::vector<std::string> without_engines(const std::vector<std::string>& flags) {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < flags.size(); ++i) {
        if (std::ranges::find(kEngineFlags, flags[i]) != kEngineFlags.end()) {
            ++i;  // its value
        } else if (std::ranges::none_of(kEngineFlags, [&](std::string_view flag) {
                       return flags[i].starts_with(flag) && flags[i].substr(flag.size(), 1) == "=";
                   })) {
            out.push_back(flags[i]);
        }
    }
    return out;
}

bool sets(const config::TopologyWorker* from, std::string_view key) {
    return from != nullptr &&
           std::ranges::any_of(from->options, [key](const auto& o) { return o.first->key == key; });
}

}  // namespace

WorkerCommands::WorkerCommands(std::string program, const std::vector<std::string>& our_flags,
                               const config::Settings& settings,
                               const std::vector<config::TopologyWorker>& topology,
                               std::string announce_folder, std::size_t usable_cores)
    : program_(std::move(program)),
      our_flags_(our_flags),
      settings_(settings),
      folder_(std::move(announce_folder)),
      cores_(usable_cores),
      plain_flags_(without_engines(our_flags)) {
    add_attached();
    const auto add = [this](WorkerKind kind, Source source) {
        kinds_.push_back(std::move(kind));
        sources_.push_back(std::move(source));
    };
    if (settings.supervisor.workers > 0) {
        add({"worker", settings.supervisor.workers, settings.worker.roles}, {});
    }
    for (const config::TopologyWorker& w : topology) {
        WorkerKind kind{w.name, w.count, settings.worker.roles};
        for (const auto& [option, text] : w.options) {
            if (option->key != "worker.roles") continue;
            if (const auto value = config::parse_value(*option, text)) {
                kind.roles = std::get<std::vector<std::string>>(*value);
            }
        }
        add(std::move(kind), {&w});
    }
    std::size_t total = 0;
    for (const WorkerKind& kind : kinds_) total += kind.count;
    divide_cores_by(total);
}

/// One for each engine that can have a worker, numbered by its kind.
void WorkerCommands::add_attached() {
    const config::EngineSettings& engine = settings_.engine;
    for (std::size_t i = 0; i < engine.attached.size(); ++i) {
        const config::AttachedEngine& a = engine.attached[i];
        if (a.kind == "openai") continue;
        const auto before = std::ranges::count_if(
            kinds_, [&](const WorkerKind& k) { return k.name.starts_with(a.kind); });
        kinds_.push_back({fmt::format("{}-{}", a.kind, before), 1, settings_.worker.roles, true});
        Source& source = sources_.emplace_back();
        source.flags.push_back(fmt::format("--engine={}={}", a.kind, a.url));
        if (i < engine.events.size()) source.flags.push_back("--engine-events=" + engine.events[i]);
        if (i < engine.replay.size()) source.flags.push_back("--engine-replay=" + engine.replay[i]);
    }
}

control::ChildSpec WorkerCommands::child(std::size_t number, std::uint32_t index) const {
    const WorkerKind& kind = kinds_.at(number);
    const Source& source = sources_.at(number);
    const config::TopologyWorker* from = source.from;
    control::ChildSpec child;
    child.name = kind.attached ? kind.name : fmt::format("{}-{}", kind.name, index);
    child.command = {program_, "worker"};
    const auto& flags = kind.attached || sets(from, "engine.kind") ? plain_flags_ : our_flags_;
    child.command.insert(child.command.end(), flags.begin(), flags.end());
    child.command.insert(child.command.end(), source.flags.begin(), source.flags.end());
    const auto add = [&](std::string_view flag, const std::string& value) {
        child.command.push_back(fmt::format("{}={}", flag, value));
    };
    if (settings_.engine.threads == 0 && !kind.attached && !sets(from, "engine.threads")) {
        add("--engine-threads", std::to_string(std::max<std::size_t>(1, cores_ / 2 / share_)));
    }
    add("--worker-name", child.name);
    add("--announce", folder_);
    const std::string place =
        child.name + (settings_.worker.count > 1 || sets(from, "worker.count") ? ".%p.%i" : ".%p");
    add("--listen", "unix:" + folder_ + "/" + place + ".sock");
    if (settings_.worker.events.empty()) {
        add("--events", "ipc://" + folder_ + "/" + place + ".events");
    }
    if (from == nullptr) return child;
    for (const auto& [option, text] : from->options) add(option->flag, text);
    for (const auto& [name, value] : from->environment) child.environment[name] = value;
    return child;
}

std::vector<control::ChildSpec> WorkerCommands::all() const {
    std::vector<control::ChildSpec> out;
    for (std::size_t kind = 0; kind < kinds_.size(); ++kind) {
        for (std::uint32_t i = 0; i < kinds_[kind].count; ++i) out.push_back(child(kind, i));
    }
    return out;
}

control::ChildSpec registered_command(const std::string& program,
                                      const std::vector<std::string>& our_flags,
                                      const config::Settings& settings,
                                      const std::string& announce_folder, const std::string& name,
                                      const std::string& url, const std::string& role) {
    control::ChildSpec child;
    child.name = name;
    child.command = {program, "worker"};
    const auto flags = without_engines(our_flags);
    child.command.insert(child.command.end(), flags.begin(), flags.end());
    const std::string place = announce_folder + "/" + name + ".%p";
    child.command.insert(child.command.end(),
                         {"--engine=trtllm=" + url, "--role=" + role, "--worker-name=" + name,
                          "--announce=" + announce_folder, "--listen=unix:" + place + ".sock"});
    if (settings.worker.events.empty()) {
        child.command.push_back("--events=ipc://" + place + ".events");
    }
    return child;
}

Result<std::string> run_time_folder() {
    auto folder = discovery::default_folder();
    if (!folder) return folder;
    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(*folder).parent_path(), ignored);
    if (::mkdir(folder->c_str(), S_IRWXU) != 0 && errno != EEXIST) {
        return error(ErrorCode::kUnavailable, "The folder {} can't be made: {}.", *folder,
                     std::strerror(errno));
    }
    return folder;
}

Result<std::unique_ptr<RunFolder>> RunFolder::make() {
    const auto parent = run_time_folder();
    if (!parent) return tl::unexpected(parent.error());
    std::string path = *parent + "/serve-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) {
        return error(ErrorCode::kUnavailable, "No folder can be made in {}: {}.", *parent,
                     std::strerror(errno));
    }
    return std::unique_ptr<RunFolder>(new RunFolder(std::move(path)));
}

RunFolder::~RunFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

}  // namespace stator::cli
