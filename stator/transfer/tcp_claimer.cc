#include "stator/transfer/tcp_claimer.h"

#include <future>
#include <utility>

namespace stator::transfer {
namespace {

/// Producers that are gone are forgotten when there are more than this many.
constexpr std::size_t kMaxPeers = 1024;

}  // namespace

Result<std::shared_ptr<TcpPeer>> TcpPeers::peer_at(const std::string& address) {
    auto place = parse_tcp_place(address);
    if (!place) return tl::unexpected<Error>(std::move(place.error()));
    if (const auto known = peers_.find(address); known != peers_.end()) return known->second;
    if (peers_.size() >= kMaxPeers) {
        // Only this map holds a peer without connections.
        std::erase_if(peers_, [](const auto& entry) { return entry.second.use_count() == 1; });
    }
    if (peers_.size() >= kMaxPeers) {
        return error(ErrorCode::kExhausted, "handoffs come from more than {} processes", kMaxPeers);
    }
    auto peer = std::make_shared<TcpPeer>(movers_.at(next_mover_++ % movers_.size()),
                                          std::move(*place), options_);
    peers_.emplace(address, peer);
    return peer;
}

void TcpPeers::claim(const protocol::TransferPlace& place, std::shared_ptr<Attempt> attempt,
                     bool nixl) {
    auto peer = peer_at(place.address);
    if (!peer) {
        attempt->finish(tl::unexpected<Error>(std::move(peer.error())));
        return;
    }
    const bool posted =
        (*peer)->loop().post([peer = *peer, attempt, nixl] { peer->claim(attempt, nixl); });
    if (!posted) {
        attempt->finish(error(ErrorCode::kCancelled, "the transfer plane is stopped"));
    }
}

void TcpPeers::release(const protocol::TransferPlace& place, const protocol::HandoffId& id) {
    auto peer = peer_at(place.address);
    if (peer) (*peer)->loop().post([peer = *peer, id] { peer->release(id); });
}

void TcpPeers::stop() {
    for (const auto& [address, peer] : std::exchange(peers_, {})) {
        std::promise<void> done;
        const bool posted = peer->loop().post([&done, peer] {
            peer->shutdown();
            // After the ends of connections that were posted just now.
            if (!peer->loop().post([&done] { done.set_value(); })) done.set_value();
        });
        if (posted) done.get_future().wait();
    }
}

}  // namespace stator::transfer
