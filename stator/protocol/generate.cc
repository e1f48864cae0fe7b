#include "stator/protocol/generate.h"

namespace stator::protocol {

std::string_view to_string(FinishReason reason) {
    switch (reason) {
        case FinishReason::kStop:
            return "stop";
        case FinishReason::kLength:
            return "length";
        case FinishReason::kCancelled:
            return "cancelled";
        case FinishReason::kError:
            return "error";
        case FinishReason::kHandoff:
            return "handoff";
    }
    return "unknown";
}

}  // namespace stator::protocol
