#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "stator/discovery/source.h"
#include "stator/kube/endpoint_set.h"

// Inside of the room: what the sources share and how each is made.
namespace stator::discovery {

/// Tells a set only when it has changed and logs only when health has. Sources derive from it.
class SourceBase : public Source, public std::enable_shared_from_this<SourceBase> {
  public:
    SourceBase(std::string name, runtime::Loop& loop, Changes changes)
        : loop_(loop), name_(std::move(name)), changes_(std::move(changes)) {}

    [[nodiscard]] const std::string& name() const override { return name_; }
    [[nodiscard]] bool healthy(std::string& reason) const override;
    void stop() override;
    virtual void start() = 0;  ///< on the loop

  protected:
    virtual void on_stop() = 0;
    /// The whole set: what differs from the last one is told.
    void tell(std::vector<Candidate> candidates);
    /// Only what has changed, for a source that knows it by itself; it does not use the other one.
    void tell(Difference difference);
    void succeeded();
    void failed(const std::string& reason);
    [[nodiscard]] bool stopped() const { return stopped_; }

    runtime::Loop& loop_;

  private:
    const std::string name_;
    Changes changes_;
    bool stopped_ = false;
    bool told_ = false;
    bool said_too_many_ = false;
    std::vector<Candidate> last_;

    mutable std::mutex mutex_;
    std::string reason_;  ///< guarded by mutex_; empty = healthy
};

/// Turns a name into addresses. Called on the loop; `done` is called there too, later.
using Resolved = std::function<void(Result<std::vector<std::string>>)>;
using Resolve = std::function<void(const std::string& host, Resolved done)>;
/// The system's resolver, on a thread of Asio's.
[[nodiscard]] Resolve system_resolver(runtime::Loop& loop);

[[nodiscard]] std::shared_ptr<SourceBase> make_static_source(
    std::string name, std::vector<net::SocketAddress> addresses, runtime::Loop& loop,
    Source::Changes changes);
[[nodiscard]] std::shared_ptr<SourceBase> make_directory_source(std::string folder, FileKind of,
                                                                runtime::Loop& loop,
                                                                Source::Changes changes);
[[nodiscard]] std::shared_ptr<SourceBase> make_dns_source(std::string host, std::uint16_t port,
                                                          std::chrono::milliseconds every,
                                                          Resolve resolve, runtime::Loop& loop,
                                                          Source::Changes changes);

/// "kubernetes:…", taken apart.
struct KubernetesSelection {
    std::string in_namespace;  ///< "." is the pod's own
    std::string selector;      ///< of labels of EndpointSlices
    kube::PortChoice port;
};
/// What follows "kubernetes:" ('&' in a selector is a comma); the message of a failure says what is
/// wrong with it.
[[nodiscard]] Result<KubernetesSelection> parse_kubernetes(std::string_view text);
[[nodiscard]] std::shared_ptr<SourceBase> make_kubernetes_source(std::string name,
                                                                 KubernetesSelection selection,
                                                                 kube::Access access,
                                                                 runtime::Loop& loop,
                                                                 Source::Changes changes);

}  // namespace stator::discovery
