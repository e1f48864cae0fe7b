#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/codec/msgpack.h"
#include "stator/protocol/kv_event.h"

namespace stator::events {

/// The payload of topic "kv": a map whose key "events" holds an array of maps, one per event
/// (docs/event-plane.md). `with_tokens` adds the blocks' tokens, which nobody needs who trusts the
/// hashes.
void append_kv_batch(std::string& out, std::span<const protocol::KvEvent> events,
                     bool with_tokens = false);

/// Buffers that outlive a batch, so that decoding the next one allocates nothing.
struct KvScratch {
    protocol::KvEvent stored{{}, protocol::KvStored{}};
    protocol::KvEvent removed{{}, protocol::KvRemoved{}};
    protocol::KvEvent cleared{{}, protocol::KvCleared{}};
};

/// Reads a batch from untrusted bytes, event by event. Both arguments must outlive it.
///
///     KvBatchReader batch(payload, scratch);
///     for (;;) { auto e = batch.next(); if (!e) return e.error(); if (*e == nullptr) break; … }
class KvBatchReader {
  public:
    KvBatchReader(std::string_view payload, KvScratch& scratch)
        : reader_(payload), scratch_(scratch) {}

    /// The next event, valid until the next call; null at the end. Events of an unknown kind or
    /// memory are passed over. After an error the reader is of no further use.
    [[nodiscard]] Result<const protocol::KvEvent*> next();

  private:
    struct Fields;
    [[nodiscard]] Result<void> begin();
    [[nodiscard]] Result<bool> enter_array();
    [[nodiscard]] Result<void> finish();
    [[nodiscard]] Result<const protocol::KvEvent*> event();
    [[nodiscard]] Result<const protocol::KvEvent*> stored(const Fields& f, protocol::KvTier tier);
    [[nodiscard]] Result<const protocol::KvEvent*> removed(const Fields& f, protocol::KvTier tier);

    codec::MsgpackReader reader_;
    KvScratch& scratch_;
    std::uint64_t sequence_ = 0;
    std::size_t pairs_left_ = 0;
    std::size_t events_left_ = 0;
    bool begun_ = false;
};

}  // namespace stator::events
