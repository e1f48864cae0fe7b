#include "stator/base/error.h"

namespace stator {

std::string_view to_string(ErrorCode code) {
    switch (code) {
        case ErrorCode::kInvalidArgument:
            return "invalid_argument";
        case ErrorCode::kUnauthenticated:
            return "unauthenticated";
        case ErrorCode::kPermissionDenied:
            return "permission_denied";
        case ErrorCode::kNotFound:
            return "not_found";
        case ErrorCode::kMethodNotAllowed:
            return "method_not_allowed";
        case ErrorCode::kTooLarge:
            return "too_large";
        case ErrorCode::kUnsupported:
            return "unsupported";
        case ErrorCode::kOverloaded:
            return "overloaded";
        case ErrorCode::kUnavailable:
            return "unavailable";
        case ErrorCode::kDeadlineExceeded:
            return "deadline_exceeded";
        case ErrorCode::kCancelled:
            return "cancelled";
        case ErrorCode::kAborted:
            return "aborted";
        case ErrorCode::kDataLoss:
            return "data_loss";
        case ErrorCode::kExhausted:
            return "exhausted";
        case ErrorCode::kInternal:
            return "internal";
        case ErrorCode::kUnknown:
            return "unknown";
    }
    return "unknown";
}

}  // namespace stator
