#pragma once

#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "stator/net/http_pool.h"
#include "stator/net/stream_socket.h"

// Inside of the HTTP pool; included by its sources alone.
namespace stator::net {

class PoolConnection;

HttpFailure http_failure(HttpFailure::Kind kind, ErrorCode code, std::string message);

/// A call from start() to on_end(): it waits in the pool, then sits on a connection.
class PoolCall final : public HttpCall, public std::enable_shared_from_this<PoolCall> {
  public:
    PoolCall(std::weak_ptr<HttpPool::Impl> pool, HttpCallRequest request,
             std::shared_ptr<HttpCallHandler> handler)
        : pool_(std::move(pool)), request_(std::move(request)), handler_(std::move(handler)) {}

    void cancel() override;

    [[nodiscard]] const HttpCallRequest& request() const { return request_; }
    /// What goes over the wire for it.
    std::string head;
    void append_to(std::string& out) const { out.append(head).append(request_.body); }
    /// It is not sent again.
    void forget_body() { request_.body = {}; }
    [[nodiscard]] bool ended() const { return handler_ == nullptr; }
    [[nodiscard]] HttpCallHandler& handler() { return *handler_; }
    void sit_on(std::weak_ptr<PoolConnection> connection) { connection_ = std::move(connection); }

    void end(TimePoint at) { std::exchange(handler_, nullptr)->on_end(nullptr, at); }
    void fail(const HttpFailure& failure, TimePoint at);
    /// In a later turn; the call counts as ended at once.
    void fail_later(runtime::Loop& loop, HttpFailure failure, TimePoint at);

  private:
    std::weak_ptr<HttpPool::Impl> pool_;
    HttpCallRequest request_;
    std::shared_ptr<HttpCallHandler> handler_;  ///< null once it was told the end
    std::weak_ptr<PoolConnection> connection_;
};

/// One connection of a pool: connecting or open, with a call or idle.
class PoolConnection final : public StreamHandler,
                             public std::enable_shared_from_this<PoolConnection> {
  public:
    explicit PoolConnection(const std::shared_ptr<HttpPool::Impl>& pool);

    void dial();
    void begin(std::shared_ptr<PoolCall> call);
    /// The call leaves in the middle: so must the connection.
    void abandon();
    /// Leaves the pool and closes.
    void retire();
    /// The pool stops: a call is told in a later turn.
    void stop();

    void on_open() override;
    void on_bytes(std::string_view bytes) override;
    void on_drained() override {}
    void on_closed(const Error& why) override;

  private:
    void arm(Deadline deadline);
    void on_timer();
    [[nodiscard]] Deadline next_limit() const;
    void finish(TimePoint at, bool bytes_left);
    void fail(const HttpFailure& failure, TimePoint at);
    void on_lost(const Error& why, TimePoint at);

    std::weak_ptr<HttpPool::Impl> pool_;
    runtime::Loop& loop_;
    const Clock& clock_;
    HttpPoolOptions limits_;  ///< without headers
    std::shared_ptr<StreamSocket> socket_;
    boost::asio::steady_timer timer_;
    Deadline armed_;
    HttpResponseParser parser_;
    std::shared_ptr<PoolCall> call_;
    TimePoint active_;  ///< the last byte, or the begin of the call or of idleness
    bool open_ = false;
    bool retired_ = false;
    bool may_be_stale_ = false;  ///< the present call found it idle for long
    bool served_ = false;        ///< has answered a call before
    bool answered_ = false;      ///< a byte of the present call's answer has come
    bool head_told_ = false;
};

struct HttpPool::Impl : std::enable_shared_from_this<HttpPool::Impl> {
    Impl(runtime::Loop& the_loop, HttpUrl the_url, HttpPoolOptions the_options,
         const Clock& the_clock);

    [[nodiscard]] Result<std::string> render(const HttpCallRequest& request) const;
    void serve(std::shared_ptr<PoolCall> call);
    /// On a connection of its own, past the bound of waiting calls: one connection has just closed.
    void serve_fresh(std::shared_ptr<PoolCall> call);
    void connect_for(std::shared_ptr<PoolCall> call);
    void serve_waiting();
    void on_idle(const std::shared_ptr<PoolConnection>& connection);
    void on_retired(PoolConnection& connection);
    void forget(const PoolCall& call);
    void watch_waiting();
    void stop();

    runtime::Loop& loop;
    HttpUrl url;
    HttpPoolOptions options;
    const Clock& clock;
    std::string base_path;       ///< of the URL, without a '/' at its end
    std::string common_headers;  ///< Host and the pool's own
    HttpPoolCounts counts;
    bool stopped = false;
    std::unordered_map<PoolConnection*, std::shared_ptr<PoolConnection>> connections;
    std::vector<std::shared_ptr<PoolConnection>> idle;
    std::deque<std::shared_ptr<PoolCall>> waiting;
    boost::asio::steady_timer waiting_timer;
    bool watching = false;
};

}  // namespace stator::net
