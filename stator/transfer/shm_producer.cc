#include "stator/transfer/shm_producer.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <future>
#include <vector>

#include "stator/net/posix_socket.h"
#include "stator/runtime/asio.h"
#include "stator/transfer/place.h"
#include "stator/transfer/tcp_producer.h"

namespace stator::transfer {
namespace {

constexpr std::size_t kMaxSessions = 1024;
constexpr int kBacklog = 1024;

}  // namespace

boost::asio::io_context& ShmProducer::runtime_context(runtime::Loop& loop) {
    return runtime::asio_context(loop);
}

Result<std::shared_ptr<ShmProducer>> ShmProducer::start(
    runtime::Loop& loop, std::shared_ptr<Store> store, const PlaneId& plane,
    std::function<void(std::uint64_t bytes)> given) {
    if (host_identity().empty()) {
        return error(ErrorCode::kUnsupported, "/proc does not say which machine this is");
    }
    if (store->arena().read_only_fd() < 0) {
        return error(ErrorCode::kUnsupported,
                     "shared memory can't be opened for reading alone without /proc");
    }
    const std::string name = socket_name(plane);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(&address.sun_path[1], sizeof address.sun_path - 1);  // the zero: abstract
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    runtime::Descriptor fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (fd.get() < 0 ||
        ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
        ::listen(fd.get(), kBacklog) != 0) {
        return error(ErrorCode::kUnavailable, "no Unix socket can be had: {}",
                     net::system_message(errno));
    }
    std::shared_ptr<ShmProducer> made(
        new ShmProducer(loop, std::move(store), plane, std::move(given), fd.release()));
    loop.post([made] { made->wait_client(); });
    return made;
}

void ShmProducer::wait_client() {
    listener_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                         [weak = weak_from_this()](const boost::system::error_code& ec) {
                             if (const auto self = weak.lock(); self && !ec) self->accept_all();
                         });
}

void ShmProducer::accept_all() {
    while (true) {
        const net::Accepted accepted = net::accept_client(listener_.native_handle());
        if (accepted.what == net::Accepted::What::kClient) {
            begin(accepted.fd);
        } else if (accepted.what != net::Accepted::What::kGone) {
            // Where descriptors have run out: those who claim go another way meanwhile.
            wait_client();
            return;
        }
    }
}

void ShmProducer::begin(int fd) {
    if (!same_user(fd) || sessions_.size() >= kMaxSessions) {
        ::close(fd);
        return;
    }
    const Store::Owner owner = next_owner();
    Session& session = sessions_[owner];
    session.socket = std::make_shared<PacketSocket>(loop_, fd);
    session.socket->start(
        [self = shared_from_this(), owner](const Message& message, runtime::Descriptor&) {
            return self->on_message(owner, message);
        },
        [self = shared_from_this(), owner](const Error&) {
            self->sessions_.erase(owner);
            self->store_->drop(owner);
        });
}

Result<void> ShmProducer::on_message(Store::Owner owner, const Message& message) {
    Session& session = sessions_.at(owner);
    if (const auto* hello = std::get_if<Hello>(&message)) {
        if (hello->version != kWireVersion || hello->plane != plane_) {
            return error(ErrorCode::kUnsupported, "the claimer speaks another version");
        }
        session.greeted = true;
        return {};
    }
    if (session.greeted) {
        if (const auto* claim = std::get_if<Claim>(&message)) {
            return on_claim(owner, session, *claim);
        }
        if (const auto* done = std::get_if<Done>(&message)) {
            store_->finish(done->grant);
            return {};
        }
        if (const auto* release = std::get_if<Release>(&message)) {
            store_->release(release->id);
            return {};
        }
    }
    return error(ErrorCode::kDataLoss, "a claimer must not send a message of type {} now",
                 message.index() + 1);
}

Result<void> ShmProducer::on_claim(Store::Owner owner, Session& session, const Claim& claim) {
    auto granted = store_->claim(claim.id, claim.key, owner);
    if (!granted) {
        session.socket->send(Refusal{.request = claim.request,
                                     .code = static_cast<std::uint8_t>(granted.error().code),
                                     .text = granted.error().message.substr(0, kMaxRefusalBytes)});
        return {};
    }
    given_((*granted)->what->bytes);
    session.socket->send(Grant{.request = claim.request,
                               .grant = (*granted)->number,
                               .offset = (*granted)->range->offset(),
                               .bytes = (*granted)->what->bytes,
                               .arena_bytes = store_->arena().capacity()},
                         session.has_arena ? -1 : store_->arena().read_only_fd());
    session.has_arena = true;
    return {};
}

void ShmProducer::stop() {
    std::promise<void> done;
    const bool posted = loop_.post([&] {
        boost::system::error_code ignored;
        listener_.close(ignored);
        for (auto& [owner, session] : sessions_) {
            session.socket->close(
                error(ErrorCode::kCancelled, "the transfer plane is stopped").value());
        }
        if (!loop_.post([&done] { done.set_value(); })) done.set_value();
    });
    if (posted) done.get_future().wait();
}

}  // namespace stator::transfer
