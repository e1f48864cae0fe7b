#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/transfer/arena.h"

namespace stator::transfer {

/// Writes from this process's arenas into other processes' memory through NIXL. One thread, which
/// waits while there is nothing to move. Thread-safe.
class NixlMover {
  public:
    struct Piece {
        std::span<const std::byte> from;
        std::uint64_t to = 0;  ///< address in the other process
    };
    using Done = std::function<void(Result<void>)>;

    virtual ~NixlMover() = default;
    /// What others need in order to write into this process's arenas.
    [[nodiscard]] virtual const std::string& metadata() const = 0;
    /// `metadata` of the receiver. `keep` is held until the last byte has left; then `done`, on the
    /// mover's thread, exactly once.
    virtual void write(std::string metadata, std::vector<Piece> pieces,
                       std::shared_ptr<const void> keep, Done done) = 0;
    /// Ends what is under way with kCancelled, then the agent. Blocks.
    virtual void stop() = 0;
};

/// `library`: path of libnixl_capi.so; empty = $NIXL_CAPI_LIBRARY, then the linker's and Python's
/// usual places. The error says in a sentence why there is none.
[[nodiscard]] Result<std::unique_ptr<NixlMover>> start_nixl(
    const std::string& library, const std::vector<std::shared_ptr<Arena>>& arenas);

}  // namespace stator::transfer
