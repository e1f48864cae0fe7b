#include "stator/engine/kv_source/drained_kv_source.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "stator/base/log.h"
#include "stator/engine/kv_feed/trtllm_events.h"

namespace stator::engine {
namespace {

constexpr std::size_t kMostHidden = 4096;  ///< prompts that wait for the thread

TimePoint now() { return Clock::real().now(); }

class Drained final : public EngineKvSource {
  public:
    Drained(DrainedKvOptions options, RankKvSink sink)
        : options_(std::move(options)), sink_(std::move(sink)), states_(options_.ranks) {
        for (std::uint32_t rank = 0; rank < options_.ranks; ++rank) {
            ranks_.emplace_back(options_.feed, EngineFollowerOptions{}, now());
            states_[rank].rank = rank;
        }
        thread_ = std::thread([this] { run(); });
    }
    ~Drained() override {
        {
            const std::scoped_lock lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        thread_.join();
    }

    [[nodiscard]] std::vector<RankState> states() const override {
        const std::scoped_lock lock(mutex_);
        return states_;
    }
    void hide(std::vector<tokens::TokenId> prompt) override {
        const std::scoped_lock lock(mutex_);
        if (hidden_.size() < kMostHidden) hidden_.push_back(std::move(prompt));
    }
    void was_reset() override {
        const std::scoped_lock lock(mutex_);
        reset_ = true;
    }

  private:
    void run() {
        auto pause = options_.often;
        std::unique_lock lock(mutex_);
        while (!stopping_) {
            const auto hidden = std::exchange(hidden_, {});
            const bool reset = std::exchange(reset_, false);
            lock.unlock();
            for (EngineFollower& rank : ranks_) {
                for (const auto& prompt : hidden) rank.feed().hide(prompt);
            }
            if (reset) {
                each([](EngineFollower& rank, auto& out) { rank.was_reset(out); });
            }
            const bool some = ask();
            pause = some ? options_.often : std::min(2 * pause, options_.seldom);
            lock.lock();
            show();
            wake_.wait_for(lock, pause, [this] { return stopping_; });
        }
    }

    /// Whether anything came.
    bool ask() {
        const auto body = options_.drain();
        auto messages = body ? reader_.read(*body, to_seconds(now() - TimePoint{}))
                             : Result<std::vector<TrtllmMessage>>(tl::unexpected(body.error()));
        if (!messages) {
            if (std::exchange(connected_, false)) {
                log_info("An engine's KV events can't be fetched.",
                         {{"why", messages.error().message}});
            }
            return false;
        }
        if (!std::exchange(connected_, true)) {
            if (std::exchange(ever_connected_, true)) log_info("An engine's KV events are back.");
            each([](EngineFollower& rank, auto& out) { (void)rank.start(now(), out); });
        }
        const bool first = !messages->empty() && !std::exchange(followed_, true);
        for (const TrtllmMessage& message : *messages) {
            if (message.rank >= ranks_.size()) continue;
            out_.clear();
            (void)ranks_[message.rank].on_message(message.number, message.payload, now(), out_);
            if (!out_.empty()) sink_(message.rank, out_);
        }
        if (first) {
            log_info("An engine's KV events are followed.",
                     {{"from", "its answers"},
                      {"blocks", ranks_.front().feed().stats().pages},
                      {"whole_history", !ranks_.front().incomplete()}});
        }
        return !messages->empty();
    }

    template <typename F>
    void each(const F& f) {
        for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
            out_.clear();
            f(ranks_[rank], out_);
            if (!out_.empty()) sink_(rank, out_);
        }
    }

    /// Under the lock.
    void show() {
        for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
            RankState& state = states_[rank];
            const EngineFollower& follower = ranks_[rank];
            state.state = follower.state();
            state.connected = connected_;
            state.incomplete = follower.incomplete();
            state.messages = follower.stats();
            state.blocks = follower.feed().stats();
        }
    }

    const DrainedKvOptions options_;
    RankKvSink sink_;
    // Of the thread.
    TrtllmEventReader reader_;
    std::deque<EngineFollower> ranks_;
    std::vector<protocol::KvEvent> out_;
    bool connected_ = false;
    bool ever_connected_ = false;
    bool followed_ = false;

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<RankState> states_;
    std::vector<std::vector<tokens::TokenId>> hidden_;
    bool reset_ = false;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace

std::unique_ptr<EngineKvSource> start_drained_kv_source(DrainedKvOptions options, RankKvSink sink) {
    return std::make_unique<Drained>(std::move(options), std::move(sink));
}

}  // namespace stator::engine
