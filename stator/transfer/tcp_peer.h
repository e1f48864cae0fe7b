#pragma once

#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/net/tls.h"
#include "stator/runtime/loop.h"
#include "stator/transfer/arena.h"
#include "stator/transfer/attempt.h"
#include "stator/transfer/nixl_mover.h"
#include "stator/transfer/place.h"
#include "stator/transfer/tcp_stream.h"

// Inside of the room.
namespace stator::transfer {

struct TcpClaimerOptions {
    std::uint32_t connections = 4;
    /// A connection on which nothing comes of what is owed is given up after this time: whoever has
    /// stopped, or a middlebox that swallows everything, does not close it.
    std::chrono::milliseconds silence{3'000};
    bool checksums = true;
    std::function<std::string()> secret;
    std::function<std::shared_ptr<const net::TlsContext>()> tls;  ///< a client's
    std::shared_ptr<Arena> memory;                                ///< where bytes arrive
    NixlMover* nixl = nullptr;                                    ///< null = none
    std::function<void()> freed;  ///< an arrived handoff was let go; from any thread
};

/// One producer, as far as it is reached over TCP: its connections and what is claimed over them,
/// all on one loop. The first connection claims; while much is to be fetched, others help.
class TcpPeer : public std::enable_shared_from_this<TcpPeer> {
  public:
    TcpPeer(runtime::Loop& loop, TcpPlace place, std::shared_ptr<const TcpClaimerOptions> options);
    ~TcpPeer();
    TcpPeer(const TcpPeer&) = delete;
    TcpPeer& operator=(const TcpPeer&) = delete;

    // On the loop:
    void claim(std::shared_ptr<Attempt> attempt, bool nixl);
    void release(const protocol::HandoffId& id);
    void shutdown();
    [[nodiscard]] runtime::Loop& loop() const { return loop_; }

  private:
    class Connection;
    struct Piece {
        std::uint64_t source = 0;
        std::uint64_t bytes = 0;
        std::byte* to = nullptr;
    };
    struct Transfer;
    struct Expected {
        std::shared_ptr<Transfer> transfer;
        Piece piece;
    };

    [[nodiscard]] Result<void> find_memory(Transfer& transfer) const;
    void drop_cancelled(Transfer& transfer);
    void open_connection();
    void on_ready(Connection& connection);
    void on_lost(Connection& connection, const Error& why);
    [[nodiscard]] Result<void> on_message(Connection& connection, const Message& message);
    [[nodiscard]] Result<void> on_granted(const Grant& grant);
    [[nodiscard]] Result<void> on_refused(Connection& connection, const Refusal& refusal);
    [[nodiscard]] Result<void> on_written(const Written& written);
    void send_claim(const std::shared_ptr<Transfer>& transfer);
    void send_write(Transfer& transfer);
    void pump();
    void help_wanted();
    void settle(const std::shared_ptr<Transfer>& transfer);
    void fail(const std::shared_ptr<Transfer>& transfer, const Error& why);
    void watch();
    void look();
    [[nodiscard]] bool owes(const Connection& connection) const;

    runtime::Loop& loop_;
    const TcpPlace place_;
    const std::shared_ptr<const TcpClaimerOptions> options_;
    bool shut_ = false;
    std::vector<std::shared_ptr<Connection>> connections_;  ///< the first is the one that claims
    bool first_ready_ = false;
    std::uint32_t helpers_lost_ = 0;
    std::uint64_t last_request_ = 0;
    std::deque<std::shared_ptr<Transfer>> waiting_;                 ///< for the first connection
    std::deque<protocol::HandoffId> releases_;                      ///< the same
    std::map<std::uint64_t, std::shared_ptr<Transfer>> transfers_;  ///< by request
    std::deque<std::shared_ptr<Transfer>> fetching_;  ///< have pieces that nobody has asked for
    boost::asio::steady_timer timer_;                 ///< of look()
    bool watching_ = false;
};

}  // namespace stator::transfer
