#include "stator/transfer/nixl_mover.h"

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "stator/transfer/nixl_library.h"
#include "stator/transfer/random.h"

namespace stator::transfer {
namespace {

using Handle = NixlLibrary::Handle;

constexpr const char* kPlugin = "UCX";
constexpr std::size_t kMaxPeers = 256;  // whose metadata is kept
constexpr std::size_t kMaxActive = 16;  // writes that are under way at once
constexpr int kSpins = 2000;  // polls in a row before the thread lets others run for a moment

std::string agent_name() {
    std::string name = "stator-";
    for (const std::uint8_t b : random_bytes<12>()) name += fmt::format("{:02x}", b);
    return name;
}

class Mover final : public NixlMover {
  public:
    explicit Mover(std::unique_ptr<NixlLibrary> library) : nixl_(std::move(library)) {}
    ~Mover() override { stop(); }
    Mover(const Mover&) = delete;
    Mover& operator=(const Mover&) = delete;

    Result<void> start(const std::vector<std::shared_ptr<Arena>>& arenas);
    [[nodiscard]] const std::string& metadata() const override { return metadata_; }
    void write(std::string metadata, std::vector<Piece> pieces, std::shared_ptr<const void> keep,
               Done done) override;
    void stop() override;

  private:
    struct Job {
        std::string metadata;
        std::vector<Piece> pieces;
        std::shared_ptr<const void> keep;
        Done done;
        Handle local = nullptr;
        Handle remote = nullptr;
        Handle request = nullptr;
    };

    void run();
    /// True if it goes on; else it has ended.
    bool post(Job& job);
    [[nodiscard]] Result<std::string> peer_of(const std::string& metadata);
    void forget_peer(const std::string& metadata);
    void end(Job& job, Result<void> result);
    static Result<void> failed(std::string_view what, int status) {
        return error(ErrorCode::kUnavailable, "NIXL could not {} (status {})", what, status);
    }

