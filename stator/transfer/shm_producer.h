#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <map>
#include <memory>

#include "stator/base/error.h"
#include "stator/runtime/loop.h"
#include "stator/transfer/packet_socket.h"
#include "stator/transfer/store.h"

// Inside of the room.
namespace stator::transfer {

/// Hands this process's handoffs out to processes of the same machine and user: by an abstract Unix
/// socket and the arena's descriptor, which each of them gets once. On one loop.
class ShmProducer : public std::enable_shared_from_this<ShmProducer> {
  public:
    [[nodiscard]] static Result<std::shared_ptr<ShmProducer>> start(
        runtime::Loop& loop, std::shared_ptr<Store> store, const PlaneId& plane,
        std::function<void(std::uint64_t bytes)> given);
    /// Closes everything. Not on a loop; blocks.
    void stop();

  private:
    struct Session {
        std::shared_ptr<PacketSocket> socket;
        bool greeted = false;
        bool has_arena = false;
    };
    ShmProducer(runtime::Loop& loop, std::shared_ptr<Store> store, const PlaneId& plane,
                std::function<void(std::uint64_t bytes)> given, int fd)
        : loop_(loop),
          store_(std::move(store)),
          plane_(plane),
          given_(std::move(given)),
          listener_(runtime_context(loop), fd) {}
    static boost::asio::io_context& runtime_context(runtime::Loop& loop);
    void wait_client();
    void accept_all();
    void begin(int fd);
    [[nodiscard]] Result<void> on_message(Store::Owner owner, const Message& message);
    [[nodiscard]] Result<void> on_claim(Store::Owner owner, Session& session, const Claim& claim);

    runtime::Loop& loop_;
    std::shared_ptr<Store> store_;
    PlaneId plane_;
    std::function<void(std::uint64_t bytes)> given_;
    boost::asio::posix::stream_descriptor listener_;
    std::map<Store::Owner, Session> sessions_;
};

}  // namespace stator::transfer
