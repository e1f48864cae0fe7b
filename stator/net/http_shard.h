#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "stator/net/http_server.h"

namespace stator::net {

/// What all shards of a server share. Outlives them.
struct HttpServerCore {
    HttpLimits limits;
    HttpHandler handler;
    HttpErrorBody error_body;
    const Clock& clock;

    std::atomic<std::size_t> body_bytes{0};  ///< held in bodies, against max_buffered_body_bytes
    std::atomic<bool> stopping{false};

    // stop() waits here for `open` to become zero.
    std::mutex mutex;
    std::condition_variable all_closed;
    std::atomic<std::size_t> open{0};  ///< connections given to shards
};

/// The connections of one loop. All methods on the loop's thread but stats() and open().
class HttpShard {
  public:
    static std::shared_ptr<HttpShard> make(std::shared_ptr<HttpServerCore> core,
                                           runtime::Loop& loop);
    virtual ~HttpShard() = default;

    [[nodiscard]] virtual runtime::Loop& loop() = 0;
    /// Takes over a connected, non-blocking socket, already counted in open() and the core's. One
    /// that is `surplus` gets a 503 and is closed.
    virtual void adopt(int fd, std::string peer, bool surplus) = 0;
    /// Closes what is idle and lets answers under way end.
    virtual void begin_stop() = 0;
    virtual void reset_all() = 0;

    /// Connections, for choosing a shard. Any thread.
    [[nodiscard]] virtual std::size_t open() const = 0;
    virtual void count_coming() = 0;
    /// This shard's part; any thread.
    virtual void add_stats(HttpServerStats& stats) const = 0;
};

}  // namespace stator::net
