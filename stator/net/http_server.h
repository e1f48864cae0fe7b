#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/runtime/loop.h"

namespace stator::net {

/// Everything a client can make us hold or wait for. Over a limit: the status in the comment, then
/// the connection closes.
struct HttpLimits {
    /// Request line and headers together; 431.
    std::size_t max_header_bytes = 16 * 1024;
    std::size_t max_headers = 100;  ///< 431
    /// 413, before it is read where Content-Length tells.
    std::size_t max_body_bytes = 32 * 1024 * 1024;
    /// Bodies being read or not yet taken by their handler, all connections; 503.
    std::size_t max_buffered_body_bytes = 512 * 1024 * 1024;
    /// Unread part of one connection's streamed answer; reset.
    std::size_t max_output_bytes = 4 * 1024 * 1024;
    std::size_t max_connections = 10'000;  ///< 503
    /// From the first byte (or accept) to the end of the headers; 408, or a silent close where
    /// nothing came.
    std::chrono::milliseconds header_timeout{10'000};
    std::chrono::milliseconds body_timeout{60'000};   ///< whole body; 408
    std::chrono::milliseconds idle_timeout{75'000};   ///< between requests; closed silently
    std::chrono::milliseconds write_timeout{60'000};  ///< no progress on a write; reset
};

struct HttpHeader {
    std::string name;  ///< as sent; compare with HttpRequest::header()
    std::string value;
};

struct HttpRequest {
    std::string method;  ///< upper case as sent, "GET"
    std::string target;  ///< path and query; an absolute target (http://host/path) is cut to that
    std::string path;    ///< target up to '?', percent-encoding untouched
    std::vector<HttpHeader> headers;
    std::string body;
    std::string peer;  ///< "127.0.0.1:50312"
    bool keep_alive = true;
    TimePoint received;  ///< when the first byte of this request was read

    /// First header of that name, case-insensitive; empty where there is none.
    [[nodiscard]] std::string_view header(std::string_view name) const;
};

/// The answer to one request. Lives on its connection's loop: every method only there (the last
/// reference may go anywhere, while the loop exists). Holding the shared_ptr keeps the exchange,
/// not the connection, alive; after the client left all methods do nothing. Dropping it without a
/// whole answer resets the connection and logs an error.
class HttpExchange {
  public:
    virtual ~HttpExchange() = default;

    [[nodiscard]] virtual const HttpRequest& request() const = 0;
    /// Moves the body out (parsers want to own it).
    [[nodiscard]] virtual std::string take_body() = 0;
    [[nodiscard]] virtual runtime::Loop& loop() = 0;

    /// Adds a header to the answer; before respond() or begin_stream().
    virtual void add_header(std::string_view name, std::string_view value) = 0;
    /// The whole answer at once, with Content-Length.
    virtual void respond(int status, std::string_view content_type, std::string_view body) = 0;

    /// Status line and headers of an answer without known length (chunked; on HTTP/1.0 until
    /// close). They leave together with the first write().
    virtual void begin_stream(int status, std::string_view content_type) = 0;
    /// Appends to the answer. What is written within one turn of the loop leaves in one send().
    virtual void write(std::string_view bytes) = 0;
    /// Ends a streamed answer.
    virtual void end_stream() = 0;

    /// Resets the connection: the client must not take what it has for a whole answer. Calls
    /// neither on_disconnect nor on_complete.
    virtual void abort() = 0;

    /// Called at most once, on the loop and never from within a method of this class, if the client
    /// goes away (or is reset for not reading, or by stop()) before the answer is with the kernel
    /// whole. A client that only ends its sending side while its answer is in the making counts as
    /// gone: that can't be told from leaving. One that has sent more than 64 KiB of further
    /// requests is seen to leave only once they are read.
    virtual void on_disconnect(std::function<void()> f) = 0;
    /// Called at most once, on the loop, when the answer was handed to the kernel whole, with
    /// status and body bytes (without chunk framing).
    virtual void on_complete(std::function<void(int status, std::uint64_t body_bytes)> f) = 0;
    [[nodiscard]] virtual bool disconnected() const = 0;
};

using HttpHandler = std::function<void(std::shared_ptr<HttpExchange>)>;

/// Renders the answer for errors found before there is a request to hand out (bad request line,
/// limits); returns (content type, body).
using HttpErrorBody =
    std::function<std::pair<std::string, std::string>(int status, std::string_view message)>;

struct HttpServerStats {
    std::uint64_t connections_accepted = 0;
    std::uint64_t connections_open = 0;
    std::uint64_t connections_refused = 0;
    std::uint64_t requests = 0;
    std::uint64_t protocol_errors = 0;
    std::uint64_t timeouts = 0;
    std::uint64_t sends = 0;  ///< send() calls
    std::uint64_t bytes_sent = 0;
};

/// HTTP/1.1 over TCP. Bytes are parsed by Boost.Beast, answers are rendered here. A connection
/// stays on its loop; new ones go to the loop with the fewest. Requests on one connection are
/// answered one after the other (a pipelined one waits).
class HttpServer {
  public:
    HttpServer(runtime::LoopPool& loops, HttpLimits limits, HttpHandler handler,
               HttpErrorBody error_body, const Clock& clock = Clock::real());
    ~HttpServer();

    /// Binds and listens. `host` is an address or a name; port 0 takes a free one. kInvalidArgument
    /// or kUnavailable with host, port and the system's reason.
    [[nodiscard]] Result<void> listen(const std::string& host, std::uint16_t port);
    /// The bound port.
    [[nodiscard]] std::uint16_t port() const;

    /// Stops accepting, closes idle connections, lets answers under way end until the deadline,
    /// resets the rest. Blocks; not on a loop.
    void stop(Deadline deadline);

    [[nodiscard]] HttpServerStats stats() const;

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace stator::net
