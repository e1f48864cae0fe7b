#include "stator/transfer/tcp_producer.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <future>
#include <utility>

#include "stator/base/log.h"
#include "stator/net/posix_socket.h"
#include "stator/runtime/asio.h"
#include "stator/transfer/proof.h"
#include "stator/transfer/random.h"

namespace stator::transfer {
namespace {

constexpr std::size_t kMaxConnections = 1024;
constexpr std::size_t kMaxFetches = 8192;  // of one connection, waiting
constexpr std::size_t kChunkBytes = 256 * 1024;
constexpr std::size_t kQueueBytes = 768 * 1024;
constexpr std::chrono::milliseconds kHandshakeTime{5'000};
constexpr std::chrono::milliseconds kPause{100};
constexpr int kLooks = 3;  ///< so many in a row at a connection that does not move end it

Refusal refusal(std::uint64_t request, const Error& why) {
    return {.request = request,
            .code = static_cast<std::uint8_t>(why.code),
            .text = why.message.substr(0, kMaxRefusalBytes)};
}

}  // namespace

Store::Owner next_owner() {
    static std::atomic<Store::Owner> last{0};
    return ++last;
}

/// One claimer's connection, on one loop.
class TcpProducer::Session final : public TcpStreamEvents,
                                   public std::enable_shared_from_this<Session> {
  public:
    Session(std::shared_ptr<TcpProducer> producer, runtime::Loop& loop,
            std::shared_ptr<TcpStream> stream, Store::Owner owner)
        : producer_(std::move(producer)),
          loop_(loop),
          stream_(std::move(stream)),
          timer_(runtime::asio_context(loop)),
          owner_(owner) {}

    void on_open() override {
        timer_.expires_after(kHandshakeTime);
        timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& ec) {
            const auto self = weak.lock();
            if (ec || !self || !self->stream_ || self->phase_ == Phase::kReady) return;
            self->stream_->close(
                error(ErrorCode::kUnauthenticated, "no handshake in time").value());
        });
    }

    Result<void> on_message(const Message& message) override {
        if (phase_ == Phase::kReady) {
            if (const auto* m = std::get_if<Claim>(&message)) return on_claim(*m);
            if (const auto* m = std::get_if<Fetch>(&message)) return on_fetch(*m);
            if (const auto* m = std::get_if<Done>(&message)) return on_done(*m);
            if (const auto* m = std::get_if<Write>(&message)) return on_write(*m);
            if (const auto* m = std::get_if<Release>(&message)) {
                store().release(m->id);
                return {};
            }
        } else if (const auto* hello = std::get_if<Hello>(&message);
                   hello != nullptr && phase_ == Phase::kHello) {
            return on_hello(*hello);
        } else if (const auto* proof = std::get_if<Proof>(&message);
                   proof != nullptr && phase_ == Phase::kProof) {
            return on_proof(*proof);
        }
        return error(ErrorCode::kDataLoss, "a claimer must not send a message of type {} now",
                     message.index() + 1);
    }

    Result<std::span<std::byte>> on_chunk(const Chunk& /*chunk*/) override {
        return error(ErrorCode::kDataLoss, "a claimer sends no bytes of handoffs");
    }
    Result<void> on_chunk_end(const Chunk& /*chunk*/,
                              std::span<const std::byte> /*bytes*/) override {
        return {};
    }

    void on_room() override {
        while (!fetches_.empty() && stream_ && stream_->queued_bytes() < kQueueBytes) {
            Ordered& next = fetches_.front();
            const std::uint64_t n = std::min<std::uint64_t>(next.end - next.at, kChunkBytes);
            stream_->send_chunk(
                {.grant = next.granted->number, .offset = next.at, .checked = next.check},
                next.granted->bytes().subspan(next.at, n), next.granted);
            producer_->options_.sent(false, n);
            next.at += n;
            if (next.at == next.end) fetches_.pop_front();
        }
    }

    void on_closed(const Error& why) override {
        if (phase_ != Phase::kReady && why.code != ErrorCode::kCancelled &&
            why.code != ErrorCode::kUnavailable) {
            log_warn("A claim of a handoff was turned away.", {{"why", why.message}});
        }
        timer_.cancel();
        fetches_.clear();
        stream_ = nullptr;
        store().drop(owner_);
        producer_->forget(owner_);
    }

  private:
    enum class Phase : std::uint8_t { kHello, kProof, kReady };
    struct Ordered {
        std::shared_ptr<const Granted> granted;
        std::uint64_t at = 0;
        std::uint64_t end = 0;
        std::uint8_t check = 0;
    };

    [[nodiscard]] Store& store() const { return *producer_->store_; }

    Result<void> refuse_link(Error why) {
        stream_->send(refusal(0, why));
        return tl::unexpected<Error>(std::move(why));
    }

