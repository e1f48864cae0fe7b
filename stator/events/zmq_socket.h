#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "stator/base/error.h"
#include "stator/events/publisher.h"

namespace stator::events {

/// A ZeroMQ context with one I/O thread. Sockets must be gone before it.
class ZmqContext {
  public:
    explicit ZmqContext(std::size_t max_sockets);
    ~ZmqContext();
    ZmqContext(const ZmqContext&) = delete;
    ZmqContext& operator=(const ZmqContext&) = delete;
    [[nodiscard]] void* get() const { return context_; }

  private:
    void* context_;
};

enum class ZmqKind : unsigned char { kXpub, kSub, kRep, kDealer, kRouter, kPair };

/// One socket, not blocking, of one thread at a time. Closing it keeps what is queued for
/// `linger_ms`.
class ZmqSocket {
  public:
    /// kExhausted where there are no more sockets or descriptors.
    static Result<ZmqSocket> open(const ZmqContext& context, ZmqKind kind, int linger_ms);
    ZmqSocket(ZmqSocket&& other) noexcept;
    ZmqSocket& operator=(ZmqSocket&& other) noexcept;
    ~ZmqSocket();

    [[nodiscard]] Result<void> bind(const std::string& address);
    [[nodiscard]] Result<void> connect(const std::string& address);
    [[nodiscard]] std::string bound_address() const;
    /// Options must be set before bind() and connect().
    void set_high_water_marks(int send, int receive);
    void set_limits(std::size_t max_message_bytes);
    void subscribe(std::string_view prefix);
    void tell_every_subscription();  ///< XPUB: also those that another has already
    /// kInvalidArgument where a key is no Z85 text of 40 characters.
    [[nodiscard]] Result<void> serve_curve(const CurveKeys& keys, bool ask_zap);
    [[nodiscard]] Result<void> use_curve(const CurveKeys& keys, const std::string& server_key);

    /// Messages of two frames for each connection that this socket makes or loses, to be read from
    /// the socket returned: is_connected() tells them apart.
    [[nodiscard]] Result<ZmqSocket> watch_connections(const ZmqContext& context);
    /// Of the first frame of such a message: made, or lost.
    [[nodiscard]] static bool is_connected(std::string_view frame);

    /// Readable descriptor; says "something changed", so ask readable() after every use.
    [[nodiscard]] int fd() const;
    [[nodiscard]] bool readable() const;
    /// False: dropped, because nothing can take it now.
    bool send(std::string_view bytes, bool more = false);

  private:
    friend class ZmqFrame;
    explicit ZmqSocket(void* socket) : socket_(socket) {}
    void set(int option, int value);
    [[nodiscard]] Result<void> set_key(int option, const std::string& key, const char* what);
    void* socket_;
};

/// One received frame; its bytes stay valid until the next receive().
class ZmqFrame {
  public:
    ZmqFrame();
    ~ZmqFrame();
    ZmqFrame(const ZmqFrame&) = delete;
    ZmqFrame& operator=(const ZmqFrame&) = delete;

    /// False where nothing is there.
    bool receive(ZmqSocket& socket);
    [[nodiscard]] std::string_view bytes() const;
    [[nodiscard]] bool more() const;  ///< further frames of the same message follow

  private:
    alignas(8) unsigned char message_[64];
};

/// Whether the key is one in Z85: 40 characters that decode.
[[nodiscard]] bool is_curve_key(const std::string& key);
/// A public key of 32 bytes as Z85 text.
[[nodiscard]] std::string curve_key_text(std::string_view bytes);

}  // namespace stator::events
