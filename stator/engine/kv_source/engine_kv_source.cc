#include "stator/engine/kv_source/engine_kv_source.h"

#include <array>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "stator/base/check.h"
#include "stator/base/log.h"
#include "stator/events/socket_thread.h"
#include "stator/events/zmq_socket.h"

namespace stator::engine {

using events::SocketThread;
using events::ZmqContext;
using events::ZmqFrame;
using events::ZmqKind;
using events::ZmqSocket;
using protocol::KvEvent;

namespace {

constexpr std::size_t kSocketsEach = 3;
constexpr std::size_t kMessagesPerTurn = 256;
constexpr std::size_t kMostFrames = 8;
constexpr std::chrono::milliseconds kTick{250};
constexpr std::uint64_t kReplayEnd = UINT64_MAX;

TimePoint now() { return Clock::real().now(); }

/// The numbers of both engines: eight bytes, big-endian.
std::optional<std::uint64_t> number_of(std::string_view frame) {
    if (frame.size() != 8) return {};
    std::uint64_t v = 0;
    for (const char c : frame) v = v << 8 | static_cast<unsigned char>(c);
    return v;
}

std::string number_frame(std::uint64_t v) {
    std::string out(8, '\0');
    for (int i = 7; i >= 0; --i, v >>= 8U) out[static_cast<std::size_t>(i)] = static_cast<char>(v);
    return out;
}

/// One rank: its sockets and what is made of their messages. On the thread, but for state().
class Rank {
  public:
    Rank(KvEventSource source, const KvSourceOptions& options, const ZmqContext& context,
         RankKvSink& sink)
        : source_(std::move(source)),
          options_(options),
          context_(context),
          sink_(sink),
          follower_(options.feed, follow(options, source_), now()) {}

    Result<void> open(SocketThread& thread) {
        thread_ = &thread;
        auto sub = ZmqSocket::open(context_, ZmqKind::kSub, 0);
        if (!sub) return tl::unexpected<Error>(std::move(sub.error()));
        sub->set_limits(options_.max_message_bytes);
        sub->set_high_water_marks(1, options_.receive_high_water_mark);
        auto connections = sub->watch_connections(context_);
        if (!connections) return tl::unexpected<Error>(std::move(connections.error()));
        sub->subscribe(source_.topic);
        if (auto ok = sub->connect(source_.endpoint); !ok) return ok;
        if (!source_.replay.empty()) {
            if (auto ok = open_replay(); !ok) return ok;
        }
        sub_.emplace(std::move(*sub));
        connections_.emplace(std::move(*connections));
        watches_.emplace_back(thread.watch(sub_->fd(), [this] { return drain_messages(); }),
                              sub_->fd());
        watches_.emplace_back(thread.watch(connections_->fd(), [this] { return drain_messages(); }),
                              connections_->fd());
        call([this](auto& out) { return follower_.start(now(), out); });
        return {};
    }
    void close() {
        for (const auto& [id, fd] : watches_) thread_->unwatch(id, fd);
        watches_.clear();
        close_replay();
        connections_.reset();
        sub_.reset();
    }
    void on_time() {
        if (!sub_) return;  // not open yet
        call([this](auto& out) { return follower_.on_time(now(), out); });
    }
    void hide(std::span<const tokens::TokenId> prompt) { follower_.feed().hide(prompt); }
    void was_reset() {
        call([this](auto& out) {
            follower_.was_reset(out);
            return EngineFollower::Wish{};
        });
    }
    [[nodiscard]] EngineKvSource::RankState state() const {
        const std::scoped_lock lock(state_mutex_);
        return state_;
    }

  private:
    using Frames = std::vector<std::string>;

    static EngineFollowerOptions follow(const KvSourceOptions& options,
                                        const KvEventSource& source) {
        EngineFollowerOptions out = options.follow;
        out.has_replay = !source.replay.empty();
        return out;
    }

    /// Whole messages, to a bound; true: there is more. What is done with one may close the socket,
    /// or put another in its place.
    bool drain(std::optional<ZmqSocket>& socket, void (Rank::*take)(const Frames&)) {
        std::size_t left = kMessagesPerTurn;
        while (left > 0 && socket && frame_.receive(*socket)) {
            --left;
            frames_.clear();
            bool more = false;
            do {
                if (frames_.size() < kMostFrames) frames_.emplace_back(frame_.bytes());
                more = frame_.more();
            } while (more && frame_.receive(*socket));
            (this->*take)(frames_);
        }
        return socket && (left == 0 || socket->readable());
    }
    /// A new connection is heard of before its messages.
    bool drain_messages() {
        while (drain(connections_, &Rank::on_connection)) {
        }
        return drain(sub_, &Rank::on_message);
    }

    void on_message(const Frames& frames) {
        const auto number = frames.size() == 3 ? number_of(frames[1]) : std::nullopt;
        if (!number) {
            log_odd(frames.size());
            return;
        }
        call([&](auto& out) { return follower_.on_message(*number, frames[2], now(), out); });
    }

    /// ["", topic?, number, payload]; at the end the number is -1.
    void on_replayed(const Frames& frames) {
        const std::size_t n = frames.size();
        const auto number = n == 3 || n == 4 ? number_of(frames[n - 2]) : std::nullopt;
        if (!number) {
            log_odd(n);
            return;
        }
        if (*number == kReplayEnd) {
            call([&](auto& out) { return follower_.on_replay_end(now(), out); });
            return;
        }
        call([&](auto& out) {
            follower_.on_replayed(*number, frames[n - 1], now(), out);
            return EngineFollower::Wish{};
        });
    }

