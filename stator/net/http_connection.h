#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stator/net/http_answer.h"
#include "stator/net/http_parser.h"
#include "stator/net/http_shard.h"

// Inside of the server: how one loop's connections, the exchanges on them and their shard hang
// together. Included by http_connection.cc, http_exchange.cc and http_shard.cc alone.
namespace stator::net {

using IoExecutor = boost::asio::io_context::executor_type;
using Socket = boost::asio::basic_stream_socket<boost::asio::ip::tcp, IoExecutor>;

class Connection;
class Exchange;

class Shard final : public HttpShard, public std::enable_shared_from_this<Shard> {
  public:
    Shard(std::shared_ptr<HttpServerCore> core, runtime::Loop& loop);

    runtime::Loop& loop() override { return loop_; }
    void adopt(int fd, std::string peer, bool surplus) override;
    void begin_stop() override;
    void reset_all() override;
    [[nodiscard]] std::size_t open() const override {
        return open_.load(std::memory_order_relaxed);
    }
    void count_coming() override;
    void add_stats(HttpServerStats& stats) const override;

    [[nodiscard]] HttpServerCore& core() { return *core_; }
    [[nodiscard]] boost::asio::io_context& io() { return io_; }
    [[nodiscard]] TimePoint now() const { return core_->clock.now(); }
    [[nodiscard]] std::string_view date_line() { return date_.at(core_->clock.unix_seconds()); }
    /// The connection's flush() runs at the end of this turn.
    void flush_later(std::shared_ptr<Connection> connection);
    void remove(Connection& connection);

    /// Written on the loop alone, read anywhere.
    struct Counter {
        std::atomic<std::uint64_t> value{0};
        void add(std::uint64_t n) {
            value.store(value.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
        }
    };
    Counter requests, protocol_errors, timeouts, sends, bytes_sent;

  private:
    void flush_all();
    void sweep_later();
    void sweep();

    std::shared_ptr<HttpServerCore> core_;
    runtime::Loop& loop_;
    boost::asio::io_context& io_;
    boost::asio::steady_timer timer_;
    bool sweeping_ = false;
    std::chrono::nanoseconds sweep_every_;
    std::atomic<std::size_t> open_{0};
    std::vector<std::shared_ptr<Connection>> connections_;
    std::vector<std::shared_ptr<Connection>> to_flush_;
    std::vector<std::shared_ptr<Connection>> flushing_;
    DateLine date_;
};

/// One client. Reads always (bounded), so that a client's leaving is seen while its answer is in
/// the making; parses one request at a time; collects output and sends it at the end of a turn.
///
///   kIdle -> kHead -> kBody -> kAnswer -> kIdle ...   any of them -> kLinger -> kClosed
class Connection final : public std::enable_shared_from_this<Connection> {
  public:
    Connection(std::shared_ptr<Shard> shard, int fd, std::string peer);
    void start();
    void refuse_surplus();

    // For the exchange.
    [[nodiscard]] std::string& out() { return out_; }
    void request_flush();
    /// After something was appended to a streamed answer: sends at the turn's end; resets where
    /// the client has left more than max_output_bytes unread.
    void wrote_some();
    void finish(std::shared_ptr<Exchange> exchange, bool close);
    /// Resets. What is told to others (not to the caller) is told later.
    void abort();
    void abandoned(std::uint64_t request_number);

    // For the shard.
    void flush();
    void check_time(TimePoint now);
    void begin_stop();
    void reset() { end(true, false); }

    std::size_t index = 0;  ///< the shard's place for it

  private:
    enum class Phase : std::uint8_t { kIdle, kHead, kBody, kAnswer, kLinger, kClosed };
    enum class Sent : std::uint8_t { kAll, kBlocked, kBroken };
    struct Unsent {
        std::uint64_t up_to;  ///< of all bytes ever put out
        std::shared_ptr<Exchange> exchange;
    };

