#include "stator/cli/settings_reload.h"

#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <tuple>
#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/cli/command_line.h"
#include "stator/cli/settings_source.h"

namespace stator::cli {
namespace {

/// What differs between two states of a file. Follows links: Kubernetes swaps one.
using FileState = std::tuple<dev_t, ino_t, off_t, time_t, long>;

/// None where there is none, and for pipes, which can be read once alone.
std::optional<FileState> state_of(const std::string& path) {
    struct stat s{};
    if (::stat(path.c_str(), &s) != 0 || !S_ISREG(s.st_mode)) return std::nullopt;
    return FileState(s.st_dev, s.st_ino, s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
}

struct Source {
    std::string path;
    std::vector<config::FlagValue> flags;
};

/// The words were read once already: nothing in them is wrong.
Source source_of(const Invocation& invocation) {
    Source out;
    CommandLine line("stator");
    line.add_value("--config", out.path);
    line.add_options(out.flags);
    std::ignore = line.parse(invocation.args);
    if (out.path.empty()) {
        const char* path = std::getenv("STATOR_CONFIG");
        out.path = path == nullptr ? "" : path;
    }
    return out;
}

}  // namespace

FileWatch::FileWatch(std::string path, std::function<void()> changed,
                     std::chrono::milliseconds every)
    : path_(std::move(path)), changed_(std::move(changed)), every_(every) {
    if (!path_.empty()) thread_ = std::thread([this] { run(); });
}

FileWatch::~FileWatch() {
    {
        const std::scoped_lock lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
}

void FileWatch::run() {
    auto last = state_of(path_);
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, every_, [this] { return stopping_; })) {
        lock.unlock();
        const auto now = state_of(path_);
        if (now && now != last) {
            last = now;
            changed_();
        }
        lock.lock();
    }
}

SettingsReload::SettingsReload(const Invocation& invocation, config::Settings current)
    : invocation_(invocation),
      current_(std::move(current)),
      watch_(source_of(invocation).path, [] { ::kill(::getpid(), SIGHUP); }) {}

void SettingsReload::reload(
    const std::function<Result<void>(const config::RouterSettings&)>& apply) {
    Source source = source_of(invocation_);
    if (!source.path.empty() && !state_of(source.path)) {
        return log_error("The configuration file is gone, or no file; the old settings stay.",
                         {{"file", source.path}});
    }
    auto loaded = load_settings(source.path, std::move(source.flags));
    if (!loaded) {
        return log_error("The settings can't be read again; the old ones stay.",
                         {{"file", source.path}});
    }
    config::Settings& now = loaded->settings;
    if (now.router != current_.router) {
        if (const auto applied = apply(now.router); !applied) {
            return log_error("The router's new settings are wrong; the old ones stay.",
                             {{"reason", applied.error().message}});
        }
        log_info("The router has new settings.", {{"policy", now.router.policy}});
    }
    current_.router = now.router;
    if (now != current_) {
        log_warn("Settings other than the router's have changed: they need a restart.",
                 {{"file", source.path}});
    }
}

}  // namespace stator::cli