    void on_connection(const Frames& frames) {
        const bool up = !frames.empty() && ZmqSocket::is_connected(frames[0]);
        const bool again = std::exchange(ever_connected_, ever_connected_ || up);
        if (up && !connected_ && (again || follower_.stats().messages == 0)) {
            if (again) log_info("An engine's KV events are back.", {{"from", source_.endpoint}});
            call([this](auto& out) { return follower_.start(now(), out); });
        } else if (!up) {
            log_info("An engine's KV events are gone.", {{"from", source_.endpoint}});
        }
        connected_ = up;
        show();
    }

    template <typename F>
    void call(const F& f) {
        out_.clear();
        const auto before = follower_.state();
        const auto wish = f(out_);
        if (!out_.empty()) sink_(source_.rank, out_);
        if (wish) ask(*wish);
        if (before != follower_.state() && follower_.state() == EngineFollower::State::kLive) {
            log_info("An engine's KV events are followed.",
                     {{"from", source_.endpoint},
                      {"rank", source_.rank},
                      {"blocks", follower_.feed().stats().pages},
                      {"whole_history", !follower_.incomplete()}});
        }
        show();
    }

    /// On a new socket, so that nothing of an older replay comes.
    void ask(std::uint64_t from) {
        close_replay();
        if (auto ok = open_replay(); !ok) {
            log_warn("A replay of KV events can't be asked for.", {{"why", ok.error().message}});
            return;
        }
        // Kept by ZeroMQ until the engine is there; a silence is asked about again.
        (void)replay_->send({}, true);
        (void)replay_->send(number_frame(from));
    }
    Result<void> open_replay() {
        auto socket = ZmqSocket::open(context_, ZmqKind::kDealer, 0);
        if (!socket) return tl::unexpected<Error>(std::move(socket.error()));
        socket->set_limits(options_.max_message_bytes);
        socket->set_high_water_marks(4, options_.receive_high_water_mark);
        if (auto ok = socket->connect(source_.replay); !ok) return ok;
        replay_.emplace(std::move(*socket));
        replay_watch_ =
            thread_->watch(replay_->fd(), [this] { return drain(replay_, &Rank::on_replayed); });
        return {};
    }
    void close_replay() {
        if (!replay_) return;
        thread_->unwatch(replay_watch_, replay_->fd());
        replay_.reset();
    }

    void log_odd(std::size_t frames) {
        if (std::exchange(odd_told_, true)) return;
        log_warn("A message from an engine is no KV event; it is passed over.",
                 {{"from", source_.endpoint}, {"frames", frames}});
    }

    void show() {
        const std::scoped_lock lock(state_mutex_);
        state_.rank = source_.rank;
        state_.state = follower_.state();
        state_.connected = connected_;
        state_.incomplete = follower_.incomplete();
        state_.messages = follower_.stats();
        state_.blocks = follower_.feed().stats();
    }

    const KvEventSource source_;
    const KvSourceOptions& options_;
    const ZmqContext& context_;
    RankKvSink& sink_;
    EngineFollower follower_;
    SocketThread* thread_ = nullptr;
    std::optional<ZmqSocket> sub_;
    std::optional<ZmqSocket> connections_;
    std::optional<ZmqSocket> replay_;
    std::vector<std::pair<std::uint64_t, int>> watches_;
    std::uint64_t replay_watch_ = 0;
    ZmqFrame frame_;
    Frames frames_;
    std::vector<KvEvent> out_;
    bool connected_ = false;
    bool ever_connected_ = false;
    bool odd_told_ = false;
    mutable std::mutex state_mutex_;
    EngineKvSource::RankState state_;
};

class Source final : public EngineKvSource {
  public:
    Source(KvSourceOptions options, RankKvSink sink)
        : options_(std::move(options)),
          sink_(std::move(sink)),
          // One more for a replay that replaces another.
          context_((kSocketsEach + 2) * options_.ranks.size()) {
        for (const KvEventSource& rank : options_.ranks) {
            ranks_.push_back(std::make_unique<Rank>(rank, options_, context_, sink_));
        }
    }
    ~Source() override {
        if (!thread_) return;
        thread_->run([this] {
            for (const auto& rank : ranks_) rank->close();
        });
        thread_->stop();
    }

    Result<void> start() {
        auto thread = SocketThread::start("engine-events", kTick, [this] {
            for (const auto& rank : ranks_) rank->on_time();
        });
        if (!thread) return tl::unexpected<Error>(std::move(thread.error()));
        thread_ = std::move(*thread);
        Result<void> opened;
        thread_->run([&] {
            for (const auto& rank : ranks_) {
                if (opened) opened = rank->open(*thread_);
            }
        });
        return opened;
    }

    [[nodiscard]] std::vector<RankState> states() const override {
        std::vector<RankState> out;
        for (const auto& rank : ranks_) out.push_back(rank->state());
        return out;
    }
    void hide(std::vector<tokens::TokenId> prompt) override {
        thread_->inbox()->post([this, prompt = std::move(prompt)] {
            for (const auto& rank : ranks_) rank->hide(prompt);
        });
    }
    void was_reset() override {
        thread_->inbox()->post([this] {
            for (const auto& rank : ranks_) rank->was_reset();
        });
    }

  private:
    const KvSourceOptions options_;
    RankKvSink sink_;
    ZmqContext context_;
    std::vector<std::unique_ptr<Rank>> ranks_;
    std::unique_ptr<SocketThread> thread_;
};

}  // namespace

Result<std::unique_ptr<EngineKvSource>> start_engine_kv_source(KvSourceOptions options,
                                                               RankKvSink sink) {
    if (options.ranks.empty()) {
        return error(ErrorCode::kInvalidArgument, "an engine has at least one source of events");
    }
    auto source = std::make_unique<Source>(std::move(options), std::move(sink));
    if (auto ok = source->start(); !ok) return tl::unexpected<Error>(std::move(ok.error()));
    return source;
}

}  // namespace stator::engine
