#pragma once

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"
#include "stator/metrics/registry.h"
#include "stator/net/tls.h"
#include "stator/protocol/handoff.h"
#include "stator/transfer/transfer.h"

namespace stator::transfer {

constexpr std::chrono::seconds kPatience{60};  ///< then a test fails instead of hanging

using Arrived = Result<std::shared_ptr<const protocol::HandoffBytes>>;

/// Parts of a handoff in a test: `n`, of nearly the same size, the last one with what is left.
[[nodiscard]] std::vector<protocol::HandoffPart> cut(std::uint64_t bytes, std::uint32_t n);
/// What such a handoff holds.
void fill(std::span<std::byte> bytes, std::uint64_t seed);
/// Whether `bytes` are those at `offset` of what fill() wrote.
[[nodiscard]] bool holds(std::span<const std::byte> bytes, std::uint64_t offset,
                         std::uint64_t seed);

/// Every part that is there is right, and exactly `parts` are there (none named: all).
[[nodiscard]] bool right(const protocol::HandoffBytes& bytes, std::uint64_t seed,
                         const std::vector<std::uint32_t>& parts = {});

[[nodiscard]] Result<std::shared_ptr<const protocol::Handoff>> offer(TransferPlane& plane,
                                                                     std::uint64_t bytes,
                                                                     std::uint32_t parts,
                                                                     std::uint64_t seed);
/// Claims and waits. Fails with kInternal where nothing was said in time.
[[nodiscard]] Arrived claim_now(TransferPlane& plane, std::shared_ptr<const protocol::Handoff> what,
                                ClaimOptions options = {});
/// True once `condition` is; false when patience is over.
[[nodiscard]] bool wait_until(const std::function<bool()>& condition);
/// Of a metric without labels.
[[nodiscard]] double metric(const metrics::Registry& registry, std::string_view name);

/// One way between two processes, by name: "shm", "tcp", "tcp+secret", "tcp+tls", "nixl".
struct WayOptions {
    std::string name;
    std::uint64_t budget_bytes = 512ULL << 20;
    int lease_ms = 30'000;
    std::string secret = "a secret";
    std::string tls_files;  ///< "CERTIFICATE,KEY,AUTHORITIES"
};
[[nodiscard]] TransferOptions transfer_options(const WayOptions& way);

/// A plane in another process: this test program, started anew. It ends with this object.
class PeerProcess {
  public:
    explicit PeerProcess(const WayOptions& way);
    ~PeerProcess();
    PeerProcess(const PeerProcess&) = delete;
    PeerProcess& operator=(const PeerProcess&) = delete;

    /// The child offers.
    [[nodiscard]] Result<std::shared_ptr<const protocol::Handoff>> offer(std::uint64_t bytes,
                                                                         std::uint32_t parts,
                                                                         std::uint64_t seed);
    /// The child claims, keeps what it gets, and says whether it got it right: "ok", or why not.
    [[nodiscard]] std::string claim(const protocol::Handoff& what, std::uint64_t seed);
    void let_go();
    /// Unclaimed bytes + claimed ones still in use by others.
    struct Held {
        std::uint64_t unclaimed = 0;
        std::uint64_t granted = 0;
        std::uint64_t memory = 0;
    };
    [[nodiscard]] Held held();
    void kill();

  private:
    [[nodiscard]] std::string ask(const std::string& line);

    int pid_ = -1;
    int fd_ = -1;
};

}  // namespace stator::transfer