    Result<void> on_hello(const Hello& hello) {
        if (hello.version != kWireVersion) {
            return refuse_link(
                error(ErrorCode::kUnsupported,
                      "version {} of the transfer protocol is not spoken here, but {}",
                      hello.version, kWireVersion)
                    .value());
        }
        if (hello.plane != producer_->options_.plane) {
            return refuse_link(
                error(ErrorCode::kUnavailable, "another process answers at this address now")
                    .value());
        }
        hello_ = hello;
        welcome_.nonce = random_bytes<32>();
        if (producer_->options_.secret) secret_ = producer_->options_.secret();
        welcome_.prove = secret_.empty() ? 0 : 1;
        phase_ = secret_.empty() ? Phase::kReady : Phase::kProof;
        stream_->send(welcome_);
        return {};
    }

    Result<void> on_proof(const Proof& proof) {
        if (!same_proof(proof.proof, prove(secret_, Prover::kClaimer, hello_, welcome_.nonce))) {
            return refuse_link(
                error(ErrorCode::kUnauthenticated, "the claimer does not know the secret").value());
        }
        phase_ = Phase::kReady;
        stream_->send(Proof{prove(secret_, Prover::kProducer, hello_, welcome_.nonce)});
        return {};
    }

    Result<void> on_claim(const Claim& claim) {
        auto granted = store().claim(claim.id, claim.key, owner_);
        if (!granted) {
            stream_->send(refusal(claim.request, granted.error()));
            return {};
        }
        watch();
        stream_->send(Grant{.request = claim.request,
                            .grant = (*granted)->number,
                            .offset = (*granted)->range->offset(),
                            .bytes = (*granted)->what->bytes,
                            .arena_bytes = store().arena().capacity()});
        if (claim.push_bytes == 0) return {};
        return order(std::move(*granted), claim.push_from, claim.push_bytes, claim.check);
    }

    Result<void> on_fetch(const Fetch& fetch) {
        auto granted = store().granted(fetch.grant);
        if (!granted) return error(ErrorCode::kNotFound, "a fetch of what is not granted");
        return order(std::move(granted), fetch.offset, fetch.bytes, fetch.check);
    }

    Result<void> order(std::shared_ptr<const Granted> granted, std::uint64_t offset,
                       std::uint64_t bytes, std::uint8_t check) {
        const std::uint64_t all = granted->what->bytes;
        if (bytes == 0 || offset > all || bytes > all - offset) {
            return error(ErrorCode::kDataLoss, "a fetch of {} bytes at {} of a handoff of {}",
                         bytes, offset, all);
        }
        if (fetches_.size() >= kMaxFetches) {
            return error(ErrorCode::kOverloaded, "more than {} fetches at once", kMaxFetches);
        }
        fetches_.push_back({.granted = std::move(granted),
                            .at = offset,
                            .end = offset + bytes,
                            .check = static_cast<std::uint8_t>(check != 0 ? 1 : 0)});
        on_room();
        return {};
    }

    Result<void> on_done(const Done& done) {
        store().finish(done.grant);
        return {};
    }

    /// Looks at the connection now and then, as long as anything is granted over it.
    void watch() {
        if (std::exchange(watching_, true)) return;
        timer_.expires_after(producer_->options_.idle / kLooks);
        timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& ec) {
            const auto self = weak.lock();
            if (ec || !self || !self->stream_) return;
            self->watching_ = false;
            self->look();
        });
    }

    void look() {
        if (!store().holds(owner_)) {
            idle_looks_ = 0;
            return;
        }
        const std::uint64_t moved = stream_->bytes_in() + stream_->bytes_out();
        idle_looks_ = moved == seen_ && writes_ == 0 ? idle_looks_ + 1 : 0;
        seen_ = moved;
        if (idle_looks_ < kLooks) return watch();
        stream_->close(error(ErrorCode::kUnavailable, "the claimer has been silent for {} ms",
                             producer_->options_.idle.count())
                           .value());
    }

    Result<void> on_write(const Write& write) {
        ++writes_;
        const auto answer = [self = shared_from_this(), grant = write.grant](Result<void> result) {
            --self->writes_;
            if (!self->stream_) return;
            Written written{.grant = grant, .code = 0, .text = {}};
            if (!result) {
                written.code = static_cast<std::uint8_t>(result.error().code);
                written.text = result.error().message.substr(0, kMaxRefusalBytes);
            }
            self->stream_->send(written);
        };
        NixlMover* nixl = producer_->options_.nixl;
        const auto granted = store().granted(write.grant);
        if (nixl == nullptr || !granted) {
            answer(error(ErrorCode::kUnavailable, "NIXL does not work at the producer"));
            return {};
        }
        std::vector<NixlMover::Piece> pieces;
        std::uint64_t bytes = 0;
        for (const Write::Range& range : write.ranges) {
            if (range.bytes == 0) continue;
            if (range.offset > granted->what->bytes ||
                range.bytes > granted->what->bytes - range.offset) {
                return error(ErrorCode::kDataLoss, "a write of more than the handoff has");
            }
            pieces.push_back(
                {.from = granted->bytes().subspan(range.offset, range.bytes), .to = range.address});
            bytes += range.bytes;
        }
        nixl->write(write.metadata, std::move(pieces), granted,
                    [answer, bytes, self = shared_from_this()](Result<void> result) {
                        if (result) self->producer_->options_.sent(true, bytes);
                        self->loop_.post([answer, result] { answer(result); });
                    });
        return {};
    }

    const std::shared_ptr<TcpProducer> producer_;
    runtime::Loop& loop_;
    std::shared_ptr<TcpStream> stream_;
    boost::asio::steady_timer timer_;
    const Store::Owner owner_;
    Phase phase_ = Phase::kHello;
    std::string secret_;
    Hello hello_;
    Welcome welcome_;
    std::deque<Ordered> fetches_;
    std::size_t writes_ = 0;  ///< of NIXL, under way
    bool watching_ = false;
    int idle_looks_ = 0;
    std::uint64_t seen_ = 0;
};

