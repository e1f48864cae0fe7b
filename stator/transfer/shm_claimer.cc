#include "stator/transfer/shm_claimer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <future>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "stator/net/posix_socket.h"
#include "stator/transfer/packet_socket.h"
#include "stator/transfer/place.h"

namespace stator::transfer {
namespace {

constexpr std::size_t kMaxPeers = 1024;
constexpr std::uint64_t kGranule = 256 * 1024;
constexpr std::uint64_t kMostArenaBytes = 1ULL << 44;

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/// Another process's arena, as long as anybody reads in it.
class Mapping {
  public:
    static Result<std::shared_ptr<Mapping>> make(int fd, std::uint64_t bytes) {
        struct stat status{};
        const int seals = ::fcntl(fd, F_GET_SEALS);
        if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || ::fstat(fd, &status) != 0 || bytes == 0 ||
            bytes > kMostArenaBytes || static_cast<std::uint64_t>(status.st_size) != bytes) {
            return error(ErrorCode::kUnsupported,
                         "the producer's memory is not what it says or may be cut short");
        }
        void* memory = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
        if (memory == MAP_FAILED) {
            return error(ErrorCode::kExhausted, "the producer's memory can't be mapped: {}",
                         net::system_message(errno));
        }
        ::madvise(memory, bytes, MADV_DONTDUMP);
        return std::make_shared<Mapping>(static_cast<std::byte*>(memory), bytes);
    }
    Mapping(std::byte* memory, std::uint64_t bytes)
        : memory_(memory), bytes_(bytes), seen_((bytes + kGranule - 1) / kGranule) {}
    ~Mapping() { ::munmap(memory_, bytes_); }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
    [[nodiscard]] const std::byte* at(std::uint64_t offset) const { return memory_ + offset; }
    /// Enters the pages into this process's tables, all at once instead of fault by fault.
    void populate(std::uint64_t offset, std::uint64_t bytes) {
        if (bytes == 0) return;
        std::uint64_t at = offset / kGranule;
        const std::uint64_t end = (offset + bytes - 1) / kGranule + 1;
        while (at < end) {
            while (at < end && seen_[at]) ++at;
            std::uint64_t until = at;
            while (until < end && !seen_[until]) seen_[until++] = true;
            if (at == until) break;
            const std::uint64_t to = std::min(until * kGranule, bytes_);
            ::madvise(memory_ + at * kGranule, to - at * kGranule, MADV_POPULATE_READ);
            at = until;
        }
    }

  private:
    std::byte* memory_;
    std::uint64_t bytes_;
    std::vector<bool> seen_;
};

}  // namespace

/// One producer on this machine.
class ShmPeer : public std::enable_shared_from_this<ShmPeer> {
  public:
    ShmPeer(std::shared_ptr<runtime::Loop> loop, const PlaneId& plane)
        : loop_(std::move(loop)), plane_(plane) {}

    Result<void> connect(std::function<void()> gone) {
        const std::string name = socket_name(plane_);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        name.copy(&address.sun_path[1], sizeof address.sun_path - 1);
        const auto length =
            static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
        runtime::Descriptor fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        if (fd.get() < 0 ||
            ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
            return error(ErrorCode::kUnavailable, "the producer's Unix socket can't be reached: {}",
                         net::system_message(errno));
        }
        if (!same_user(fd.get())) {
            return error(ErrorCode::kUnauthenticated, "another user's process has the name");
        }
        socket_ = std::make_shared<PacketSocket>(*loop_, fd.release());
        socket_->start(
            [self = shared_from_this()](const Message& message, runtime::Descriptor& fd_of) {
                return self->on_message(message, fd_of);
            },
            [self = shared_from_this(), gone = std::move(gone)](const Error& why) {
                gone();
                for (auto& [request, attempt] : std::exchange(self->attempts_, {})) {
                    attempt->finish(tl::unexpected<Error>(why));
                }
                self->socket_ = nullptr;
            });
        socket_->send(Hello{.plane = plane_});
        return {};
    }

    void claim(std::shared_ptr<Attempt> attempt) {
        const std::uint64_t request = ++last_request_;
        const Claim claim{.request = request, .id = attempt->what->id, .key = attempt->key};
        attempts_.emplace(request, std::move(attempt));
        socket_->send(claim);
    }
    void release(const protocol::HandoffId& id) { socket_->send(Release{id}); }
    void close() {
        if (!socket_) return;
        socket_->close(error(ErrorCode::kCancelled, "the transfer plane is stopped").value());
    }
    [[nodiscard]] bool connected() const { return socket_ != nullptr; }

  private:
    Result<void> on_message(const Message& message, runtime::Descriptor& descriptor) {
        if (const auto* refusal = std::get_if<Refusal>(&message)) {
            if (const auto attempt = take(refusal->request)) {
                attempt->finish(error(static_cast<ErrorCode>(refusal->code), "{}", refusal->text));
                return {};
            }
        } else if (const auto* grant = std::get_if<Grant>(&message)) {
            if (descriptor.get() >= 0 && !mapping_ && !unmappable_) {
                auto mapping = Mapping::make(descriptor.get(), grant->arena_bytes);
                if (mapping) {
                    mapping_ = std::move(*mapping);
                } else {
                    unmappable_ = std::move(mapping.error());
                }
            }
            if (const auto attempt = take(grant->request)) return on_granted(*grant, attempt);
        }
        return error(ErrorCode::kDataLoss, "a producer must not send a message of type {} now",
                     message.index() + 1);
    }

