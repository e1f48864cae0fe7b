#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "stator/net/http_server.h"

namespace stator::net {

/// Why a request is refused: the status to answer with and a sentence for the client.
struct HttpRefusal {
    int status = 400;
    std::string message;
};

/// Bytes in, one request out; no sockets, no clock. Splitting the bytes differently never changes
/// the outcome. Beast parses; around it stands what a server must add: limits before memory is
/// spent, and refusal of everything that two parsers could read differently (bare LF, folded
/// headers, Content-Length beside Transfer-Encoding, more than one Content-Length or Host).
///
/// Feed until the state is kDone or kRefused, take the request, reset(), go on with the bytes that
/// feed() left.
class HttpParser {
  public:
    enum class State : std::uint8_t {
        kHead,     ///< reading the request line and headers
        kBody,     ///< the head is good, the body is on its way
        kDone,     ///< request() is whole
        kRefused,  ///< refusal() says why; nothing more is read
    };

    /// Uses max_header_bytes, max_headers and max_body_bytes.
    explicit HttpParser(const HttpLimits& limits);
    ~HttpParser();
    HttpParser(const HttpParser&) = delete;
    HttpParser& operator=(const HttpParser&) = delete;

    /// Reads on and returns how many bytes were used: all of them unless the request ended.
    std::size_t feed(std::string_view bytes);
    [[nodiscard]] State state() const;
    /// Has there been a byte of this request (other than the line breaks some clients send first)?
    [[nodiscard]] bool started() const;

    /// From kBody on. A body's string has room for 64 more bytes without
    /// reallocation.
    [[nodiscard]] HttpRequest& request();
    [[nodiscard]] std::optional<std::uint64_t> content_length() const;
    /// The client waits for "100 Continue" before it sends the body.
    [[nodiscard]] bool expects_continue() const;
    [[nodiscard]] bool http_1_0() const;
    [[nodiscard]] const HttpRefusal& refusal() const;

    /// Ready for the next request.
    void reset();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace stator::net
