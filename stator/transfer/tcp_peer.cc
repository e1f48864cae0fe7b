#include "stator/transfer/tcp_peer.h"

#include <algorithm>
#include <utility>

#include "stator/runtime/asio.h"
#include "stator/transfer/checksum.h"
#include "stator/transfer/proof.h"
#include "stator/transfer/random.h"

namespace stator::transfer {
namespace {

constexpr std::chrono::milliseconds kConnectTime{3'000};
constexpr std::uint64_t kPushBytes = 1 << 20;   ///< come with the grant, without being asked for
constexpr std::uint64_t kFetchBytes = 2 << 20;  ///< asked for at once
constexpr std::uint64_t kAheadBytes = 4 << 20;  ///< asked for and not yet there, by connection
constexpr std::uint64_t kHelpBytes = 8 << 20;   ///< so much to fetch deserves another connection
constexpr std::uint32_t kMostHelpersLost = 3;
constexpr std::size_t kMostReleases = 1024;
/// Memory that a producer may still write into, though nobody hears from it any more.
constexpr std::chrono::seconds kQuarantine{30};
constexpr int kLooks = 6;  ///< so many in a row without a byte are a silence

Error unavailable(std::string_view why) {
    return error(ErrorCode::kUnavailable, "{}", why).value();
}

}  // namespace

/// A claim under way.
struct TcpPeer::Transfer {
    std::shared_ptr<Attempt> attempt;
    bool nixl = false;
    std::uint64_t request = 0;
    std::uint64_t grant = 0;  ///< 0: not granted yet
    std::shared_ptr<ArenaRange> memory;
    std::map<std::uint32_t, std::byte*> begins;  ///< by part
    std::deque<Piece> wanted;                    ///< not asked for
    std::uint64_t outstanding = 0;               ///< bytes asked for and not there
    bool writing = false;                        ///< NIXL: the producer writes
    std::optional<Error> failed;
    bool finished = false;

