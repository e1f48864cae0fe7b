#include "stator/frontend/error_mapping.h"

#include <algorithm>

#include "stator/codec/json_writer.h"

namespace stator::frontend {
namespace {

constexpr std::string_view kInvalidRequest = "invalid_request_error";
constexpr std::string_view kServerError = "server_error";

}  // namespace

HttpError map_error(const Error& error) {
    switch (error.code) {
        case ErrorCode::kInvalidArgument:
            return {400, kInvalidRequest, ""};
        case ErrorCode::kUnauthenticated:
            return {401, kInvalidRequest, "invalid_api_key"};
        case ErrorCode::kPermissionDenied:
            return {403, "permission_error", "permission_denied"};
        case ErrorCode::kNotFound:
            return {404, kInvalidRequest, error.param == "model" ? "model_not_found" : "not_found"};
        case ErrorCode::kMethodNotAllowed:
            return {405, kInvalidRequest, "method_not_allowed"};
        case ErrorCode::kTooLarge:
            return {400, kInvalidRequest, "context_length_exceeded"};
        case ErrorCode::kUnsupported:
            if (error.param.empty()) return {501, kInvalidRequest, "not_implemented"};
            return {400, kInvalidRequest, "unsupported_parameter"};
        case ErrorCode::kOverloaded:
            return {429, "rate_limit_error", "rate_limit_exceeded"};
        case ErrorCode::kUnavailable:
            return {503, kServerError, "service_unavailable"};
        case ErrorCode::kDeadlineExceeded:
            return {504, "timeout_error", "timeout"};
        case ErrorCode::kCancelled:
            return {499, kInvalidRequest, "cancelled"};
        case ErrorCode::kAborted:
            return {409, kServerError, "aborted"};
        case ErrorCode::kDataLoss:
            return {500, kServerError, "data_loss"};
        case ErrorCode::kExhausted:
            return {503, kServerError, "resource_exhausted"};
        case ErrorCode::kInternal:
            return {500, kServerError, "internal_error"};
        case ErrorCode::kUnknown:
            return {500, kServerError, "internal_error"};
    }
    return {500, kServerError, "internal_error"};
}

HttpError map_status(int status) {
    switch (status) {
        case 408:
            return {status, "timeout_error", "request_timeout"};
        case 413:
            return {status, kInvalidRequest, "request_too_large"};
        case 415:
            return {status, kInvalidRequest, "unsupported_media_type"};
        case 431:
            return {status, kInvalidRequest, "headers_too_large"};
        case 501:
            return {status, kInvalidRequest, "not_implemented"};
        case 503:
            return {status, kServerError, "service_unavailable"};
        default:
            break;
    }
    if (status >= 500) return {status, kServerError, "internal_error"};
    return {status, kInvalidRequest, ""};
}

void append_error_json(std::string& out, std::string_view message, const HttpError& http,
                       std::string_view param) {
    codec::JsonWriter w(out);
    const auto text_or_null = [&w](std::string_view s) { s.empty() ? w.null() : w.string(s); };
    w.begin_object().key("error").begin_object();
    w.key("message").string(message);
    w.key("type").string(http.type);
    w.key("param");
    text_or_null(param);
    w.key("code");
    text_or_null(http.code);
    w.end_object().end_object();
}

void append_error_json(std::string& out, const Error& error) {
    append_error_json(out, error.message, map_error(error), error.param);
}

std::uint32_t retry_after_seconds(const Error& error, int status) {
    if (status != 429 && status != 503) return 0;
    return std::max(1U, error.retry_after_ms / 1000 + (error.retry_after_ms % 1000 != 0 ? 1U : 0U));
}

}  // namespace stator::frontend
