#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/base/error.h"

namespace stator::net {

struct HttpClientRequest {
    std::string method = "GET";
    std::string url = {};  ///< http://host[:port]/path
    std::vector<std::pair<std::string, std::string>> headers = {};
    std::string body = {};
    std::chrono::milliseconds connect_timeout{5'000};
    std::chrono::milliseconds read_timeout{300'000};  ///< without a byte
    std::size_t max_response_bytes = 64 * 1024 * 1024;
    /// Asked every 100 ms while waiting for the server, on the caller's thread; true ends the
    /// request with kCancelled. May be empty.
    std::function<bool()> cancelled = {};
};

struct HttpClientResponse {
    int status = 0;
    std::vector<std::pair<std::string, std::string>> headers = {};
    std::string body;  ///< empty where `on_data` took it

    [[nodiscard]] std::string_view header(std::string_view name) const;
};

/// One blocking request on a connection of its own: for tools such as `stator chat`. With
/// `on_data`, a 2xx body is handed over piece by piece as it arrives; returning false ends the
/// request with kCancelled. Errors: kInvalidArgument (URL, header), kUnavailable (can't connect, or
/// closed before an answer), kDeadlineExceeded, kTooLarge, kDataLoss (answer cut short).
[[nodiscard]] Result<HttpClientResponse> http_request(
    const HttpClientRequest& request, const std::function<bool(std::string_view)>& on_data = {});

}  // namespace stator::net
