#include "stator/engine/dialects/engine_error.h"

#include <algorithm>

#include "stator/codec/json.h"
#include "stator/codec/utf8.h"

namespace stator::engine {
namespace {

constexpr std::size_t kMostText = 2048;

ErrorCode code_of(int status) {
    switch (status) {
        case 400:
        case 422:
            return ErrorCode::kInvalidArgument;
        case 401:
        case 403:
            return ErrorCode::kPermissionDenied;
        case 404:
            return ErrorCode::kNotFound;
        case 408:
            return ErrorCode::kDeadlineExceeded;
        case 413:
            return ErrorCode::kTooLarge;
        case 429:
            return ErrorCode::kOverloaded;
        case 501:
            return ErrorCode::kUnsupported;
        case 502:
        case 503:
            return ErrorCode::kUnavailable;
        default:
            return ErrorCode::kInternal;
    }
}

std::string text_of(codec::JsonView v) {
    if (const auto text = v.as_string()) return std::string(*text);
    std::string out;
    if (v.present() && !v.is_null()) v.write_to(out);
    return out;
}

}  // namespace

Error engine_error(int status, std::string_view body, unsigned retry_after_s) {
    Error e;
    e.code = code_of(status);
    codec::JsonDocument document;
    if (const auto root = document.parse(body.substr(0, 64 * kMostText))) {
        // {"error":{"message",…}}, or SGLang's and older vLLM's {"object":"error","message",…}, or
        // FastAPI's {"detail":…}.
        const codec::JsonView inner = root->find("error");
        const codec::JsonView said = inner.find("message").present() ? inner : *root;
        e.message = text_of(said.find("message"));
        if (e.message.empty()) e.message = text_of(inner);
        if (e.message.empty()) e.message = text_of(root->find("detail"));
        e.param = text_of(said.find("param"));
    }
    if (e.message.empty()) {
        e.message = fmt::format("the engine answered with status {}", status);
        if (!body.empty() && codec::utf8_valid(body.substr(0, kMostText))) {
            e.message += ": " + std::string(body.substr(0, kMostText));
        }
    }
    if (e.message.size() > kMostText) {
        std::size_t end = kMostText;
        while (end > 0 && (static_cast<unsigned char>(e.message[end]) & 0xc0U) == 0x80U) --end;
        e.message.resize(end);
    }
    constexpr int kServerErrors = 500;
    constexpr int kNotImplemented = 501;
    e.retryable = status == 429 || (status >= kServerErrors && status != kNotImplemented);
    e.retry_after_ms = std::min(retry_after_s, 3600U) * 1000;
    return e;
}

}  // namespace stator::engine