Result<std::shared_ptr<TcpProducer>> TcpProducer::start(runtime::Loop& main,
                                                        runtime::LoopPool& movers,
                                                        std::shared_ptr<Store> store,
                                                        TcpProducerOptions options) {
    auto fd = net::listen_tcp(options.listen.host, options.listen.port);
    if (!fd) return tl::unexpected<Error>(std::move(fd.error()));
    std::shared_ptr<TcpProducer> made(
        new TcpProducer(main, movers, std::move(store), std::move(options), *fd));
    main.post([made] { made->wait_client(); });
    return made;
}

TcpProducer::TcpProducer(runtime::Loop& main, runtime::LoopPool& movers,
                         std::shared_ptr<Store> store, TcpProducerOptions options, int fd)
    : main_(main),
      movers_(movers),
      store_(std::move(store)),
      options_(std::move(options)),
      port_(net::bound_port(fd)),
      listener_(runtime::asio_context(main), fd),
      pause_(runtime::asio_context(main)) {}

void TcpProducer::wait_client() {
    listener_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                         [weak = weak_from_this()](const boost::system::error_code& ec) {
                             if (const auto self = weak.lock(); self && !ec) self->accept_all();
                         });
}

void TcpProducer::accept_all() {
    while (listener_.is_open()) {
        const net::Accepted accepted = net::accept_client(listener_.native_handle());
        switch (accepted.what) {
            case net::Accepted::What::kClient:
                begin(accepted.fd);
                break;
            case net::Accepted::What::kGone:
                break;
            case net::Accepted::What::kNobody:
                wait_client();
                return;
            case net::Accepted::What::kExhausted:
                log_warn("No connection can be accepted for claims of handoffs just now.",
                         {{"why", net::system_message(accepted.error)}});
                pause_.expires_after(kPause);
                pause_.async_wait([weak = weak_from_this()](const boost::system::error_code& ec) {
                    if (const auto self = weak.lock(); self && !ec) self->accept_all();
                });
                return;
        }
    }
}

void TcpProducer::begin(int fd) {
    runtime::Loop& loop = movers_.at(next_mover_++ % movers_.size());
    const Store::Owner owner = next_owner();
    {
        const std::scoped_lock lock(mutex_);
        if (stopped_ || streams_.size() >= kMaxConnections) {
            ::close(fd);
            return;
        }
        streams_.emplace(owner, std::pair(&loop, std::weak_ptr<TcpStream>()));
    }
    const bool posted = loop.post([self = shared_from_this(), &loop, owner, fd] {
        auto stream =
            std::make_shared<TcpStream>(loop, self->options_.tls ? self->options_.tls() : nullptr);
        auto session = std::make_shared<Session>(self, loop, stream, owner);
        {
            const std::scoped_lock lock(self->mutex_);
            if (self->stopped_) {
                ::close(fd);
                return;
            }
            self->streams_[owner].second = stream;
        }
        stream->accept(fd, kHandshakeTime, std::move(session));
    });
    if (!posted) ::close(fd);
}

void TcpProducer::forget(Store::Owner owner) {
    const std::scoped_lock lock(mutex_);
    streams_.erase(owner);
}

void TcpProducer::stop() {
    {
        const std::scoped_lock lock(mutex_);
        stopped_ = true;
    }
    std::promise<void> closed;
    const bool posted = main_.post([&] {
        boost::system::error_code ignored;
        listener_.close(ignored);
        pause_.cancel();
        closed.set_value();
    });
    if (posted) closed.get_future().wait();
    for (std::size_t i = 0; i < movers_.size(); ++i) {
        runtime::Loop& loop = movers_.at(i);
        std::promise<void> done;
        const bool on_loop = loop.post([&] {
            std::vector<std::shared_ptr<TcpStream>> streams;
            {
                const std::scoped_lock lock(mutex_);
                for (const auto& [owner, stream] : streams_) {
                    if (stream.first != &loop) continue;
                    if (auto alive = stream.second.lock()) streams.push_back(std::move(alive));
                }
            }
            for (const auto& stream : streams) {
                stream->close(
                    error(ErrorCode::kCancelled, "the transfer plane is stopped").value());
            }
            // After the on_closed() that were posted just now.
            if (!loop.post([&done] { done.set_value(); })) done.set_value();
        });
        if (on_loop) done.get_future().wait();
    }
}

}  // namespace stator::transfer
