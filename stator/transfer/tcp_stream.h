#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stator/base/error.h"
#include "stator/net/socket_address.h"
#include "stator/net/tls.h"
#include "stator/runtime/loop.h"
#include "stator/transfer/wire.h"

// Inside of the room.
namespace stator::transfer {

/// Told what comes over a TcpStream, on its loop. An error returned ends the connection with it.
class TcpStreamEvents {
  public:
    virtual ~TcpStreamEvents() = default;
    virtual void on_open() = 0;
    [[nodiscard]] virtual Result<void> on_message(const Message& message) = 0;
    /// Where the chunk's bytes go: as many as it says, writable until on_chunk_end() or
    /// on_closed().
    [[nodiscard]] virtual Result<std::span<std::byte>> on_chunk(const Chunk& chunk) = 0;
    /// They are there; their checksum is not compared yet.
    [[nodiscard]] virtual Result<void> on_chunk_end(const Chunk& chunk,
                                                    std::span<const std::byte> bytes) = 0;
    /// There is room for more output.
    virtual void on_room() = 0;
    /// The last call, exactly once, in a later turn.
    virtual void on_closed(const Error& why) = 0;
};

/// One TCP connection that carries messages and chunks, perhaps under TLS, on one loop; every
/// method there. Chunks leave straight from where they lie and arrive straight where they belong
/// (under TLS: by way of OpenSSL's buffers).
class TcpStream : public std::enable_shared_from_this<TcpStream> {
  public:
    TcpStream(runtime::Loop& loop, std::shared_ptr<const net::TlsContext> tls);
    TcpStream(const TcpStream&) = delete;
    TcpStream& operator=(const TcpStream&) = delete;
    ~TcpStream() = default;

    /// One of the two, once. `timeout`: for connecting and the TLS handshake.
    void dial(const net::SocketAddress& address, std::chrono::milliseconds timeout,
              std::shared_ptr<TcpStreamEvents> events);
    void accept(int fd, std::chrono::milliseconds timeout, std::shared_ptr<TcpStreamEvents> events);

    void send(const Message& message);
    /// `bytes` must not change while `keep` is held; checksummed here if `chunk.checked`.
    void send_chunk(Chunk chunk, std::span<const std::byte> bytes,
                    std::shared_ptr<const void> keep);
    [[nodiscard]] std::size_t queued_bytes() const { return queued_bytes_; }
    /// Bytes that have come and gone so far: who looks twice sees whether the connection moves.
    [[nodiscard]] std::uint64_t bytes_in() const { return bytes_in_; }
    [[nodiscard]] std::uint64_t bytes_out() const { return bytes_out_; }
    [[nodiscard]] bool open() const { return state_ == State::kOpen; }
    /// Sends what is queued, as far as the kernel takes it at once, then closes.
    void close(Error why);
    [[nodiscard]] bool closed() const { return state_ == State::kClosed; }

  private:
    enum class State : std::uint8_t { kNew, kDialing, kHandshake, kOpen, kClosed };
    struct Piece {
        std::string head;
        std::span<const std::byte> body;
        std::shared_ptr<const void> keep;
    };

    void arm(std::chrono::milliseconds timeout);
    void connect_next();
    void connected();
    void begin(std::string_view tls_server_name);
    void become_open();

    void wait_readable();
    void on_readable();
    /// Bytes read; 0: nothing is there.
    [[nodiscard]] Result<std::size_t> read_some();
    [[nodiscard]] Result<void> decrypt(std::string_view bytes);
    [[nodiscard]] Result<void> take(std::string_view& bytes);
    [[nodiscard]] Result<void> advance_chunk(std::size_t bytes);

    void flush_soon();
    void flush();
    [[nodiscard]] Result<std::size_t> send_some();
    [[nodiscard]] Result<std::size_t> send_plain();
    [[nodiscard]] Result<std::size_t> send_tls();
    void drop_sent(std::size_t bytes);

    runtime::Loop& loop_;
    std::shared_ptr<const net::TlsContext> tls_context_;
    std::optional<net::TlsSession> tls_;
    boost::asio::posix::stream_descriptor fd_;
    boost::asio::steady_timer timer_;
    std::optional<boost::asio::ip::tcp::resolver> resolver_;
    std::vector<boost::asio::ip::tcp::endpoint> endpoints_;
    std::size_t next_endpoint_ = 0;
    net::SocketAddress address_;
    std::shared_ptr<TcpStreamEvents> events_;
    State state_ = State::kNew;
    std::string last_reason_ = "the name has no address";

    std::vector<char> buffer_;
    std::size_t buffered_ = 0;  ///< from the front
    std::string plain_;         ///< TLS: decrypted, not yet taken
    std::optional<Chunk> chunk_;
    std::span<std::byte> chunk_bytes_;
    std::size_t chunk_got_ = 0;

    std::deque<Piece> queue_;
    std::size_t sent_ = 0;  ///< of the first piece
    std::size_t queued_bytes_ = 0;
    std::uint64_t bytes_in_ = 0;
    std::uint64_t bytes_out_ = 0;
    std::string cipher_;
    std::size_t cipher_sent_ = 0;
    bool flush_posted_ = false;
    bool waiting_writable_ = false;
};

}  // namespace stator::transfer
