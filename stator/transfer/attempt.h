#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/base/error.h"
#include "stator/protocol/handoff.h"
#include "stator/transfer/wire.h"

namespace stator::transfer {

/// A claim on one of its ways. Shared between the plane and a backend.
struct Attempt {
    using Finish = std::function<void(Result<std::shared_ptr<const protocol::HandoffBytes>>)>;

    std::shared_ptr<const protocol::Handoff> what;
    std::vector<std::uint32_t> parts;  ///< wanted, ascending; checked
    std::uint64_t bytes = 0;           ///< of them
    ClaimKey key{};
    bool last = true;  ///< no other way is tried after this one
    /// Called once, from any thread.
    Finish finish;
    /// Nobody waits for it any more; a backend ends it when it next hears of it.
    std::atomic<bool> cancelled = false;
};

/// The bytes of `attempt` where its wanted parts lie from `begin_of(part)` on.
template <typename BeginOf>
[[nodiscard]] std::shared_ptr<const protocol::HandoffBytes> arrived(
    const Attempt& attempt, std::shared_ptr<const void> keep, BeginOf&& begin_of) {
    auto out = std::make_shared<protocol::HandoffBytes>();
    out->what = attempt.what;
    out->parts.resize(attempt.what->parts.size());
    for (const std::uint32_t part : attempt.parts) {
        out->parts[part] = {begin_of(part), attempt.what->parts[part].bytes};
    }
    out->keep = std::move(keep);
    return out;
}

/// A way to claim from other processes. Called on the plane's main loop.
class Backend {
  public:
    virtual ~Backend() = default;
    /// Errors that say that the handoff is still to be had another way: kUnavailable, kUnsupported,
    /// kExhausted.
    virtual void claim(const protocol::TransferPlace& place, std::shared_ptr<Attempt> attempt) = 0;
    /// Tells the producer; best effort.
    virtual void release(const protocol::TransferPlace& place, const protocol::HandoffId& id) = 0;
    /// Ends every attempt and connection. Not on a loop; blocks until it is done.
    virtual void stop() = 0;
};

}  // namespace stator::transfer
