#include "stator/engine/remote/advised_engine.h"

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace stator::engine {
namespace {

using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::StepBatch;
using protocol::StepEvent;

StepBatch last_event(RequestId id, FinishReason finish, std::optional<Error> why = {}) {
    StepBatch batch;
    StepEvent& event = batch.events.emplace_back();
    event.id = id;
    event.finish = finish;
    event.error = std::move(why);
    return batch;
}

void release_media(Engine& engine, const GenerateRequest& request) {
    for (const auto& item : request.media) {
        if (item.embeddings) engine.release(item.embeddings);
    }
}

/// What is asked for or under way.
class Bookings : public std::enable_shared_from_this<Bookings> {
  public:
    Bookings(std::string pool, std::shared_ptr<Engine> inner,
             std::shared_ptr<routing::RouterClient> client, runtime::LoopPool& loops)
        : pool_(std::move(pool)),
          inner_(std::move(inner)),
          client_(std::move(client)),
          loops_(loops) {}

    void ask(GenerateRequest request, std::shared_ptr<StepSink> sink);
    /// True: it was being asked for, and has ended.
    bool cancel(RequestId id);
    void cancel_asked();
    [[nodiscard]] bool wait_until_none_is_asked(Deadline deadline, const Clock& clock);
    /// What a batch says of bookings, before it is handed on.
    void look_at(const StepBatch& batch);

    const std::shared_ptr<Engine>& inner() const { return inner_; }

  private:
    struct Asked {
        GenerateRequest request;  ///< whoever cancels leaves it alone: the client may be reading it
        std::shared_ptr<StepSink> sink;
    };
    struct Booked {
        std::string booking;
        bool first_token = false;
    };
    struct Shard {
        std::mutex mutex;
        std::unordered_map<std::uint64_t, std::shared_ptr<Asked>> asked;
        std::unordered_map<std::uint64_t, Booked> booked;
    };
    [[nodiscard]] Shard& shard(RequestId id) { return shards_[id.value % shards_.size()]; }
    [[nodiscard]] std::shared_ptr<Asked> take_asked(RequestId id);
    void no_longer_asked();
    void answered(RequestId id, Result<routing::Advice> advice);
    void tell_later(std::shared_ptr<StepSink> sink, StepBatch batch);
    [[nodiscard]] std::shared_ptr<StepSink> watched(const std::shared_ptr<StepSink>& sink);

    const std::string pool_;
    const std::shared_ptr<Engine> inner_;
    const std::shared_ptr<routing::RouterClient> client_;
    runtime::LoopPool& loops_;
    std::array<Shard, 16> shards_;
    std::mutex sinks_mutex_;
    std::unordered_map<StepSink*, std::weak_ptr<StepSink>> sinks_;
    std::mutex count_mutex_;
    std::condition_variable none_;
    std::size_t asked_count_ = 0;
};

/// The submitter's sink, with a look at what passes. One for each of theirs, so that the pool
/// engine still hands over one batch a turn.
class WatchedSink final : public StepSink {
  public:
    WatchedSink(std::shared_ptr<StepSink> sink, std::weak_ptr<Bookings> bookings)
        : sink_(std::move(sink)), bookings_(std::move(bookings)) {}
    void on_step(StepBatch&& batch) override {
        if (const auto bookings = bookings_.lock()) bookings->look_at(batch);
        sink_->on_step(std::move(batch));
    }

  private:
    std::shared_ptr<StepSink> sink_;
    std::weak_ptr<Bookings> bookings_;
};

std::shared_ptr<StepSink> Bookings::watched(const std::shared_ptr<StepSink>& sink) {
    const std::scoped_lock lock(sinks_mutex_);
    if (const auto at = sinks_.find(sink.get()); at != sinks_.end()) {
        if (auto made = at->second.lock()) return made;
    }
    std::erase_if(sinks_, [](const auto& entry) { return entry.second.expired(); });
    auto made = std::make_shared<WatchedSink>(sink, weak_from_this());
    sinks_.insert_or_assign(sink.get(), made);
    return made;
}

void Bookings::tell_later(std::shared_ptr<StepSink> sink, StepBatch batch) {
    const auto kept = std::make_shared<StepBatch>(std::move(batch));
    loops_.at(0).post([sink = std::move(sink), kept] { sink->on_step(std::move(*kept)); });
}

void Bookings::ask(GenerateRequest request, std::shared_ptr<StepSink> sink) {
    const RequestId id = request.id;
    {
        const std::scoped_lock lock(count_mutex_);
        ++asked_count_;
    }
    const auto asked = std::make_shared<Asked>(std::move(request), std::move(sink));
    {
        Shard& s = shard(id);
        const std::scoped_lock lock(s.mutex);
        s.asked.insert_or_assign(id.value, asked);
    }
    client_->reserve(pool_, asked->request,
                     [self = shared_from_this(), id](Result<routing::Advice> advice) {
                         self->answered(id, std::move(advice));
                     });
}

std::shared_ptr<Bookings::Asked> Bookings::take_asked(RequestId id) {
    Shard& s = shard(id);
    const std::scoped_lock lock(s.mutex);
    const auto at = s.asked.find(id.value);
    if (at == s.asked.end()) return nullptr;
    auto out = std::move(at->second);
    s.asked.erase(at);
    return out;
}

void Bookings::no_longer_asked() {
    const std::scoped_lock lock(count_mutex_);
    if (--asked_count_ == 0) none_.notify_all();
}

void Bookings::answered(RequestId id, Result<routing::Advice> advice) {
    Shard& s = shard(id);
    std::shared_ptr<Asked> mine;
    {
        const std::scoped_lock lock(s.mutex);
        if (const auto at = s.asked.find(id.value); at != s.asked.end()) {
            mine = std::move(at->second);
            s.asked.erase(at);
            // Before the engine has it: whoever cancels from now on asks the engine.
            s.booked.insert_or_assign(id.value, Booked{advice ? advice->booking : std::string()});
        }
    }
    if (!mine) {  // cancelled meanwhile
        if (advice) client_->release(advice->booking);
        return;
    }
    if (advice) {
        auto hints = mine->request.hints
                         ? std::make_shared<protocol::RouteHints>(*mine->request.hints)
                         : std::make_shared<protocol::RouteHints>();
        hints->worker = advice->worker;
        hints->rank = advice->rank;
        hints->advised = true;
        mine->request.hints = std::move(hints);
    }
    auto accepted = inner_->submit(std::move(mine->request), watched(mine->sink));
    if (!accepted) {
        StepBatch batch = last_event(id, FinishReason::kError, std::move(accepted.error()));
        look_at(batch);
        mine->sink->on_step(std::move(batch));
    }
    no_longer_asked();
}

bool Bookings::cancel(RequestId id) {
    const auto mine = take_asked(id);
    if (!mine) return false;
    release_media(*inner_, mine->request);
    tell_later(std::move(mine->sink), last_event(id, FinishReason::kCancelled));
    no_longer_asked();
    return true;
}

void Bookings::cancel_asked() {
    std::vector<RequestId> ids;
    for (Shard& s : shards_) {
        const std::scoped_lock lock(s.mutex);
        for (const auto& [id, asked] : s.asked) ids.emplace_back(id);
    }
    for (const RequestId id : ids) cancel(id);
}

bool Bookings::wait_until_none_is_asked(Deadline deadline, const Clock& clock) {
    std::unique_lock lock(count_mutex_);
    return none_.wait_for(lock, deadline.left(clock.now()), [&] { return asked_count_ == 0; });
}

void Bookings::look_at(const StepBatch& batch) {
    for (const StepEvent& event : batch.events) {
        if (event.count == 0 && !event.finish) continue;
        Shard& s = shard(event.id);
        std::string booking;
        bool first = false;
        {
            const std::scoped_lock lock(s.mutex);
            const auto at = s.booked.find(event.id.value);
            if (at == s.booked.end()) continue;
            first = event.count > 0 && !std::exchange(at->second.first_token, true);
            if (!first && !event.finish) continue;
            if (event.finish) {
                booking = std::move(at->second.booking);
                s.booked.erase(at);
            } else {
                booking = at->second.booking;
            }
        }
        if (booking.empty()) continue;
        if (first) {
            client_->first_token(booking, event.prompt_tokens == 0
                                              ? std::nullopt
                                              : std::optional(event.cached_tokens));
        }
        if (event.finish) client_->release(booking);
    }
}

class AdvisedEngine final : public Engine {
  public:
    AdvisedEngine(std::string pool, std::shared_ptr<Engine> inner,
                  std::shared_ptr<routing::RouterClient> client, runtime::LoopPool& loops,
                  const Clock& clock)
        : bookings_(std::make_shared<Bookings>(std::move(pool), std::move(inner), std::move(client),
                                               loops)),
          clock_(clock) {}
    ~AdvisedEngine() override { stop(Deadline::at({})); }

    [[nodiscard]] const EngineInfo& info() const override { return inner().info(); }
    [[nodiscard]] Result<void> submit(GenerateRequest request,
                                      std::shared_ptr<StepSink> sink) override {
        if (stopping_.load()) {
            release_media(inner(), request);
            return error(ErrorCode::kUnavailable, "the server is stopping");
        }
        const auto* hints = request.hints.get();
        const bool told = hints != nullptr && (!hints->worker.empty() || hints->explain);
        // The other router chooses ranks for whole requests.
        if (request.leg != protocol::Leg::kWhole) {
            return inner().submit(std::move(request), std::move(sink));
        }
        if (told || !inner().healthy()) return inner().submit(std::move(request), std::move(sink));
        if (request.prompt.size() >= inner().info().context_tokens) {
            return inner().submit(std::move(request), std::move(sink));  // which says why not
        }
        bookings_->ask(std::move(request), std::move(sink));
        return {};
    }
    void cancel(RequestId id) override {
        if (!bookings_->cancel(id)) inner().cancel(id);
    }
    void release(std::shared_ptr<const protocol::Handoff> handoff) override {
        inner().release(std::move(handoff));
    }
    [[nodiscard]] protocol::LoadReport load() const override { return inner().load(); }
    [[nodiscard]] protocol::ForwardPassMetrics forward_pass_metrics() const override {
        return inner().forward_pass_metrics();
    }
    [[nodiscard]] bool healthy() const override { return inner().healthy(); }
    void stop(Deadline deadline) override {
        stopping_ = true;
        if (!bookings_->wait_until_none_is_asked(deadline, clock_)) bookings_->cancel_asked();
        inner().stop(deadline);
    }

  private:
    [[nodiscard]] Engine& inner() const { return *bookings_->inner(); }

    std::shared_ptr<Bookings> bookings_;
    const Clock& clock_;
    std::atomic<bool> stopping_{false};
};

}  // namespace

std::unique_ptr<Engine> make_advised_engine(std::string pool, std::shared_ptr<Engine> inner,
                                            std::shared_ptr<routing::RouterClient> client,
                                            runtime::LoopPool& loops, const Clock& clock) {
    return std::make_unique<AdvisedEngine>(std::move(pool), std::move(inner), std::move(client),
                                           loops, clock);
}

}  // namespace stator::engine
