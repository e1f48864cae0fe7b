#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "stator/engine/mock/core.h"
#include "stator/events/kv_mirror.h"
#include "stator/protocol/kv_event.h"
#include "stator/tokens/token_sequence.h"

namespace stator::engine::mock {

/// Turns the changes of a core's cache into a rank's numbered events. Not thread-safe.
class KvAnnouncer {
  public:
    /// The tokens of a request that is still there, null where it is not.
    using SequenceOf = std::function<const tokens::TokenSequence*(RequestId)>;

    /// `slower_tiers`: blocks go to host or disk. Those say only a block's name, so that what was
    /// announced is then remembered here.
    explicit KvAnnouncer(bool slower_tiers) : slower_tiers_(slower_tiers) {}

    /// Appends the events for `changes`. A run of stored blocks, each the child of the one before,
    /// becomes one event, and so does a run of removed ones. Blocks of slower tiers have no tokens.
    void announce(std::span<const KvChange> changes, const SequenceOf& sequence_of,
                  std::vector<protocol::KvEvent>& events);

  private:
    void stored(const KvChange& change, const SequenceOf& sequence_of,
                std::vector<protocol::KvEvent>& events);
    protocol::KvEvent& number(protocol::KvEvent event, std::vector<protocol::KvEvent>& events);

    bool slower_tiers_;
    std::uint64_t last_ = 0;
    events::KvMirror announced_;
};

}  // namespace stator::engine::mock
