#pragma once

#include <boost/asio/execution_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "stator/net/stream_dial.h"
#include "stator/net/stream_socket.h"

// Inside of the stream sockets; included by their sources alone.
namespace stator::net {

class StreamConnection;

/// The connections of one loop, and which of them have something to send when the turn ends. One
/// per io_context, and it goes with it.
class LoopStreams final : public boost::asio::execution_context::service {
  public:
    static boost::asio::execution_context::id id;
    explicit LoopStreams(boost::asio::execution_context& context) : service(context) {}

    void add(StreamConnection& connection) { all_.insert(&connection); }
    void remove(StreamConnection& connection) { all_.erase(&connection); }
    void flush_later(runtime::Loop& loop, std::shared_ptr<StreamConnection> connection);

  private:
    /// The loop goes while connections are open: lets go of their handlers, which own them.
    void shutdown() override;
    void flush_all();

    std::unordered_set<StreamConnection*> all_;
    std::vector<std::shared_ptr<StreamConnection>> waiting_;
    std::vector<std::shared_ptr<StreamConnection>> flushing_;
};

///            fd                 hello done             all sent                peer's end
/// kConnecting ──▶ kHandshake(TLS) ──▶ kOpen ──close()──▶ kClosing ──▶ kLinger ──▶ kClosed
/// and from each state straight to kClosed: abort(), a failure, the peer's end, time that ran out.
class StreamConnection final : public StreamSocket,
                               public std::enable_shared_from_this<StreamConnection> {
  public:
    /// `seat` is given back once the connection is closed.
    StreamConnection(runtime::Loop& loop, StreamOptions options, std::shared_ptr<void> seat);
    /// Once closed it may go on any thread: whoever holds a socket last is its owner's business.
    ~StreamConnection() override {
        if (state_ != State::kClosed) streams_.remove(*this);
    }
    StreamConnection(const StreamConnection&) = delete;
    StreamConnection& operator=(const StreamConnection&) = delete;

    void dial(const SocketAddress& address, std::shared_ptr<StreamHandler> handler);
    /// Takes over a connected descriptor, which start() or refuse() sets going.
    void adopt(int fd);
    void start(std::shared_ptr<StreamHandler> handler, std::string_view tls_server_name);
    void refuse();

    [[nodiscard]] std::string& out() override { return out_; }
    void flush_later() override;
    [[nodiscard]] std::size_t unsent() const override { return out_.size() + wire_.size() - sent_; }
    void pause_reading(bool paused) override;
    void close(std::chrono::milliseconds linger) override;
    void abort() override;
    [[nodiscard]] bool peer_ended() const override { return peer_ended_; }
    [[nodiscard]] const std::string& peer() const override { return peer_; }
    [[nodiscard]] std::uint64_t sends() const override { return sends_; }

    /// The end of a turn in which flush_later() was called.
    void flush();
    [[nodiscard]] std::shared_ptr<StreamHandler> take_handler() { return std::move(handler_); }

  private:
    enum class State : std::uint8_t { kConnecting, kHandshake, kOpen, kClosing, kLinger, kClosed };

    void become_open();
    void arm_timer(std::chrono::milliseconds after);
    void on_timer();
    void finish(Error why);

    [[nodiscard]] bool wants_bytes() const;
    void read_more();
    void on_read(const boost::system::error_code& ec, std::size_t n);
    [[nodiscard]] bool decrypt(std::string_view bytes);
    void deliver();
    void on_peer_end(const std::string& how);

    [[nodiscard]] bool fill_wire();
    void encrypt_output();
    void send_some();
    void wait_writable();
    void after_all_sent();

    runtime::Loop& loop_;
    boost::asio::io_context& io_;
    LoopStreams& streams_;
    StreamOptions options_;
    std::shared_ptr<void> seat_;
    std::shared_ptr<StreamHandler> handler_;
    std::shared_ptr<StreamDial> dial_;
    StreamFd fd_;
    boost::asio::steady_timer timer_;
    std::string peer_;
    State state_ = State::kConnecting;

    std::unique_ptr<char[]> buffer_;
    bool reading_ = false;
    bool paused_ = false;
    bool peer_ended_ = false;  ///< TLS: its farewell has come, perhaps with bytes still held; else
                               ///< the end of its bytes
    std::string plain_;        ///< TLS: what the last read carried
    std::string_view held_;    ///< read, not yet delivered; in buffer_ or plain_

    std::string out_;
    std::string wire_;      ///< what the kernel gets next
    std::size_t sent_ = 0;  ///< of wire_
    bool flush_asked_ = false;
    bool out_released_ = false;  ///< flush_later() covers what is in out_
    bool blocked_ = false;       ///< waits for the kernel to take more
    bool told_blocked_ = false;  ///< on_drained() is owed
    bool farewell_sent_ = false;
    std::uint64_t sends_ = 0;

    std::optional<TlsSession> tls_;
};

}  // namespace stator::net
