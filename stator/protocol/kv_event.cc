#include "stator/protocol/kv_event.h"

namespace stator::protocol {

std::string_view to_string(KvTier tier) {
    switch (tier) {
        case KvTier::kDevice:
            return "device";
        case KvTier::kHost:
            return "host";
        case KvTier::kDisk:
            return "disk";
    }
    return "unknown";
}

}  // namespace stator::protocol
