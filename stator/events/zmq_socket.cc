#include "stator/events/zmq_socket.h"

#include <zmq.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "stator/base/check.h"

namespace stator::events {
namespace {

constexpr std::size_t kKeyText = 40;
constexpr std::size_t kKeyBytes = 32;

int type_of(ZmqKind kind) {
    switch (kind) {
        case ZmqKind::kXpub:
            return ZMQ_XPUB;
        case ZmqKind::kSub:
            return ZMQ_SUB;
        case ZmqKind::kRep:
            return ZMQ_REP;
        case ZmqKind::kDealer:
            return ZMQ_DEALER;
        case ZmqKind::kRouter:
            return ZMQ_ROUTER;
        case ZmqKind::kPair:
            return ZMQ_PAIR;
    }
    return ZMQ_SUB;
}

zmq_msg_t* as_message(unsigned char* at) { return std::launder(reinterpret_cast<zmq_msg_t*>(at)); }

zmq_msg_t* as_message(const unsigned char* at) {
    return as_message(const_cast<unsigned char*>(at));
}

}  // namespace

ZmqContext::ZmqContext(std::size_t max_sockets) : context_(zmq_ctx_new()) {
    STATOR_CHECK(context_ != nullptr, "a ZeroMQ context can be made");
    const int most = zmq_ctx_get(context_, ZMQ_SOCKET_LIMIT);
    zmq_ctx_set(
        context_, ZMQ_MAX_SOCKETS,
        static_cast<int>(std::min<std::size_t>(max_sockets, static_cast<std::size_t>(most))));
}

ZmqContext::~ZmqContext() {
    while (zmq_ctx_term(context_) != 0 && errno == EINTR) {
    }
}

Result<ZmqSocket> ZmqSocket::open(const ZmqContext& context, ZmqKind kind, int linger_ms) {
    void* socket = zmq_socket(context.get(), type_of(kind));
    if (socket == nullptr) {
        return error(ErrorCode::kExhausted, "no more ZeroMQ sockets can be had: {}",
                     zmq_strerror(errno));
    }
    ZmqSocket out(socket);
    out.set(ZMQ_LINGER, linger_ms);
    out.set(ZMQ_IPV6, 1);
    return out;
}

ZmqSocket::ZmqSocket(ZmqSocket&& other) noexcept : socket_(std::exchange(other.socket_, nullptr)) {}

ZmqSocket& ZmqSocket::operator=(ZmqSocket&& other) noexcept {
    if (this != &other) {
        if (socket_ != nullptr) zmq_close(socket_);
        socket_ = std::exchange(other.socket_, nullptr);
    }
    return *this;
}

ZmqSocket::~ZmqSocket() {
    if (socket_ != nullptr) zmq_close(socket_);
}

void ZmqSocket::set(int option, int value) {
    STATOR_CHECK(zmq_setsockopt(socket_, option, &value, sizeof(value)) == 0,
                 "this socket has the option");
}

Result<void> ZmqSocket::bind(const std::string& address) {
    if (zmq_bind(socket_, address.c_str()) == 0) return {};
    return error(errno == EMFILE ? ErrorCode::kExhausted : ErrorCode::kInvalidArgument,
                 "events can't be published on {}: {}", address, zmq_strerror(errno));
}

Result<void> ZmqSocket::connect(const std::string& address) {
    if (zmq_connect(socket_, address.c_str()) == 0) return {};
    return error(errno == EMFILE ? ErrorCode::kExhausted : ErrorCode::kInvalidArgument,
                 "events can't be read from {}: {}", address, zmq_strerror(errno));
}

std::string ZmqSocket::bound_address() const {
    char text[512];
    std::size_t size = sizeof(text);
    if (zmq_getsockopt(socket_, ZMQ_LAST_ENDPOINT, text, &size) != 0 || size == 0) return {};
    return {text, size - 1};
}

void ZmqSocket::set_high_water_marks(int send, int receive) {
    set(ZMQ_SNDHWM, send);
    set(ZMQ_RCVHWM, receive);
}

void ZmqSocket::set_limits(std::size_t max_message_bytes) {
    const auto most = static_cast<std::int64_t>(max_message_bytes);
    STATOR_CHECK(zmq_setsockopt(socket_, ZMQ_MAXMSGSIZE, &most, sizeof(most)) == 0,
                 "messages can be limited");
    set(ZMQ_RECONNECT_IVL, 100);
    set(ZMQ_RECONNECT_IVL_MAX, 2'000);
    // A peer that vanished without a word is noticed by ZeroMQ's own pings.
    set(ZMQ_HEARTBEAT_IVL, 5'000);
    set(ZMQ_HEARTBEAT_TIMEOUT, 15'000);
}

void ZmqSocket::subscribe(std::string_view prefix) {
    STATOR_CHECK(zmq_setsockopt(socket_, ZMQ_SUBSCRIBE, prefix.data(), prefix.size()) == 0,
                 "a SUB socket subscribes");
}

void ZmqSocket::tell_every_subscription() { set(ZMQ_XPUB_VERBOSE, 1); }

Result<void> ZmqSocket::set_key(int option, const std::string& key, const char* what) {
    if (is_curve_key(key) && zmq_setsockopt(socket_, option, key.c_str(), key.size()) == 0) {
        return {};
    }
    return error(ErrorCode::kInvalidArgument,
                 "the CURVE {} key is no Z85 text of {} characters (it has {})", what, kKeyText,
                 key.size());
}

Result<void> ZmqSocket::serve_curve(const CurveKeys& keys, bool ask_zap) {
    set(ZMQ_CURVE_SERVER, 1);
    if (ask_zap) {
        constexpr std::string_view kDomain = "stator-events";
        STATOR_CHECK(zmq_setsockopt(socket_, ZMQ_ZAP_DOMAIN, kDomain.data(), kDomain.size()) == 0,
                     "a server socket has a domain");
    }
    return set_key(ZMQ_CURVE_SECRETKEY, keys.secret_key, "secret");
}

Result<void> ZmqSocket::use_curve(const CurveKeys& keys, const std::string& server_key) {
    if (auto ok = set_key(ZMQ_CURVE_SERVERKEY, server_key, "publisher's"); !ok) return ok;
    if (auto ok = set_key(ZMQ_CURVE_PUBLICKEY, keys.public_key, "public"); !ok) return ok;
    return set_key(ZMQ_CURVE_SECRETKEY, keys.secret_key, "secret");
}

Result<ZmqSocket> ZmqSocket::watch_connections(const ZmqContext& context) {
    static std::atomic<std::uint64_t> last{0};
    const std::string address = "inproc://connections-" + std::to_string(++last);
    auto out = open(context, ZmqKind::kPair, 0);
    if (!out) return out;
    if (zmq_socket_monitor(socket_, address.c_str(),
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED) != 0) {
        return error(ErrorCode::kExhausted, "connections can't be watched: {}",
                     zmq_strerror(errno));
    }
    if (auto ok = out->connect(address); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    return out;
}

bool ZmqSocket::is_connected(std::string_view frame) {
    std::uint16_t event = 0;
    if (frame.size() < sizeof event) return false;
    std::memcpy(&event, frame.data(), sizeof event);
    return event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED;
}

int ZmqSocket::fd() const {
    int fd = -1;
    std::size_t size = sizeof(fd);
    zmq_getsockopt(socket_, ZMQ_FD, &fd, &size);
    return fd;
}

bool ZmqSocket::readable() const {
    int events = 0;
    std::size_t size = sizeof(events);
    return zmq_getsockopt(socket_, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN) != 0;
}

bool ZmqSocket::send(std::string_view bytes, bool more) {
    return zmq_send(socket_, bytes.data(), bytes.size(), ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) >=
           0;
}

ZmqFrame::ZmqFrame() {
    static_assert(sizeof(zmq_msg_t) == sizeof(message_) && alignof(zmq_msg_t) <= 8);
    ::new (static_cast<void*>(message_)) zmq_msg_t;
    zmq_msg_init(as_message(message_));
}

ZmqFrame::~ZmqFrame() { zmq_msg_close(as_message(message_)); }

bool ZmqFrame::receive(ZmqSocket& socket) {
    return zmq_msg_recv(as_message(message_), socket.socket_, ZMQ_DONTWAIT) >= 0;
}

std::string_view ZmqFrame::bytes() const {
    return {static_cast<const char*>(zmq_msg_data(as_message(message_))),
            zmq_msg_size(as_message(message_))};
}

bool ZmqFrame::more() const { return zmq_msg_more(as_message(message_)) != 0; }

bool is_curve_key(const std::string& key) {
    unsigned char bytes[kKeyBytes];
    return key.size() == kKeyText && zmq_z85_decode(bytes, key.c_str()) != nullptr;
}

std::string curve_key_text(std::string_view bytes) {
    char text[kKeyText + 1] = {};
    if (bytes.size() != kKeyBytes) return {};
    zmq_z85_encode(text, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    return {text, kKeyText};
}

CurveKeys make_curve_keys() {
    char public_key[kKeyText + 1] = {};
    char secret_key[kKeyText + 1] = {};
    STATOR_CHECK(zmq_curve_keypair(public_key, secret_key) == 0, "libzmq was built with CURVE");
    return {{public_key, kKeyText}, {secret_key, kKeyText}};
}

}  // namespace stator::events
