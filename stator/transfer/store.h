#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/protocol/handoff.h"
#include "stator/transfer/arena.h"
#include "stator/transfer/handoff_store.h"
#include "stator/transfer/ledger.h"
#include "stator/transfer/wire.h"

namespace stator::transfer {

/// A claimed handoff while its claimer still needs the bytes. They lie still for as long as
/// anybody holds this.
struct Granted {
    std::uint64_t number = 0;
    std::shared_ptr<const protocol::Handoff> what;
    std::shared_ptr<ArenaRange> range;
    [[nodiscard]] std::span<const std::byte> bytes() const {
        return range->bytes().first(what->bytes);
    }
};

/// What this process holds for others: ledger, arena, and what was granted to whom. Thread-safe.
class Store : public std::enable_shared_from_this<Store> {
  public:
    /// A connection, as far as grants are concerned; 0 = this process.
    using Owner = std::uint64_t;

    /// The arena is twice the budget: as much again may be claimed and not yet let go.
    [[nodiscard]] static Result<std::shared_ptr<Store>> make(Ledger::Limits limits,
                                                             const Clock& clock);

    [[nodiscard]] Result<std::unique_ptr<HandoffBuffer>> reserve(std::uint64_t bytes);
    /// `what` gets id, bytes and expiry; it has its places.
    [[nodiscard]] Result<std::shared_ptr<const protocol::Handoff>> publish(
        std::unique_ptr<HandoffBuffer> buffer, protocol::Handoff what);

    /// The owner's until finish(), drop() or clear(). The same key again while it is granted: moves
    /// to the new owner. kNotFound.
    [[nodiscard]] Result<std::shared_ptr<const Granted>> claim(const protocol::HandoffId& id,
                                                               const ClaimKey& key, Owner owner);
    /// Null: no such grant (any more).
    [[nodiscard]] std::shared_ptr<const Granted> granted(std::uint64_t number) const;
    void finish(std::uint64_t number);
    void drop(Owner owner);
    /// Whether anything is granted to it.
    [[nodiscard]] bool holds(Owner owner) const;
    void release(const protocol::HandoffId& id);
    /// Ends what has expired, and gives idle memory back now and then.
    void upkeep();
    /// Ends everything; nothing can be reserved afterwards.
    void close();

    struct Counts {
        std::size_t unclaimed = 0;
        std::uint64_t unclaimed_bytes = 0;
        std::size_t granted = 0;
        std::array<std::uint64_t, kEnds> ended{};
    };
    [[nodiscard]] Counts counts() const;
    [[nodiscard]] const Ledger::Limits& limits() const { return limits_; }
    [[nodiscard]] Arena& arena() const { return *arena_; }
    [[nodiscard]] const std::shared_ptr<Arena>& shared_arena() const { return arena_; }

  private:
    class Buffer;
    Store(Ledger::Limits limits, const Clock& clock, std::shared_ptr<Arena> arena)
        : limits_(limits), clock_(clock), arena_(std::move(arena)), ledger_(limits) {}
    void abandon(Slot slot);

    struct Published {
        std::shared_ptr<const protocol::Handoff> what;
        std::shared_ptr<ArenaRange> range;
    };
    struct Grant {
        std::shared_ptr<const Granted> granted;
        ClaimKey key{};
        Owner owner = 0;
    };

    const Ledger::Limits limits_;
    const Clock& clock_;
    const std::shared_ptr<Arena> arena_;
    mutable std::mutex mutex_;
    Ledger ledger_;
    bool closed_ = false;
    TimePoint last_trim_;
    std::map<Slot, Published> published_;
    std::map<std::uint64_t, Grant> grants_;
    std::map<ClaimKey, std::uint64_t> by_key_;
};

}  // namespace stator::transfer