    Result<void> on_granted(const Grant& grant, const std::shared_ptr<Attempt>& attempt) {
        if (!mapping_) {
            // Another way takes the grant along.
            if (attempt->last || attempt->cancelled) socket_->send(Done{grant.grant});
            attempt->finish(tl::unexpected<Error>(
                unmappable_
                    ? *unmappable_
                    : error(ErrorCode::kUnsupported, "the producer sent no memory").value()));
            return {};
        }
        if (grant.bytes != attempt->what->bytes || grant.offset > mapping_->bytes() ||
            grant.bytes > mapping_->bytes() - grant.offset) {
            attempt->finish(
                error(ErrorCode::kDataLoss, "the producer grants other bytes than it offered"));
            return error(ErrorCode::kDataLoss, "a grant of other bytes than were offered");
        }
        if (attempt->cancelled) {
            socket_->send(Done{grant.grant});
            attempt->finish(error(ErrorCode::kCancelled, "the claim was cancelled"));
            return {};
        }
        std::shared_ptr<const void> keep(mapping_.get(),
                                         [weak = weak_from_this(), mapping = mapping_,
                                          number = grant.grant](const void*) mutable {
                                             mapping.reset();
                                             if (const auto self = weak.lock()) {
                                                 self->loop_->post([weak, number] {
                                                     const auto alive = weak.lock();
                                                     if (alive && alive->socket_)
                                                         alive->socket_->send(Done{number});
                                                 });
                                             }
                                         });
        for (const std::uint32_t index : attempt->parts) {
            const auto& part = attempt->what->parts[index];
            mapping_->populate(grant.offset + part.offset, part.bytes);
        }
        attempt->finish(arrived(*attempt, std::move(keep), [&](std::uint32_t part) {
            return mapping_->at(grant.offset + attempt->what->parts[part].offset);
        }));
        return {};
    }

    std::shared_ptr<Attempt> take(std::uint64_t request) {
        const auto found = attempts_.find(request);
        if (found == attempts_.end()) return nullptr;
        auto attempt = std::move(found->second);
        attempts_.erase(found);
        return attempt;
    }

    const std::shared_ptr<runtime::Loop> loop_;  ///< bytes that arrived may outlive the plane
    const PlaneId plane_;
    std::shared_ptr<PacketSocket> socket_;
    std::uint64_t last_request_ = 0;
    std::map<std::uint64_t, std::shared_ptr<Attempt>> attempts_;
    std::shared_ptr<Mapping> mapping_;
    std::optional<Error> unmappable_;
};

ShmClaimer::ShmClaimer(std::shared_ptr<runtime::Loop> loop)
    : loop_(std::move(loop)),
      peers_(std::make_shared<std::map<std::string, std::shared_ptr<ShmPeer>>>()) {}

ShmClaimer::~ShmClaimer() = default;

Result<std::shared_ptr<ShmPeer>> ShmClaimer::peer_at(const std::string& address) {
    if (const auto known = peers_->find(address); known != peers_->end()) return known->second;
    auto place = parse_shm_place(address);
    if (!place) return tl::unexpected<Error>(std::move(place.error()));
    if (place->host != host_identity()) {
        return error(ErrorCode::kUnavailable, "the producer is on another machine");
    }
    if (peers_->size() >= kMaxPeers) {
        return error(ErrorCode::kExhausted, "handoffs come from more than {} processes", kMaxPeers);
    }
    auto peer = std::make_shared<ShmPeer>(loop_, place->plane);
    auto connected = peer->connect([peers = std::weak_ptr(peers_), address] {
        if (const auto all = peers.lock()) all->erase(address);
    });
    if (!connected) return tl::unexpected<Error>(std::move(connected.error()));
    peers_->emplace(address, peer);
    return peer;
}

void ShmClaimer::claim(const protocol::TransferPlace& place, std::shared_ptr<Attempt> attempt) {
    auto peer = peer_at(place.address);
    if (!peer) {
        attempt->finish(tl::unexpected<Error>(std::move(peer.error())));
        return;
    }
    (*peer)->claim(std::move(attempt));
}

void ShmClaimer::release(const protocol::TransferPlace& place, const protocol::HandoffId& id) {
    if (auto peer = peer_at(place.address)) (*peer)->release(id);
}

void ShmClaimer::stop() {
    std::promise<void> done;
    const bool posted = loop_->post([&] {
        for (auto& [address, peer] : std::exchange(*peers_, {})) peer->close();
        if (!loop_->post([&done] { done.set_value(); })) done.set_value();
    });
    if (posted) done.get_future().wait();
}

}  // namespace stator::transfer