    void finish(Result<std::shared_ptr<const protocol::HandoffBytes>> result) {
        if (!std::exchange(finished, true)) attempt->finish(std::move(result));
    }
};

class TcpPeer::Connection final : public TcpStreamEvents,
                                  public std::enable_shared_from_this<Connection> {
  public:
    explicit Connection(std::shared_ptr<TcpPeer> peer) : peer_(std::move(peer)) {}

    void start(std::shared_ptr<const net::TlsContext> tls) {
        stream_ = std::make_shared<TcpStream>(peer_->loop_, std::move(tls));
        stream_->dial(peer_->place_.address, kConnectTime, shared_from_this());
    }
    void send(const Message& message) { stream_->send(message); }
    void close(Error why) { stream_->close(std::move(why)); }
    [[nodiscard]] bool ready() const { return ready_ && !stream_->closed(); }
    /// In the middle of the handshake; connecting has a time of its own.
    [[nodiscard]] bool greets() const { return !ready_ && stream_ && stream_->open(); }
    [[nodiscard]] bool expects() const { return !expected_.empty(); }
    /// How many looks in a row, this one included, have found that nothing came of what is owed.
    int looked(bool owes) {
        const std::uint64_t now = stream_ ? stream_->bytes_in() : 0;
        silent_looks_ = owes && now == seen_ ? silent_looks_ + 1 : 0;
        seen_ = now;
        return silent_looks_;
    }

    void expect(std::shared_ptr<Transfer> transfer, const Piece& piece) {
        transfer->outstanding += piece.bytes;
        ahead_ += piece.bytes;
        expected_.push_back({std::move(transfer), piece});
    }
    [[nodiscard]] std::uint64_t ahead() const { return ahead_; }
    /// What the producer will not send.
    void forget(const Transfer& transfer) {
        std::erase_if(expected_, [&](const Expected& e) {
            if (e.transfer.get() != &transfer) return false;
            ahead_ -= e.piece.bytes;
            return true;
        });
    }
    [[nodiscard]] std::deque<Expected> take_expected() {
        ahead_ = 0;
        return std::exchange(expected_, {});
    }

    void on_open() override {
        hello_.plane = peer_->place_.plane;
        hello_.nonce = random_bytes<32>();
        if (peer_->options_->secret) secret_ = peer_->options_->secret();
        stream_->send(hello_);
    }

    Result<void> on_message(const Message& message) override {
        if (const auto* refusal = std::get_if<Refusal>(&message);
            refusal != nullptr && refusal->request == 0) {
            return error(static_cast<ErrorCode>(refusal->code), "{}", refusal->text);
        }
        if (ready_) return peer_->on_message(*this, message);
        if (const auto* welcome = std::get_if<Welcome>(&message); welcome && !welcomed_) {
            return on_welcome(*welcome);
        }
        if (const auto* proof = std::get_if<Proof>(&message); proof && welcomed_) {
            if (!same_proof(proof->proof,
                            prove(secret_, Prover::kProducer, hello_, welcome_.nonce))) {
                return error(ErrorCode::kUnauthenticated, "the producer does not know the secret");
            }
            become_ready();
            return {};
        }
        return error(ErrorCode::kDataLoss, "a producer must not send a message of type {} now",
                     message.index() + 1);
    }

    Result<std::span<std::byte>> on_chunk(const Chunk& chunk) override {
        if (expected_.empty()) return error(ErrorCode::kDataLoss, "bytes that nobody asked for");
        const Expected& next = expected_.front();
        if (chunk.grant == 0 || chunk.grant != next.transfer->grant ||
            chunk.offset != next.piece.source || chunk.bytes > next.piece.bytes) {
            return error(ErrorCode::kDataLoss, "other bytes than those that were asked for");
        }
        return std::span(next.piece.to, chunk.bytes);
    }

    Result<void> on_chunk_end(const Chunk& chunk, std::span<const std::byte> bytes) override {
        Expected& next = expected_.front();
        const auto transfer = next.transfer;
        if (peer_->options_->checksums && !transfer->failed &&
            (chunk.checked == 0 || checksum(bytes) != chunk.check)) {
            transfer->failed = error(ErrorCode::kDataLoss,
                                     "bytes of a handoff were damaged on their way: a checksum "
                                     "differs")
                                   .value();
        }
        next.piece.source += chunk.bytes;
        next.piece.bytes -= chunk.bytes;
        next.piece.to += chunk.bytes;
        transfer->outstanding -= chunk.bytes;
        ahead_ -= chunk.bytes;
        if (next.piece.bytes == 0) expected_.pop_front();
        peer_->pump();
        peer_->settle(transfer);
        return {};
    }

    void on_room() override {}

    void on_closed(const Error& why) override {
        const auto peer = peer_;
        peer->on_lost(*this, why);
    }

  private:
    Result<void> on_welcome(const Welcome& welcome) {
        welcomed_ = true;
        welcome_ = welcome;
        if (welcome.version != kWireVersion) {
            return error(ErrorCode::kUnsupported, "the producer speaks version {}, not {}",
                         welcome.version, kWireVersion);
        }
        if (secret_.empty() != (welcome.prove == 0)) {
            return error(ErrorCode::kUnauthenticated, "{}",
                         secret_.empty()
                             ? "the producer wants a proof of a secret that is not set here"
                             : "the producer does not ask for the secret that is set here");
        }
        if (welcome.prove == 0) {
            become_ready();
        } else {
            stream_->send(Proof{prove(secret_, Prover::kClaimer, hello_, welcome.nonce)});
        }
        return {};
    }

    void become_ready() {
        ready_ = true;
        peer_->on_ready(*this);
    }

    const std::shared_ptr<TcpPeer> peer_;
    std::shared_ptr<TcpStream> stream_;
    std::string secret_;
    Hello hello_;
    Welcome welcome_;
    bool welcomed_ = false;
    bool ready_ = false;
    std::deque<Expected> expected_;  ///< in the order in which the bytes come
    std::uint64_t ahead_ = 0;
    std::uint64_t seen_ = 0;
    int silent_looks_ = 0;
};

TcpPeer::TcpPeer(runtime::Loop& loop, TcpPlace place,
                 std::shared_ptr<const TcpClaimerOptions> options)
    : loop_(loop),
      place_(std::move(place)),
      options_(std::move(options)),
      timer_(runtime::asio_context(loop)) {}

TcpPeer::~TcpPeer() = default;

void TcpPeer::claim(std::shared_ptr<Attempt> attempt, bool nixl) {
    auto transfer = std::make_shared<Transfer>();
    transfer->attempt = std::move(attempt);
    transfer->nixl = nixl;
    if (shut_ || transfer->attempt->cancelled) {
        drop_cancelled(*transfer);
        return;
    }
    if (nixl && options_->nixl == nullptr) {
        transfer->finish(error(ErrorCode::kUnavailable, "NIXL does not work here"));
        return;
    }
    if (auto ok = find_memory(*transfer); !ok) {
        transfer->finish(tl::unexpected<Error>(std::move(ok.error())));
        return;
    }
    if (first_ready_) {
        send_claim(transfer);
        return;
    }
    waiting_.push_back(std::move(transfer));
    if (connections_.empty()) open_connection();
}

/// Before it was asked for: then the producer is told that nobody will.
void TcpPeer::drop_cancelled(Transfer& transfer) {
    release(transfer.attempt->what->id);
    transfer.finish(error(ErrorCode::kCancelled, "the claim was cancelled"));
}

Result<void> TcpPeer::find_memory(Transfer& transfer) const {
    const Attempt& attempt = *transfer.attempt;
    if (attempt.bytes > 0) {
        auto memory = options_->memory->take(attempt.bytes);
        if (!memory) return tl::unexpected<Error>(std::move(memory.error()));
        if (auto ok = (*memory)->populate(); !ok) return ok;
        transfer.memory = std::move(*memory);
    }
    std::byte* to = transfer.memory ? transfer.memory->bytes().data() : nullptr;
    for (const std::uint32_t index : attempt.parts) {
        const protocol::HandoffPart& part = attempt.what->parts[index];
        transfer.begins.emplace(index, to);
        if (part.bytes == 0) continue;
        if (!transfer.wanted.empty() &&
            transfer.wanted.back().source + transfer.wanted.back().bytes == part.offset) {
            transfer.wanted.back().bytes += part.bytes;
        } else {
            transfer.wanted.push_back({.source = part.offset, .bytes = part.bytes, .to = to});
        }
        to += part.bytes;
    }
    return {};
}

void TcpPeer::open_connection() {
    auto tls = options_->tls ? options_->tls() : nullptr;
    auto connection = std::make_shared<Connection>(shared_from_this());
    connections_.push_back(connection);
    watch();
    if (place_.tls != (tls != nullptr)) {
        // In a later turn, like every other reason.
        loop_.post([self = shared_from_this(), connection, wants = place_.tls] {
            self->on_lost(*connection,
                          unavailable(wants ? "the producer wants TLS, which is not set up here"
                                            : "the producer has no TLS, and it is wanted here"));
        });
        return;
    }
    connection->start(std::move(tls));
}

void TcpPeer::on_ready(Connection& connection) {
    if (&connection == connections_.front().get()) {
        first_ready_ = true;
        helpers_lost_ = 0;
        for (const auto& id : std::exchange(releases_, {})) connection.send(Release{id});
        for (const auto& transfer : std::exchange(waiting_, {})) send_claim(transfer);
    }
    pump();
}

void TcpPeer::send_claim(const std::shared_ptr<Transfer>& transfer) {
    if (transfer->attempt->cancelled) {
        drop_cancelled(*transfer);
        return;
    }
    watch();
    transfer->request = ++last_request_;
    transfers_.emplace(transfer->request, transfer);
    Claim claim{.request = transfer->request,
                .id = transfer->attempt->what->id,
                .key = transfer->attempt->key,
                .check = static_cast<std::uint8_t>(options_->checksums ? 1 : 0)};
    Connection& first = *connections_.front();
    if (!transfer->nixl && !transfer->wanted.empty()) {
        Piece& piece = transfer->wanted.front();
        claim.push_from = piece.source;
        claim.push_bytes = std::min(piece.bytes, kPushBytes);
        first.expect(transfer, {.source = piece.source, .bytes = claim.push_bytes, .to = piece.to});
        piece.source += claim.push_bytes;
        piece.to += claim.push_bytes;
        piece.bytes -= claim.push_bytes;
        if (piece.bytes == 0) transfer->wanted.pop_front();
    }
    first.send(claim);
}

Result<void> TcpPeer::on_message(Connection& connection, const Message& message) {
    if (const auto* grant = std::get_if<Grant>(&message)) return on_granted(*grant);
    if (const auto* refusal = std::get_if<Refusal>(&message)) {
        return on_refused(connection, *refusal);
    }
    if (const auto* written = std::get_if<Written>(&message)) return on_written(*written);
    return error(ErrorCode::kDataLoss, "a producer must not send a message of type {} now",
                 message.index() + 1);
}

Result<void> TcpPeer::on_granted(const Grant& grant) {
    const auto found = transfers_.find(grant.request);
    if (found == transfers_.end() || found->second->grant != 0 || grant.grant == 0) {
        return error(ErrorCode::kDataLoss, "a grant that nobody asked for");
    }
    const auto transfer = found->second;
    if (grant.bytes != transfer->attempt->what->bytes) {
        return error(ErrorCode::kDataLoss, "a handoff of {} bytes is offered as one of {}",
                     grant.bytes, transfer->attempt->what->bytes);
    }
    transfer->grant = grant.grant;
    if (transfer->nixl && !transfer->wanted.empty() && !transfer->attempt->cancelled) {
        send_write(*transfer);
    } else if (!transfer->wanted.empty()) {
        fetching_.push_back(transfer);
        pump();
        help_wanted();
    }
    settle(transfer);
    return {};
}

void TcpPeer::send_write(Transfer& transfer) {
    Write write{.grant = transfer.grant, .metadata = options_->nixl->metadata(), .ranges = {}};
    for (const Piece& piece : transfer.wanted) {
        write.ranges.push_back({.offset = piece.source,
                                .bytes = piece.bytes,
                                .address = reinterpret_cast<std::uintptr_t>(piece.to)});
    }
    transfer.wanted.clear();
    transfer.writing = true;
    connections_.front()->send(write);
}

Result<void> TcpPeer::on_refused(Connection& connection, const Refusal& refusal) {
    const auto found = transfers_.find(refusal.request);
    if (found == transfers_.end() || found->second->grant != 0) {
        return error(ErrorCode::kDataLoss, "a refusal of what nobody asked for");
    }
    const auto transfer = found->second;
    connection.forget(*transfer);
    transfers_.erase(found);
    transfer->finish(error(static_cast<ErrorCode>(refusal.code), "{}", refusal.text));
    return {};
}

Result<void> TcpPeer::on_written(const Written& written) {
    const auto found = std::ranges::find_if(transfers_, [&](const auto& entry) {
        return entry.second->grant == written.grant && entry.second->writing;
    });
    if (found == transfers_.end()) {
        return error(ErrorCode::kDataLoss, "the end of a write that nobody asked for");
    }
    const auto transfer = found->second;
    transfer->writing = false;
    if (written.code != 0) {
        transfer->failed = error(ErrorCode::kUnavailable, "NIXL: {}", written.text).value();
    }
    settle(transfer);
    return {};
}

void TcpPeer::pump() {
    for (const auto& connection : connections_) {
        while (connection->ready() && connection->ahead() < kAheadBytes && !fetching_.empty()) {
            const auto transfer = fetching_.front();
            if (transfer->attempt->cancelled || transfer->failed) transfer->wanted.clear();
            if (transfer->wanted.empty()) {
                fetching_.pop_front();
                settle(transfer);
                continue;
            }
            Piece& piece = transfer->wanted.front();
            const Piece next{.source = piece.source,
                             .bytes = std::min(piece.bytes, kFetchBytes),
                             .to = piece.to};
            connection->send(
                Fetch{.grant = transfer->grant,
                      .offset = next.source,
                      .bytes = next.bytes,
                      .check = static_cast<std::uint8_t>(options_->checksums ? 1 : 0)});
            connection->expect(transfer, next);
            piece.source += next.bytes;
            piece.to += next.bytes;
            piece.bytes -= next.bytes;
            if (piece.bytes == 0) transfer->wanted.pop_front();
            if (transfer->wanted.empty()) fetching_.pop_front();
        }
    }
}

void TcpPeer::help_wanted() {
    std::uint64_t to_fetch = 0;
    for (const auto& transfer : fetching_) {
        for (const Piece& piece : transfer->wanted) to_fetch += piece.bytes;
    }
    while (to_fetch >= kHelpBytes && connections_.size() < options_->connections &&
           helpers_lost_ < kMostHelpersLost) {
        open_connection();
        to_fetch -= kHelpBytes;
    }
}

/// Ends the transfer if there is nothing more to wait for.
void TcpPeer::settle(const std::shared_ptr<Transfer>& transfer) {
    const bool given_up = transfer->attempt->cancelled || transfer->failed;
    if (given_up) transfer->wanted.clear();
    if (transfer->grant == 0 || !transfer->wanted.empty() || transfer->outstanding > 0 ||
        transfer->writing || transfers_.erase(transfer->request) == 0) {
        return;
    }
    std::erase(fetching_, transfer);
    // A claim that goes another way takes the grant along.
    const bool goes_on = transfer->failed && transfer->failed->code == ErrorCode::kUnavailable &&
                         !transfer->attempt->last && !transfer->attempt->cancelled;
    if (!goes_on && first_ready_) connections_.front()->send(Done{transfer->grant});
    if (transfer->attempt->cancelled) {
        transfer->finish(error(ErrorCode::kCancelled, "the claim was cancelled"));
    } else if (transfer->failed) {
        transfer->finish(tl::unexpected<Error>(*transfer->failed));
    } else {
        auto freed = options_->freed;
        std::shared_ptr<const void> keep(
            transfer->memory.get(),
            [memory = transfer->memory, freed = std::move(freed)](const void*) mutable {
                memory.reset();
                if (freed) freed();
            });
        transfer->memory.reset();
        transfer->finish(arrived(*transfer->attempt, std::move(keep),
                                 [&](std::uint32_t part) { return transfer->begins.at(part); }));
    }
}

void TcpPeer::fail(const std::shared_ptr<Transfer>& transfer, const Error& why) {
    if (transfer->writing && transfer->memory) {
        auto timer = std::make_shared<boost::asio::steady_timer>(runtime::asio_context(loop_));
        timer->expires_after(kQuarantine);
        timer->async_wait([timer, memory = transfer->memory](const auto& /*ec*/) {});
    }
    transfer->finish(tl::unexpected<Error>(why));
}

void TcpPeer::on_lost(Connection& connection, const Error& why) {
    const auto self = shared_from_this();
    const auto found =
        std::ranges::find_if(connections_, [&](const auto& c) { return c.get() == &connection; });
    if (found == connections_.end()) return;  // the first one went before
    auto expected = connection.take_expected();
    if (found != connections_.begin()) {
        connections_.erase(found);
        ++helpers_lost_;
        for (Expected& e : expected) {
            e.transfer->outstanding -= e.piece.bytes;
            e.transfer->wanted.push_back(e.piece);
            if (std::ranges::find(fetching_, e.transfer) == fetching_.end()) {
                fetching_.push_back(e.transfer);
            }
        }
        pump();
        return;
    }
    first_ready_ = false;
    auto others = std::exchange(connections_, {});
    for (const auto& other : others) {
        if (other.get() != &connection) other->close(unavailable("the first connection is lost"));
    }
    fetching_.clear();
    releases_.clear();
    for (const auto& [request, transfer] : std::exchange(transfers_, {})) fail(transfer, why);
    for (const auto& transfer : std::exchange(waiting_, {})) fail(transfer, why);
}

void TcpPeer::release(const protocol::HandoffId& id) {
    if (shut_) return;
    if (first_ready_) {
        connections_.front()->send(Release{id});
        return;
    }
    if (releases_.size() < kMostReleases) releases_.push_back(id);
    if (connections_.empty()) open_connection();
}

/// Looks at the connections again and again, until nothing is under way.
void TcpPeer::watch() {
    if (shut_ || std::exchange(watching_, true)) return;
    timer_.expires_after(options_->silence / kLooks);
    timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& ec) {
        const auto self = weak.lock();
        if (!self) return;
        self->watching_ = false;
        if (!ec) self->look();
    });
}

void TcpPeer::look() {
    bool busy = !waiting_.empty() || !transfers_.empty();
    for (const auto& connection : std::vector(connections_)) {
        const bool owes = this->owes(*connection);
        busy |= owes;
        if (connection->looked(owes) < kLooks) continue;
        connection->close(error(ErrorCode::kUnavailable, "the producer has been silent for {} ms",
                                options_->silence.count())
                              .value());
    }
    if (busy) watch();
}

/// Whether the producer is to send something. How long NIXL writes is its own affair, as long as
/// somebody waits for it.
bool TcpPeer::owes(const Connection& connection) const {
    if (connection.greets() || connection.expects()) return true;
    if (!first_ready_ || &connection != connections_.front().get()) return false;
    return std::ranges::any_of(transfers_, [](const auto& entry) {
        const Transfer& transfer = *entry.second;
        return transfer.grant == 0 || (transfer.writing && transfer.attempt->cancelled);
    });
}

void TcpPeer::shutdown() {
    shut_ = true;
    timer_.cancel();
    const Error why = error(ErrorCode::kCancelled, "the transfer plane is stopped").value();
    for (const auto& connection : std::vector(connections_)) connection->close(why);
}

}  // namespace stator::transfer
