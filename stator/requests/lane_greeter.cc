#include <cstring>

#include "stator/requests/handshake.h"
#include "stator/requests/worker_session.h"

namespace stator::requests {

struct LaneGreeter::Impl {
    Result<void> on_frame(const Frame& f, std::string& out);

    std::string secret;
    std::uint64_t seed = 0;
    Deadline deadline;
    FrameReader reader{true};
    std::optional<Hello> client;
    Nonce nonce{};
    bool done = false;
};

Result<void> LaneGreeter::Impl::on_frame(const Frame& f, std::string& out) {
    if (client) {
        Nonce proof{};
        if (f.type != FrameType::kAuth || f.payload.size() != proof.size()) {
            return error(ErrorCode::kUnauthenticated, "a proof of the shared secret was expected");
        }
        std::memcpy(proof.data(), f.payload.data(), proof.size());
        if (!same_proof(proof, prove(secret, Prover::kClient, *client, nonce))) {
            return error(ErrorCode::kUnauthenticated, "the client does not know the shared secret");
        }
        done = true;
        return {};
    }
    if (f.type != FrameType::kHello) {
        return error(ErrorCode::kDataLoss, "hello was expected, not {}", to_string(f.type));
    }
    auto hello = read_hello(f.payload);
    if (!hello) return tl::unexpected(std::move(hello.error()));
    if (hello->version != kProtocolVersion) {
        return error(ErrorCode::kUnsupported,
                     "version {} of the protocol is not spoken here, {} is", hello->version,
                     kProtocolVersion);
    }
    nonce = make_nonce(seed, 0, hello->link);
    Hello own;
    own.version = kProtocolVersion;
    own.features = common_features(hello->features);
    own.nonce = nonce;
    own.lane = hello->lane;
    own.link = hello->link;
    own.secret_wanted = !secret.empty();
    if (!secret.empty()) own.proof = prove(secret, Prover::kWorker, *hello, nonce);
    put_frame(out, FrameType::kHello, 0, [&](std::string& to) { append_hello(to, own); });
    client = std::move(*hello);
    done = secret.empty();
    return {};
}

LaneGreeter::LaneGreeter(std::string secret, std::uint64_t random_seed, TimePoint now,
                         std::chrono::milliseconds within)
    : impl_(std::make_unique<Impl>()) {
    impl_->secret = std::move(secret);
    impl_->seed = random_seed;
    impl_->deadline = Deadline::after(now, within);
}
LaneGreeter::~LaneGreeter() = default;

Result<std::optional<LaneGreeter::Greeted>> LaneGreeter::received(std::string_view bytes,
                                                                  TimePoint now, std::string& out) {
    Result<void> ok;
    if (impl_->deadline.reached(now)) {
        ok = error(ErrorCode::kDeadlineExceeded, "the handshake took too long");
    }
    // Byte by byte, so that what lies behind the last frame stays with us: a handshake is a few
    // hundred bytes, once per connection.
    while (ok && !impl_->done && !bytes.empty()) {
        ok = impl_->reader.feed(bytes.substr(0, 1),
                                [&](const Frame& f) { return impl_->on_frame(f, out); });
        bytes.remove_prefix(1);
    }
    if (!ok) {
        put_error(out, 0, ok.error());
        return tl::unexpected(std::move(ok.error()));
    }
    if (!impl_->done) return std::optional<Greeted>{};
    return Greeted{.client = *impl_->client, .rest = std::string(bytes)};
}

Deadline LaneGreeter::next_timer() const { return impl_->deadline; }

}  // namespace stator::requests
