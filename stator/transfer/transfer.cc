#include "stator/transfer/transfer.h"

#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <utility>

#include "stator/base/log.h"
#include "stator/runtime/asio.h"
#include "stator/transfer/arena.h"
#include "stator/transfer/checksum.h"
#include "stator/transfer/claims.h"
#include "stator/transfer/nixl_mover.h"
#include "stator/transfer/place.h"
#include "stator/transfer/random.h"
#include "stator/transfer/shm_claimer.h"
#include "stator/transfer/shm_producer.h"
#include "stator/transfer/store.h"
#include "stator/transfer/tcp_claimer.h"
#include "stator/transfer/tcp_producer.h"
#include "stator/transfer/transfer_metrics.h"

namespace stator::transfer {
namespace {

constexpr std::size_t kMovers = 2;
constexpr std::chrono::milliseconds kUpkeepEvery{100};
constexpr std::uint64_t kKeepBytes = 64ULL << 20;
constexpr int kTrimEvery = 50;  ///< upkeeps

/// The host that others reach a listener by.
std::string advertised(const TransferOptions& options) {
    if (!options.advertise.empty()) return options.advertise;
    const std::string& host = options.listen.host;
    if (host != "0.0.0.0" && host != "::") return host;
    std::array<char, 256> name{};
    return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : host;
}

class Plane final : public TransferPlane {
  public:
    Plane(TransferOptions options, metrics::Registry& registry, const Clock& clock)
        : options_(std::move(options)),
          registry_(registry),
          clock_(clock),
          main_(std::make_shared<runtime::Loop>("transfer")),
          movers_(kMovers, "transfer-move"),
          upkeep_(runtime::asio_context(*main_)) {}
    ~Plane() override { stop(); }
    Plane(const Plane&) = delete;
    Plane& operator=(const Plane&) = delete;

    Result<void> start();

    Result<std::unique_ptr<HandoffBuffer>> reserve(std::uint64_t bytes) override {
        if (options_.takes_only) {
            return error(ErrorCode::kUnsupported, "this process takes handoffs and makes none");
        }
        return store_->reserve(bytes);
    }
    Result<std::shared_ptr<const protocol::Handoff>> publish(std::unique_ptr<HandoffBuffer> buffer,
                                                             protocol::Handoff what) override {
        what.places = places_;
        return store_->publish(std::move(buffer), std::move(what));
    }

    ClaimId claim(std::shared_ptr<const protocol::Handoff> what, ClaimOptions options,
                  Claims::Callback done) override {
        const ClaimId id(++last_claim_);
        const auto shared = std::make_shared<Claims::Callback>(std::move(done));
        const bool posted =
            main_->post([claims = claims_, id, what = std::move(what), options = std::move(options),
                         shared] { claims->claim(id, what, options, std::move(*shared)); });
        if (!posted) (*shared)(error(ErrorCode::kCancelled, "the transfer plane is stopped"));
        return id;
    }
    void cancel(ClaimId id) override {
        main_->post([claims = claims_, id] { claims->cancel(id); });
    }
    void release(std::shared_ptr<const protocol::Handoff> what) override {
        if (!what) return;
        main_->post([claims = claims_, what = std::move(what)] { claims->release(*what); });
    }

    Usage usage() const override {
        const Store::Counts counts = store_->counts();
        return {.unclaimed = counts.unclaimed,
                .unclaimed_bytes = counts.unclaimed_bytes,
                .budget_bytes = options_.budget_bytes,
                .incoming_bytes = claims_->incoming_bytes()};
    }
    std::vector<std::string> methods() const override { return methods_; }
    std::map<std::string, std::string> why_off() const override { return why_off_; }
    double bytes_per_second(std::string_view method) const override {
        return metrics_->bytes_per_second(method);
    }
    void stop() override;

  private:
    Result<void> check_options();
    Result<void> start_backends();
    Result<void> start_tcp();
    Result<void> start_shm();
    void start_nixl_mover();
    void tick();

