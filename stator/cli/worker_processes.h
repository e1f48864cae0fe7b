#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/config/settings.h"
#include "stator/config/topology.h"
#include "stator/control/supervisor.h"

namespace stator::cli {

/// Worker processes that are alike; there may be more or fewer of them.
struct WorkerKind {
    std::string name;
    std::uint32_t count = 1;         ///< as configured
    std::vector<std::string> roles;  ///< at least one
    bool attached = false;           ///< beside an engine that is there already: exactly one
};

/// The worker processes that `stator serve` keeps running, as commands. Each gets our own flags and
/// environment (so that one configuration holds for all), then its own: name, folder to announce
/// in, threads, and what the topology says.
class WorkerCommands {
  public:
    /// What is handed in must outlive it.
    WorkerCommands(std::string program, const std::vector<std::string>& our_flags,
                   const config::Settings& settings,
                   const std::vector<config::TopologyWorker>& topology, std::string announce_folder,
                   std::size_t usable_cores);

    [[nodiscard]] const std::vector<WorkerKind>& kinds() const { return kinds_; }
    /// Half of the cores, as one server would take, are divided among so many workers; from the
    /// start, as many as are configured.
    void divide_cores_by(std::size_t workers) { share_ = std::max<std::size_t>(1, workers); }
    /// Number `index` of a kind; an attached one has none.
    [[nodiscard]] control::ChildSpec child(std::size_t kind, std::uint32_t index) const;
    /// All, as many as are configured.
    [[nodiscard]] std::vector<control::ChildSpec> all() const;

  private:
    struct Source {
        const config::TopologyWorker* from = nullptr;
        std::vector<std::string> flags = {};  ///< of one attached engine
    };
    void add_attached();

    const std::string program_;
    const std::vector<std::string>& our_flags_;
    const config::Settings& settings_;
    const std::string folder_;
    const std::size_t cores_;
    std::vector<std::string> plain_flags_;  ///< ours without those of engines
    std::vector<WorkerKind> kinds_;
    std::vector<Source> sources_;  ///< by kind
    std::size_t share_ = 1;
};

/// The same for one engine that has registered itself: `url` and role of it.
[[nodiscard]] control::ChildSpec registered_command(const std::string& program,
                                                    const std::vector<std::string>& our_flags,
                                                    const config::Settings& settings,
                                                    const std::string& announce_folder,
                                                    const std::string& name, const std::string& url,
                                                    const std::string& role);

/// The user's run-time folder, made (0700) where it is not there.
[[nodiscard]] Result<std::string> run_time_folder();

/// A new folder for one run, below the user's run-time folder; removed with what is in it at the
/// end.
class RunFolder {
  public:
    [[nodiscard]] static Result<std::unique_ptr<RunFolder>> make();
    ~RunFolder();
    RunFolder(const RunFolder&) = delete;
    RunFolder& operator=(const RunFolder&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    explicit RunFolder(std::string path) : path_(std::move(path)) {}
    std::string path_;
};

}  // namespace stator::cli
