#include "stator/cli/worker_processes.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "stator/discovery/source.h"

namespace stator::cli {
namespace {

struct Kind {
    std::string name;
    std::uint32_t count = 1;
    const config::TopologyWorker* from = nullptr;
    std::vector<std::string> flags = {};  ///< of one attached engine
};

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

/// One for each engine that can have a worker, numbered by its kind.
std::vector<Kind> attached_kinds(const config::EngineSettings& engine) {
    std::vector<Kind> out;
    for (std::size_t i = 0; i < engine.attached.size(); ++i) {
        const config::AttachedEngine& a = engine.attached[i];
        if (a.kind == "openai") continue;
        Kind& kind = out.emplace_back();
        kind.name = fmt::format("{}-{}", a.kind, std::ranges::count_if(out, [&](const Kind& k) {
                                    return k.name.starts_with(a.kind);
                                }));
        kind.flags.push_back(fmt::format("--engine={}={}", a.kind, a.url));
        if (i < engine.events.size()) {
            kind.flags.push_back("--engine-events=" + engine.events[i]);
        }
        if (i < engine.replay.size()) {
            kind.flags.push_back("--engine-replay=" + engine.replay[i]);
        }
    }
    return out;
}

bool sets(const config::TopologyWorker* from, std::string_view key) {
    return from != nullptr &&
           std::ranges::any_of(from->options, [key](const auto& o) { return o.first->key == key; });
}

}  // namespace

std::vector<control::ChildSpec> worker_commands(const std::string& program,
                                                const std::vector<std::string>& our_flags,
                                                const config::Settings& settings,
                                                const std::vector<config::TopologyWorker>& topology,
                                                const std::string& announce_folder,
                                                std::size_t usable_cores) {
    std::vector<Kind> kinds = attached_kinds(settings.engine);
    const std::vector<std::string> plain_flags = without_engines(our_flags);
    if (settings.supervisor.workers > 0) {
        kinds.push_back({"worker", settings.supervisor.workers, nullptr});
    }
    for (const config::TopologyWorker& w : topology) kinds.push_back({w.name, w.count, &w});
    std::size_t total = 0;
    for (const Kind& kind : kinds) total += kind.count;

    std::vector<control::ChildSpec> out;
    for (const Kind& kind : kinds) {
        for (std::uint32_t i = 0; i < kind.count; ++i) {
            control::ChildSpec& child = out.emplace_back();
            const bool attached = !kind.flags.empty();
            child.name = attached ? kind.name : fmt::format("{}-{}", kind.name, i);
            child.command = {program, "worker"};
            const auto& flags =
                attached || sets(kind.from, "engine.kind") ? plain_flags : our_flags;
            child.command.insert(child.command.end(), flags.begin(), flags.end());
            child.command.insert(child.command.end(), kind.flags.begin(), kind.flags.end());
            const auto add = [&](std::string_view flag, const std::string& value) {
                child.command.push_back(fmt::format("{}={}", flag, value));
            };
            // Half of the cores, as one server would take, divided among all.
            if (settings.engine.threads == 0 && !attached && !sets(kind.from, "engine.threads")) {
                add("--engine-threads",
                    std::to_string(std::max<std::size_t>(1, usable_cores / 2 / total)));
            }
            add("--worker-name", child.name);
            add("--announce", announce_folder);
            const std::string place =
                child.name +
                (settings.worker.count > 1 || sets(kind.from, "worker.count") ? ".%p.%i" : ".%p");
            add("--listen", "unix:" + announce_folder + "/" + place + ".sock");
            if (settings.worker.events.empty()) {
                add("--events", "ipc://" + announce_folder + "/" + place + ".events");
            }
            if (kind.from == nullptr) continue;
            for (const auto& [option, text] : kind.from->options) add(option->flag, text);
            for (const auto& [name, value] : kind.from->environment)
                child.environment[name] = value;
        }
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
