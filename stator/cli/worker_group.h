#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/cli/attached_setup.h"
#include "stator/cli/link_security.h"
#include "stator/cli/served_engine.h"
#include "stator/config/settings.h"
#include "stator/metrics/registry.h"
#include "stator/protocol/worker_info.h"
#include "stator/runtime/loop.h"
#include "stator/transfer/transfer.h"
#include "stator/worker/worker.h"

namespace stator::cli {

/// All workers of a process, one as a rule, with their engines. They share loops, metrics, the
/// event plane's thread and, as mock engines, the threads that drive them. stop() ends it, in the
/// order that everybody's lives ask for.
class WorkerGroup {
  public:
    WorkerGroup(const config::Settings& settings, runtime::LoopPool& loops,
                metrics::Registry& registry);
    ~WorkerGroup();  ///< stop() must have been called, or start() never
    WorkerGroup(const WorkerGroup&) = delete;
    WorkerGroup& operator=(const WorkerGroup&) = delete;

    /// Before start(): the engine is this one, in a process of its own. `on_changed`: it is back as
    /// another one than it was; the process should end and begin anew.
    void attach(FoundAttached attached, std::function<void(const std::string& why)> on_changed);
    /// On the planes, loading. `security`: of handoffs too.
    [[nodiscard]] Result<void> start(std::vector<worker::WorkerOptions> options,
                                     const std::shared_ptr<LinkSecurity>& security);
    /// Opens the engines and says that all are ready.
    [[nodiscard]] Result<void> load(std::uint32_t engine_threads);

    [[nodiscard]] const std::string& model_name() const { return model_name_; }
    [[nodiscard]] std::size_t size() const { return members_.size(); }
    [[nodiscard]] const worker::Worker& at(std::size_t i) const { return *members_[i].worker; }
    /// Of one that is not ready, where there is one: a process is as ready as its last worker.
    /// Thread-safe.
    [[nodiscard]] protocol::WorkerInfo info() const;

    /// What is not as it should be with an engine attached. Thread-safe.
    [[nodiscard]] std::vector<std::string> concerns() const;

    /// None takes requests from here on; returns when all are done or the deadline is reached.
    void drain(Deadline deadline);
    void stop();

  private:
    struct Member {
        std::unique_ptr<worker::Worker> worker;
        std::vector<std::shared_ptr<engine::Engine>> engines;  ///< by rank
    };
    [[nodiscard]] Result<ServedEngine> open_attached();
    [[nodiscard]] Result<ServedEngine> open_engines(std::uint32_t engine_threads);
    [[nodiscard]] engine::KvEventSink kv_sink(Member& member, std::uint32_t rank);
    [[nodiscard]] std::function<void()> crash_of(Member& member);

    const config::Settings& settings_;
    runtime::LoopPool& loops_;
    metrics::Registry& registry_;
    std::uint32_t ranks_ = 1;
    worker::WorkerServices services_;
    std::shared_ptr<transfer::TransferPlane> transfer_;  ///< null: no handoffs
    /// Ends workers that crash: their engines' thread can't wait for that.
    std::unique_ptr<runtime::CpuPool> undertaker_;
    std::shared_ptr<engine::MockHost> mock_host_;
    std::vector<Member> members_;  ///< does not change after start()
    std::string model_name_;
    std::optional<FoundAttached> found_;
    /// Under the lock until there is one, then the same.
    mutable std::mutex attached_mutex_;
    std::shared_ptr<engine::AttachedEngine> attached_;
    bool available_ = true;  ///< as the engine says
    bool ready_ = false;     ///< the worker has been set ready
};

}  // namespace stator::cli
