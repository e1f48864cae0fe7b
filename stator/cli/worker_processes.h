#pragma once

#include <memory>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/config/settings.h"
#include "stator/config/topology.h"
#include "stator/control/supervisor.h"

namespace stator::cli {

/// The worker processes that `stator serve` keeps running, as commands. Each gets our own flags and
/// environment (so that one configuration holds for all), then its own: name, folder to announce
/// in, threads, and what the topology says.
[[nodiscard]] std::vector<control::ChildSpec> worker_commands(
    const std::string& program, const std::vector<std::string>& our_flags,
    const config::Settings& settings, const std::vector<config::TopologyWorker>& topology,
    const std::string& announce_folder, std::size_t usable_cores);

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
