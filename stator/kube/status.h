#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "stator/codec/json.h"

namespace stator::kube {

/// What the API server says went wrong (metav1.Status), as far as it says so.
struct Status {
    int code = 0;
    std::string reason;   ///< "Expired", "NotFound", "Conflict"; empty where there is none
    std::string message;  ///< at most kMaxMessage bytes
    std::optional<std::chrono::seconds> retry_after;
    static constexpr std::size_t kMaxMessage = 400;

    /// The resource version is too old for a watch, or a list's continue token.
    [[nodiscard]] bool expired() const {
        return code == 410 || reason == "Expired" || reason == "Gone";
    }
};

/// Whatever is there; `code` is the HTTP status where the object has none.
[[nodiscard]] Status read_status(codec::JsonView object, int http_status);
/// Of an answer's body, which need not be JSON.
[[nodiscard]] Status read_status(std::string_view body, int http_status);
/// A Retry-After header in seconds; the date form and nonsense are no hint. At most ten minutes.
[[nodiscard]] std::optional<std::chrono::seconds> read_retry_after(std::string_view header);
/// "the API server answered 403 (Forbidden): endpointslices is forbidden"
[[nodiscard]] std::string describe(const Status& status);

/// What somebody else has written, for logs and /health: at most so many bytes, ASCII alone, no
/// control characters.
[[nodiscard]] std::string plain(std::string_view text, std::size_t most);

/// "%20" and so on: what may stand in a query's value.
[[nodiscard]] std::string query_escape(std::string_view text);

}  // namespace stator::kube
