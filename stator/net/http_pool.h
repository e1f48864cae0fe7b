#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stator/base/clock.h"
#include "stator/base/error.h"
#include "stator/net/http_response.h"
#include "stator/net/http_url.h"
#include "stator/net/tls.h"
#include "stator/runtime/loop.h"

namespace stator::net {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpCallRequest {
    std::string method = "GET";
    std::string path = "/";  ///< with the query; the pool's own path stands before it
    HttpHeaders headers = {};
    std::string body = {};
    Deadline deadline = {};  ///< of the whole call, waiting for a connection included
};

/// Why a call gave no whole answer.
struct HttpFailure {
    enum class Kind : std::uint8_t {
        kNotSent,    ///< over a bound of the pool, a request that can't be written, or stopped
        kConnect,    ///< no connection: refused, unknown name, TLS, time
        kLost,       ///< closed or reset before a byte of the answer
        kCutShort,   ///< closed or reset within the answer
        kTimeout,    ///< silence, or the deadline
        kBadAnswer,  ///< not HTTP
        kCancelled,
    };
    Kind kind = Kind::kNotSent;
    Error error;
};

/// Told what becomes of a call, on the pool's loop.
class HttpCallHandler {
  public:
    virtual ~HttpCallHandler() = default;
    virtual void on_head(const HttpResponseHead& head) = 0;
    /// A piece of the body as it came, without its framing; the view is gone afterwards. `at` is
    /// when it was read.
    virtual void on_body(std::string_view piece, TimePoint at) = 0;
    /// The last call, exactly once; never from within HttpPool::start() or HttpCall::cancel().
    /// `failure` is null where the answer is whole (its status may be anything).
    virtual void on_end(const HttpFailure* failure, TimePoint at) = 0;
};

/// A call on its way.
class HttpCall {
  public:
    virtual ~HttpCall() = default;
    /// Its connection is closed, which tells the server; on_end() comes in a later turn and nothing
    /// before it. Nothing, where the call has ended.
    virtual void cancel() = 0;
};

struct HttpPoolOptions {
    std::size_t max_connections = 1'024;
    /// Calls that wait for a connection; one more is refused.
    std::size_t max_waiting = 65'536;
    std::chrono::milliseconds connect_timeout{5'000};    ///< TLS handshake included
    std::chrono::milliseconds silence_timeout{300'000};  ///< without a byte, once connected
    std::chrono::milliseconds idle_timeout{60'000};      ///< then an unused connection is closed
    /// A kept connection that was idle this long may have been closed by the server meanwhile: only
    /// then a call that finds it closed is sent once more.
    std::chrono::milliseconds stale_after{0};
    std::size_t read_bytes = 16 * 1024;  ///< a buffer of this size per connection
    std::size_t max_head_bytes = 64 * 1024;
    HttpHeaders headers = {};                    ///< sent with every request: keys, agents
    std::shared_ptr<const TlsContext> tls = {};  ///< https; null: the system's authorities
};

struct HttpPoolCounts {
    std::uint64_t calls = 0;
    std::uint64_t connected = 0;  ///< connections made
    std::uint64_t reused = 0;     ///< calls on a connection that had served one before
    /// Calls sent once more because the kept connection turned out to be closed. Only where no
    /// byte of an answer had come, and on a connection of their own, so at most once per call.
    std::uint64_t stale_retries = 0;
    std::uint64_t refused = 0;  ///< max_waiting was reached
    std::uint64_t open = 0;     ///< connections now, those that connect included
    std::uint64_t waiting = 0;  ///< calls that wait for a connection now
};

/// Calls one HTTP/1.1 server, many at a time: connections are kept and the one used last is used
/// next. Everything on one loop: made, used and destroyed there; no locks. Redirects are not
/// followed, cookies not kept, bodies not unpacked.
class HttpPool {
  public:
    /// kInvalidArgument: a header that can't be sent; the reasons of TlsContext::client().
    [[nodiscard]] static Result<std::unique_ptr<HttpPool>> create(runtime::Loop& loop, HttpUrl url,
                                                                  HttpPoolOptions options,
                                                                  const Clock& clock);
    ~HttpPool();  ///< stop()
    HttpPool(const HttpPool&) = delete;
    HttpPool& operator=(const HttpPool&) = delete;

    /// Sends at the end of this turn, or when a connection is free. The pool keeps the handler
    /// until on_end().
    [[nodiscard]] std::shared_ptr<HttpCall> start(HttpCallRequest request,
                                                  std::shared_ptr<HttpCallHandler> handler);
    /// Cancels every call, closes every connection; later calls are kNotSent. Handlers are told in
    /// later turns, so let the loop turn before it ends.
    void stop();
    [[nodiscard]] HttpPoolCounts counts() const;

    struct Impl;

  private:
    explicit HttpPool(std::shared_ptr<Impl> impl);
    std::shared_ptr<Impl> impl_;
};

}  // namespace stator::net
