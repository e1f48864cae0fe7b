#pragma once

#include <map>
#include <memory>
#include <string>

#include "stator/runtime/loop.h"
#include "stator/transfer/attempt.h"
#include "stator/transfer/tcp_peer.h"

// Inside of the room.
namespace stator::transfer {

/// The producers that this process reaches over TCP, each on one of the movers' loops. Used on the
/// main loop.
class TcpPeers {
  public:
    TcpPeers(runtime::LoopPool& movers, TcpClaimerOptions options)
        : movers_(movers),
          options_(std::make_shared<const TcpClaimerOptions>(std::move(options))) {}
    void claim(const protocol::TransferPlace& place, std::shared_ptr<Attempt> attempt, bool nixl);
    void release(const protocol::TransferPlace& place, const protocol::HandoffId& id);
    /// Off the loops, when the main loop gives no more work.
    void stop();

  private:
    [[nodiscard]] Result<std::shared_ptr<TcpPeer>> peer_at(const std::string& address);

    runtime::LoopPool& movers_;
    std::shared_ptr<const TcpClaimerOptions> options_;
    std::map<std::string, std::shared_ptr<TcpPeer>> peers_;
    std::size_t next_mover_ = 0;
};

/// Methods "tcp" and "nixl": they differ in how the bytes come; the rest goes over the same
/// connections.
class TcpClaimer final : public Backend {
  public:
    TcpClaimer(std::shared_ptr<TcpPeers> peers, bool nixl)
        : peers_(std::move(peers)), nixl_(nixl) {}
    void claim(const protocol::TransferPlace& place, std::shared_ptr<Attempt> attempt) override {
        peers_->claim(place, std::move(attempt), nixl_);
    }
    void release(const protocol::TransferPlace& place, const protocol::HandoffId& id) override {
        peers_->release(place, id);
    }
    void stop() override { peers_->stop(); }

  private:
    std::shared_ptr<TcpPeers> peers_;
    bool nixl_;
};

}  // namespace stator::transfer