    const std::unique_ptr<NixlLibrary> nixl_;
    std::vector<std::shared_ptr<Arena>> arenas_;
    Handle agent_ = nullptr;
    Handle backend_ = nullptr;
    Handle options_ = nullptr;
    Handle registered_ = nullptr;
    std::string metadata_;
    std::map<std::string, std::string> peers_;  ///< metadata -> agent's name

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Job> queue_;
    bool stopped_ = false;
    std::thread thread_;
};

Result<void> Mover::start(const std::vector<std::shared_ptr<Arena>>& arenas) {
    arenas_ = arenas;
    NixlLibrary::AgentConfig config;
    config.progress_thread = true;  // a receiver does not poll
    if (const int s = nixl_->create_configured_agent(agent_name().c_str(), &config, &agent_);
        s < 0) {
        agent_ = nullptr;
        return failed("make an agent", s);
    }
    Handle memories = nullptr;
    Handle params = nullptr;
    int s = nixl_->get_plugin_params(agent_, kPlugin, &memories, &params);
    if (s < 0) return failed("find its UCX plugin", s);
    s = nixl_->create_backend(agent_, kPlugin, params, &backend_);
    nixl_->destroy_mem_list(memories);
    nixl_->destroy_params(params);
    if (s < 0) return failed("start its UCX plugin", s);
    if (s = nixl_->create_opt_args(&options_); s >= 0) {
        s = nixl_->opt_args_add_backend(options_, backend_);
    }
    if (s >= 0) s = nixl_->create_reg_dlist(NixlLibrary::kDram, &registered_);
    for (const auto& arena : arenas_) {
        if (s < 0) break;
        const auto memory = arena->memory();
        s = nixl_->reg_dlist_add_desc(registered_, reinterpret_cast<std::uintptr_t>(memory.data()),
                                      memory.size(), 0, "", 0);
    }
    if (s >= 0) s = nixl_->register_mem(agent_, registered_, options_);
    if (s < 0) return failed("register memory", s);
    void* bytes = nullptr;
    std::size_t size = 0;
    if (s = nixl_->get_local_md(agent_, &bytes, &size); s < 0) {
        return failed("describe its memory", s);
    }
    metadata_.assign(static_cast<const char*>(bytes), size);
    std::free(bytes);  // NOLINT: allocated by the library with malloc()
    thread_ = std::thread([this] { run(); });
    return {};
}

void Mover::write(std::string metadata, std::vector<Piece> pieces, std::shared_ptr<const void> keep,
                  Done done) {
    {
        const std::scoped_lock lock(mutex_);
        if (!stopped_) {
            queue_.push_back({.metadata = std::move(metadata),
                              .pieces = std::move(pieces),
                              .keep = std::move(keep),
                              .done = std::move(done)});
            wake_.notify_one();
            return;
        }
    }
    done(error(ErrorCode::kCancelled, "the transfer plane is stopped"));
}

void Mover::run() {
    std::deque<Job> active;
    bool stopped = false;
    for (int spins = 0; !stopped; ++spins) {
        {
            std::unique_lock lock(mutex_);
            if (active.empty()) wake_.wait(lock, [this] { return stopped_ || !queue_.empty(); });
            stopped = stopped_;
            while (!queue_.empty() && active.size() < kMaxActive && !stopped) {
                active.push_back(std::move(queue_.front()));
                queue_.pop_front();
                lock.unlock();
                if (!post(active.back())) active.pop_back();
                lock.lock();
                spins = 0;
            }
        }
        std::erase_if(active, [this](Job& job) {
            const int s = nixl_->get_xfer_status(agent_, job.request);
            if (s == NixlLibrary::kInProgress) return false;
            if (s < 0) forget_peer(job.metadata);
            end(job, s < 0 ? failed("write to the other process", s) : Result<void>());
            return true;
        });
        if (spins > kSpins) std::this_thread::yield();
    }
    for (Job& job : active) {
        end(job, error(ErrorCode::kCancelled, "the transfer plane is stopped"));
    }
}

bool Mover::post(Job& job) {
    auto peer = peer_of(job.metadata);
    if (!peer) {
        end(job, tl::unexpected<Error>(std::move(peer.error())));
        return false;
    }
    int s = nixl_->create_xfer_dlist(NixlLibrary::kDram, &job.local);
    if (s >= 0) s = nixl_->create_xfer_dlist(NixlLibrary::kDram, &job.remote);
    for (const Piece& piece : job.pieces) {
        if (s >= 0) {
            s = nixl_->xfer_dlist_add_desc(job.local,
                                           reinterpret_cast<std::uintptr_t>(piece.from.data()),
                                           piece.from.size(), 0);
        }
        if (s >= 0) s = nixl_->xfer_dlist_add_desc(job.remote, piece.to, piece.from.size(), 0);
    }
    if (s >= 0) {
        s = nixl_->create_xfer_req(agent_, NixlLibrary::kWrite, job.local, job.remote,
                                   peer->c_str(), &job.request, options_);
    }
    if (s >= 0) s = nixl_->post_xfer_req(agent_, job.request, options_);
    if (s == NixlLibrary::kInProgress) return true;
    if (s < 0) forget_peer(job.metadata);
    end(job, s < 0 ? failed("begin to write to the other process", s) : Result<void>());
    return false;
}

Result<std::string> Mover::peer_of(const std::string& metadata) {
    if (const auto known = peers_.find(metadata); known != peers_.end()) return known->second;
    if (peers_.size() >= kMaxPeers) forget_peer(std::string(peers_.begin()->first));
    char* name = nullptr;
    const int s = nixl_->load_remote_md(agent_, metadata.data(), metadata.size(), &name);
    if (s < 0 || name == nullptr) {
        return tl::unexpected<Error>(failed("read the other process's metadata", s).error());
    }
    std::string peer = name;
    std::free(name);  // NOLINT: allocated by the library with malloc()
    peers_.emplace(metadata, peer);
    return peer;
}

void Mover::forget_peer(const std::string& metadata) {
    const auto found = peers_.find(metadata);
    if (found == peers_.end()) return;
    nixl_->invalidate_remote_md(agent_, found->second.c_str());
    peers_.erase(found);
}

void Mover::end(Job& job, Result<void> result) {
    if (job.request != nullptr) {
        nixl_->release_xfer_req(agent_, job.request);  // ends it, if it is under way
        nixl_->destroy_xfer_req(job.request);
    }
    if (job.local != nullptr) nixl_->destroy_xfer_dlist(job.local);
    if (job.remote != nullptr) nixl_->destroy_xfer_dlist(job.remote);
    job.keep = nullptr;
    job.done(std::move(result));
}

void Mover::stop() {
    {
        const std::scoped_lock lock(mutex_);
        if (std::exchange(stopped_, true)) return;
        wake_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
    for (Job& job : std::exchange(queue_, {})) {
        job.done(error(ErrorCode::kCancelled, "the transfer plane is stopped"));
    }
    if (agent_ == nullptr) return;
    for (const auto& [metadata, peer] : std::exchange(peers_, {})) {
        nixl_->invalidate_remote_md(agent_, peer.c_str());
    }
    if (registered_ != nullptr) {
        nixl_->deregister_mem(agent_, registered_, options_);
        nixl_->destroy_reg_dlist(registered_);
    }
    if (options_ != nullptr) nixl_->destroy_opt_args(options_);
    nixl_->destroy_agent(agent_);
    if (backend_ != nullptr) nixl_->destroy_backend(backend_);
    agent_ = nullptr;
}

}  // namespace

Result<std::unique_ptr<NixlMover>> start_nixl(const std::string& library,
                                              const std::vector<std::shared_ptr<Arena>>& arenas) {
    auto opened = NixlLibrary::open(library);
    if (!opened) return tl::unexpected<Error>(std::move(opened.error()));
    auto mover = std::make_unique<Mover>(std::move(*opened));
    if (auto ok = mover->start(arenas); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    return mover;
}

}  // namespace stator::transfer
