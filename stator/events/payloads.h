#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/protocol/load.h"

namespace stator::events {

/// Payloads of the topics beside "kv" (kv_batch.h). Each is a map with text keys: a reader passes
/// over keys that it does not know, and takes its default for those that are missing.

/// Topic "load": what a rank holds and what its forward passes have done since its start.
struct LoadEvent {
    protocol::LoadReport load;
    protocol::ForwardPassMetrics forward;
    bool operator==(const LoadEvent&) const = default;
};
[[nodiscard]] std::string encode_load(const LoadEvent& event);
[[nodiscard]] Result<LoadEvent> decode_load(std::string_view payload);

/// Topic "lifecycle": where a worker stands. The names travel; a reader takes others for kUnknown.
enum class LifecycleState : std::uint8_t { kUnknown, kLoading, kReady, kDraining, kStopped };
std::string_view to_string(LifecycleState state);

struct LifecycleEvent {
    LifecycleState state = LifecycleState::kUnknown;
    std::string worker;       ///< its stable name
    std::string reason;       ///< for people; may be empty
    std::int64_t unix_s = 0;  ///< when, by the worker's clock
    bool operator==(const LifecycleEvent&) const = default;
};
[[nodiscard]] std::string encode_lifecycle(const LifecycleEvent& event);
[[nodiscard]] Result<LifecycleEvent> decode_lifecycle(std::string_view payload);

}  // namespace stator::events
