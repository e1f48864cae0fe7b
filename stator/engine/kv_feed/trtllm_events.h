#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "stator/base/error.h"

namespace stator::engine {

/// One of TensorRT-LLM's events as a message that EngineFollower takes.
struct TrtllmMessage {
    std::uint32_t rank = 0;
    std::uint64_t number = 0;
    std::string payload;  ///< as read_engine_batch() reads it; may hold no event
};

/// Reads what TensorRT-LLM gives away at POST /kv_cache_events: a list of
/// {event_id, data, window_size, attention_dp_rank?} with data.type created, stored, removed or
/// updated. Each is given once, to whoever asks first; a missing event_id shows what others took or
/// a full buffer dropped.
///
/// A block that goes to the host's memory and back (updated) stays what it is here: stored, in the
/// memory where it was first. Blocks of pictures or adapters (token_extra_id) are opaque. Of models
/// with several windows the largest counts. Source: tensorrt_llm/_utils.py, KVCacheEventSerializer.
/// One thread at a time.
class TrtllmEventReader {
  public:
    /// `time`: seconds, greater than in the call before. kInvalidArgument: no JSON, or no list;
    /// elements of another shape are passed over.
    [[nodiscard]] Result<std::vector<TrtllmMessage>> read(std::string_view body, double time);

  private:
    std::map<std::uint32_t, std::uint64_t> windows_;  ///< by rank, the largest; at most kMostRanks
};

}  // namespace stator::engine
