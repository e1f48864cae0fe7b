#pragma once

#include <map>
#include <memory>
#include <string>

#include "stator/runtime/loop.h"
#include "stator/transfer/attempt.h"

// Inside of the room.
namespace stator::transfer {

class ShmPeer;

/// Claims from processes of this machine: their arenas are mapped for reading, once each, and
/// handoffs are read where they lie. On one loop.
class ShmClaimer final : public Backend {
  public:
    explicit ShmClaimer(std::shared_ptr<runtime::Loop> loop);
    ~ShmClaimer() override;
    ShmClaimer(const ShmClaimer&) = delete;
    ShmClaimer& operator=(const ShmClaimer&) = delete;
    void claim(const protocol::TransferPlace& place, std::shared_ptr<Attempt> attempt) override;
    void release(const protocol::TransferPlace& place, const protocol::HandoffId& id) override;
    void stop() override;

  private:
    [[nodiscard]] Result<std::shared_ptr<ShmPeer>> peer_at(const std::string& address);

    std::shared_ptr<runtime::Loop> loop_;
    std::shared_ptr<std::map<std::string, std::shared_ptr<ShmPeer>>> peers_;
};

}  // namespace stator::transfer
