#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stator/base/error.h"
#include "stator/kube/access.h"
#include "stator/net/socket_address.h"
#include "stator/runtime/loop.h"

namespace stator::discovery {

/// Where a worker may be. Labels are hints that save dials; who is there only the handshake says.
struct Candidate {
    net::SocketAddress address;
    std::map<std::string, std::string> labels;
    bool operator==(const Candidate&) const = default;
};

/// How a set of candidates, each address once, differs from what it was.
struct Difference {
    std::vector<Candidate> put;  ///< new addresses, and known ones with other labels
    std::vector<net::SocketAddress> gone;
};

/// Something that knows addresses. Tells its set, on the loop, at first and whenever it changes, as
/// the difference from what it told before; the first may be empty, later ones are not. A source
/// that fails (folder gone, name server silent) keeps the last set, logs once per change of state,
/// and goes on trying.
class Source {
  public:
    using Changes = std::function<void(Difference)>;
    /// For those who want the whole set each time; see whole_sets().
    using Changed = std::function<void(std::vector<Candidate>)>;
    virtual ~Source() = default;
    /// "directory:/run/stator", for logs and /health.
    [[nodiscard]] virtual const std::string& name() const = 0;
    /// False while the last look failed; `reason` says why. Thread-safe.
    [[nodiscard]] virtual bool healthy(std::string& reason) const = 0;
    /// On the loop. After it `changed` is not called any more.
    virtual void stop() = 0;
};

/// Makes a source and starts it on the loop; `changed` is called there, the first time soon.
///   "tcp://host:port", "host:port", "unix:/path"   one fixed address
///   "static:A,B,C"                                 several
///   "dir:/path"                                    every file *.worker in a folder
///   "dns:name:port"                                every address the name has, asked again every
///                                                  5 s
///   "kubernetes:namespace/selector?port=name"      the ready endpoints of a Service, as they
///   change
/// kInvalidArgument names what is wrong and shows the forms there are. Any thread.
enum class FileKind : std::uint8_t { kWorker, kFrontend };
struct SourceOptions {
    FileKind of = FileKind::kWorker;  ///< whose files in a folder are meant
    kube::AccessOptions kube = {};    ///< how the API server of a cluster is reached
};
[[nodiscard]] Result<std::shared_ptr<Source>> make_source(const std::string& text,
                                                          runtime::Loop& loop,
                                                          Source::Changes changes,
                                                          const SourceOptions& options = {});
[[nodiscard]] Result<std::shared_ptr<Source>> make_source(const std::string& text,
                                                          runtime::Loop& loop,
                                                          Source::Changed changed,
                                                          const SourceOptions& options = {});

/// Keeps the set and tells the whole of it, by address; never the same set twice in a row.
[[nodiscard]] Source::Changes whole_sets(Source::Changed changed);

/// Checks the text only.
[[nodiscard]] Result<void> check_source(const std::string& text);

/// More candidates than this of one source are left out, and logged.
constexpr std::size_t kMaxCandidates = 65'536;

/// A worker's or frontend's entry in a folder: NAME.worker or NAME.frontend, written at once
/// (temporary file, rename), removed by the destructor unless a later one has taken its place. The
/// file is YAML-free on purpose: first line the address, then lines "label=value".
class Announcement {
  public:
    /// Makes the folder (mode 0700) where there is none. kInvalidArgument for what does not fit the
    /// file, kPermissionDenied, kUnavailable.
    [[nodiscard]] static Result<std::unique_ptr<Announcement>> write(
        const std::string& folder, const std::string& name, const Candidate& candidate,
        FileKind of = FileKind::kWorker);
    ~Announcement();
    Announcement(const Announcement&) = delete;
    Announcement& operator=(const Announcement&) = delete;

  private:
    Announcement(std::string path, std::uint64_t inode) : path_(std::move(path)), inode_(inode) {}
    std::string path_;
    std::uint64_t inode_;
};

/// $XDG_RUNTIME_DIR/stator, else /tmp/stator-UID: where workers and frontends of one user on one
/// machine meet when nothing else is said. kPermissionDenied where it is there and somebody else's
/// or others may write into it: whoever can write there decides where requests go.
[[nodiscard]] Result<std::string> default_folder();

}  // namespace stator::discovery