    TransferOptions options_;
    metrics::Registry& registry_;
    const Clock& clock_;
    PlaneId id_ = random_bytes<std::tuple_size_v<PlaneId>>();
    std::shared_ptr<runtime::Loop> main_;
    runtime::LoopPool movers_;
    boost::asio::steady_timer upkeep_;
    int until_trim_ = kTrimEvery;
    std::shared_ptr<Store> store_;
    std::shared_ptr<Arena> incoming_;
    std::shared_ptr<TransferMetrics> metrics_;
    std::shared_ptr<Claims> claims_;
    std::shared_ptr<ShmProducer> shm_;
    std::shared_ptr<TcpProducer> tcp_;
    std::unique_ptr<NixlMover> nixl_;
    std::vector<std::pair<std::string, std::shared_ptr<Backend>>> backends_;
    std::vector<protocol::TransferPlace> places_;
    std::vector<std::string> methods_;
    std::map<std::string, std::string> why_off_;
    std::atomic<std::uint64_t> last_claim_ = 0;
    std::atomic<bool> stopped_ = false;
};

Result<void> Plane::check_options() {
    for (const std::string& method : options_.methods) {
        if (method != "shm" && method != "tcp" && method != "nixl") {
            return error(ErrorCode::kInvalidArgument,
                         "'{}' is no method to move handoffs by; there are shm, nixl and tcp",
                         method);
        }
        if (std::ranges::count(options_.methods, method) > 1) {
            return error(ErrorCode::kInvalidArgument, "the method '{}' is named twice", method);
        }
    }
    if (options_.listen.kind != net::SocketAddress::Kind::kTcp) {
        return error(ErrorCode::kInvalidArgument, "handoffs are handed out at a TCP address");
    }
    if ((options_.tls != nullptr) != (options_.tls_client != nullptr)) {
        return error(ErrorCode::kInvalidArgument,
                     "TLS of handoffs needs a server's and a client's context");
    }
    if (options_.listen.host.empty()) options_.listen.host = "127.0.0.1";
    options_.tcp_connections = std::clamp(options_.tcp_connections, 1U, 64U);
    if (options_.takes_only && options_.methods.size() > 1) std::erase(options_.methods, "nixl");
    return {};
}

Result<void> Plane::start() {
    if (auto ok = check_options(); !ok) return ok;
    auto store = Store::make({.budget_bytes = options_.budget_bytes,
                              .most_unclaimed = options_.most_unclaimed,
                              .lease = options_.lease},
                             clock_);
    if (!store) return tl::unexpected<Error>(std::move(store.error()));
    // Twice: what has arrived lies there until it is used.
    auto incoming = Arena::make_private(2 * options_.incoming_bytes);
    if (!incoming) return tl::unexpected<Error>(std::move(incoming.error()));
    store_ = std::move(*store);
    incoming_ = std::move(*incoming);
    metrics_ = std::make_shared<TransferMetrics>(registry_, store_);
    claims_ = std::make_shared<Claims>(main_, store_, metrics_, clock_);
    ClaimsOptions claims{.incoming_bytes = options_.incoming_bytes,
                         .longest = 2 * options_.lease,
                         .ways = {},
                         .own = {},
                         .memory = incoming_};
    main_->start();
    movers_.start();
    if (auto ok = start_backends(); !ok) return ok;
    claims.ways = backends_;
    claims.own = places_;
    claims_->start(std::move(claims));
    main_->post([this] { tick(); });
    return {};
}

Result<void> Plane::start_backends() {
    const auto wants = [this](std::string_view method) {
        return std::ranges::find(options_.methods, method) != options_.methods.end();
    };
    if (wants("nixl")) start_nixl_mover();
    std::shared_ptr<TcpPeers> peers;
    if (wants("tcp") || nixl_) {
        if (!options_.takes_only) {
            if (auto ok = start_tcp(); !ok) return ok;
        }
        peers = std::make_shared<TcpPeers>(
            movers_, TcpClaimerOptions{
                         .connections = options_.tcp_connections,
                         .silence = options_.tcp_silence,
                         .checksums = options_.checksums,
                         .secret = options_.secret,
                         .tls = options_.tls_client,
                         .memory = incoming_,
                         .nixl = nixl_.get(),
                         .freed = [claims = std::weak_ptr(claims_), loop = std::weak_ptr(main_)] {
                             const auto alive = loop.lock();
                             if (!alive) return;
                             alive->post([claims] {
                                 if (const auto c = claims.lock()) c->memory_freed();
                             });
                         }});
    }
    TcpPlace tcp_place{.plane = id_, .tls = options_.tls != nullptr, .address = {}};
    tcp_place.address.host = advertised(options_);
    if (tcp_) tcp_place.address.port = tcp_->port();
    const auto hands_out = [this](const std::string& method, std::string place) {
        if (!options_.takes_only) places_.push_back({method, std::move(place)});
    };
    for (const std::string& method : options_.methods) {
        if (method == "shm") {
            if (auto ok = start_shm(); !ok) {
                why_off_[method] = ok.error().message;
                continue;
            }
            hands_out(method, to_string(ShmPlace{host_identity(), id_}));
            backends_.emplace_back(method, std::make_shared<ShmClaimer>(main_));
        } else if (method == "tcp" || nixl_) {
            hands_out(method, to_string(tcp_place));
            backends_.emplace_back(method, std::make_shared<TcpClaimer>(peers, method == "nixl"));
        } else {
            continue;  // NIXL that is off
        }
        methods_.push_back(method);
    }
    return {};
}

Result<void> Plane::start_shm() {
    if (options_.takes_only) return {};
    auto shm = ShmProducer::start(
        *main_, store_, id_, [metrics = metrics_](auto bytes) { metrics->gave("shm", bytes); });
    if (!shm) return tl::unexpected<Error>(std::move(shm.error()));
    shm_ = std::move(*shm);
    return {};
}

void Plane::start_nixl_mover() {
    auto nixl = start_nixl(options_.nixl_library, {store_->shared_arena(), incoming_});
    if (nixl) {
        nixl_ = std::move(*nixl);
        return;
    }
    why_off_["nixl"] = nixl.error().message;
    log_info("Handoffs do not go through NIXL.", {{"why", nixl.error().message}});
}

Result<void> Plane::start_tcp() {
    auto tcp = TcpProducer::start(*main_, movers_, store_,
                                  {.plane = id_,
                                   .listen = options_.listen,
                                   .secret = options_.secret,
                                   .tls = options_.tls,
                                   .nixl = nixl_.get(),
                                   .idle = options_.tcp_idle,
                                   .sent = [metrics = metrics_](bool nixl, std::uint64_t bytes) {
                                       metrics->gave(nixl ? "nixl" : "tcp", bytes);
                                   }});
    if (!tcp) return tl::unexpected<Error>(std::move(tcp.error()));
    tcp_ = std::move(*tcp);
    return {};
}

void Plane::tick() {
    store_->upkeep();
    if (--until_trim_ <= 0) {
        until_trim_ = kTrimEvery;
        incoming_->trim(kKeepBytes);
    }
    upkeep_.expires_after(kUpkeepEvery);
    upkeep_.async_wait([this](const boost::system::error_code& ec) {
        if (!ec && !stopped_) tick();
    });
}

void Plane::stop() {
    if (stopped_.exchange(true)) return;
    std::promise<void> ended;
    const bool posted = claims_ && main_->post([&] {
        upkeep_.cancel();
        claims_->stop();
        ended.set_value();
    });
    if (posted) ended.get_future().wait();
    if (nixl_) nixl_->stop();
    for (const auto& [method, backend] : backends_) backend->stop();
    if (shm_) shm_->stop();
    if (tcp_) tcp_->stop();
    main_->stop();
    movers_.stop();
    if (store_) store_->close();
}

}  // namespace

std::string host_label() {
    const std::string& identity = host_identity();
    if (identity.empty()) return {};
    std::array<char, 256> name{};
    if (::gethostname(name.data(), name.size() - 1) != 0) name = {};
    return fmt::format("{}-{:08x}", name.data(),
                       static_cast<std::uint32_t>(
                           checksum(std::as_bytes(std::span(identity.data(), identity.size())))));
}

Result<std::unique_ptr<TransferPlane>> start_transfer(TransferOptions options,
                                                      metrics::Registry& registry,
                                                      const Clock& clock) {
    auto plane = std::make_unique<Plane>(std::move(options), registry, clock);
    if (auto ok = plane->start(); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    return plane;
}

}  // namespace stator::transfer
