#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "stator/base/error.h"
#include "stator/cli/commands.h"
#include "stator/config/settings.h"

namespace stator::cli {

/// Calls `changed` on a thread of its own whenever the file is another than before: replaced (as
/// Kubernetes replaces a mounted ConfigMap) or written. A file that is gone for a while is no
/// change. An empty path: nothing is watched.
class FileWatch {
  public:
    FileWatch(std::string path, std::function<void()> changed,
              std::chrono::milliseconds every = std::chrono::seconds(2));
    ~FileWatch();
    FileWatch(const FileWatch&) = delete;
    FileWatch& operator=(const FileWatch&) = delete;

  private:
    void run();

    const std::string path_;
    const std::function<void()> changed_;
    const std::chrono::milliseconds every_;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool stopping_ = false;
    std::thread thread_;
};

/// Reads a server's settings again while it runs, and hands the router's to who can take them. What
/// else has changed is named in the log: it needs a restart. Not thread-safe; a change of the
/// configuration file asks for reload() by SIGHUP.
class SettingsReload {
  public:
    /// `invocation` made `current`; both outlive this.
    SettingsReload(const Invocation& invocation, config::Settings current);

    void reload(const std::function<Result<void>(const config::RouterSettings&)>& apply);

  private:
    const Invocation& invocation_;
    config::Settings current_;
    FileWatch watch_;
};

}  // namespace stator::cli
