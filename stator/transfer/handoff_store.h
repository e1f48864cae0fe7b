#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "stator/base/error.h"
#include "stator/protocol/handoff.h"

namespace stator::transfer {

/// Memory for one handoff. Gone with its destruction, unless it was published.
class HandoffBuffer {
  public:
    virtual ~HandoffBuffer() = default;
    [[nodiscard]] virtual std::span<std::byte> bytes() = 0;
};

/// Where an engine leaves what a leg has made. Thread-safe; nothing blocks on another process.
class HandoffStore {
  public:
    virtual ~HandoffStore() = default;

    /// Memory that every transfer backend of this process can hand out. kExhausted: what is not yet
    /// claimed takes all that may be taken.
    [[nodiscard]] virtual Result<std::unique_ptr<HandoffBuffer>> reserve(std::uint64_t bytes) = 0;

    /// Offers the buffer to who knows its id. `what` has kind, layout, content, tokens, parts,
    /// pieces and shape; id, bytes, places and expiry are filled in.
    [[nodiscard]] virtual Result<std::shared_ptr<const protocol::Handoff>> publish(
        std::unique_ptr<HandoffBuffer> buffer, protocol::Handoff what) = 0;
};

}  // namespace stator::transfer