    void enter(Phase phase);
    void start_read();
    void on_read(const boost::system::error_code& ec, std::size_t n);
    void on_client_end(bool orderly);
    void take_input(std::string_view bytes);
    void after_feed();
    void body_begins();
    bool charge_body();
    void dispatch();
    void fail(int status, std::string_view message);
    Sent send_some();
    void tell_completed();
    void wait_writable();
    void after_all_sent();
    void end(bool reset, bool tell_later);
    void release_body_charge();
    [[nodiscard]] std::size_t unsent() const { return out_.size() - sent_; }

    std::shared_ptr<Shard> shard_;
    HttpServerCore& core_;
    Socket socket_;
    std::string peer_;
    HttpParser parser_;
    Phase phase_ = Phase::kIdle;
    TimePoint since_;  ///< of the phase
    TimePoint received_;

    std::unique_ptr<char[]> buffer_;
    std::size_t buffer_bytes_ = 0;
    std::string inbox_;  ///< read while the request before is being answered
    bool reading_ = false;
    bool taking_input_ = false;
    bool peer_ended_ = false;
    std::size_t discarded_ = 0;  ///< while lingering
    std::size_t body_charged_ = 0;
    std::uint64_t request_number_ = 0;
    std::weak_ptr<Exchange> exchange_;

    std::string out_;
    std::size_t sent_ = 0;         ///< of out_
    std::uint64_t out_start_ = 0;  ///< bytes put out before out_
    std::vector<Unsent> unsent_answers_;
    bool flush_asked_ = false;
    bool waiting_write_ = false;
    TimePoint write_progress_;
};

/// See HttpExchange. Knows its connection until the answer is whole or the client is gone.
class Exchange final : public HttpExchange, public std::enable_shared_from_this<Exchange> {
  public:
    Exchange(std::shared_ptr<Shard> shard, std::shared_ptr<Connection> connection,
             HttpRequest&& request, bool http_1_0, std::uint64_t number, std::size_t body_charged);
    ~Exchange() override;

    [[nodiscard]] const HttpRequest& request() const override { return request_; }
    [[nodiscard]] std::string take_body() override;
    [[nodiscard]] runtime::Loop& loop() override { return shard_->loop(); }
    void add_header(std::string_view name, std::string_view value) override;
    void respond(int status, std::string_view content_type, std::string_view body) override;
    void begin_stream(int status, std::string_view content_type) override;
    void write(std::string_view bytes) override;
    void end_stream() override;
    void abort() override;
    void on_disconnect(std::function<void()> f) override;
    void on_complete(std::function<void(int status, std::uint64_t body_bytes)> f) override;
    [[nodiscard]] bool disconnected() const override { return disconnected_; }

    // For the connection.
    /// The client is gone: forgets the connection and returns what is to be called.
    [[nodiscard]] std::function<void()> lost();
    /// All of the answer is with the kernel.
    void sent();
    [[nodiscard]] bool started() const { return stage_ != Stage::kNew; }

  private:
    enum class Stage : std::uint8_t { kNew, kStreaming, kWhole, kOver };
    void put_head(int status, std::string_view content_type, Framing framing, std::size_t length);
    void finish();
    void release_body_charge();

    std::shared_ptr<Shard> shard_;
    std::shared_ptr<Connection> connection_;
    HttpRequest request_;
    bool http_1_0_;
    bool head_only_;  ///< HEAD: headers as for GET, no body
    bool close_ = false;
    bool disconnected_ = false;
    Stage stage_ = Stage::kNew;
    Framing framing_ = Framing::kLength;
    int status_ = 0;
    std::uint64_t number_;
    std::size_t body_charged_;
    std::uint64_t body_bytes_ = 0;
    std::string extra_headers_;
    std::function<void()> on_disconnect_;
    std::function<void(int, std::uint64_t)> on_complete_;
};

}  // namespace stator::net
