#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "stator/engine/remote/pool_fixture.h"
#include "stator/runtime/loop.h"

namespace stator::engine {

/// For tests: workers that compute legs, in this process and without links. What they hand over is
/// accounted for by one World.

/// Every handoff that was made, and what became of it. Thread-safe.
class World {
  public:
    struct Counts {
        int made = 0;
        int claimed = 0;
        int released = 0;  ///< before it was claimed
        int released_late = 0;
        int unsettled = 0;  ///< neither
    };
    /// `object`: one that is the engine's own.
    std::shared_ptr<const protocol::Handoff> make(protocol::Handoff::Kind kind,
                                                  std::uint32_t tokens, bool object = false) {
        const std::scoped_lock lock(mutex_);
        auto h = std::make_shared<protocol::Handoff>();
        h->kind = kind;
        h->tokens = tokens;
        if (object) h->object = "{}";
        h->early = object;
        const std::uint64_t id = ++last_;
        std::memcpy(h->id.data(), &id, sizeof id);
        if (kind == protocol::Handoff::Kind::kEmbeddings)
            h->pieces = {{.text = {}, .rows = tokens}};
        h->expires = Deadline::after(Clock::real().now(), lease);
        open_.insert(h->id);
        ++counts_.made;
        return h;
    }
    bool claim(const protocol::Handoff& h) {
        const std::scoped_lock lock(mutex_);
        if (open_.erase(h.id) == 0) return false;
        ++counts_.claimed;
        return true;
    }
    void release(const protocol::Handoff& h) {
        const std::scoped_lock lock(mutex_);
        ++(open_.erase(h.id) > 0 ? counts_.released : counts_.released_late);
    }
    Counts counts() {
        const std::scoped_lock lock(mutex_);
        counts_.unsettled = static_cast<int>(open_.size());
        return counts_;
    }
    std::chrono::milliseconds lease{30'000};

  private:
    std::mutex mutex_;
    std::set<protocol::HandoffId> open_;
    Counts counts_;
    std::uint64_t last_ = 0;
};

/// Computes legs on its loop, a token a turn: what the echo engine would say. It must be told to
/// fail.
class LegWorker final : public fleet::Worker, public std::enable_shared_from_this<LegWorker> {
  public:
    static constexpr std::uint32_t kRows = 4;  ///< of any media item

    LegWorker(std::string name, std::vector<protocol::Role> roles, runtime::Loop& loop,
              World& world, std::uint64_t id)
        : loop_(loop), world_(world), id_(id) {
        auto info = std::make_shared<protocol::WorkerInfo>();
        info->name = std::move(name);
        info->roles = std::move(roles);
        info->card = echo_card();
        info->card.media_digest = "encoder";
        info->ranks = {{0, 64, 64, 100'000}};
        info->transfer_methods = {"shm", "tcp"};
        info_ = std::move(info);
    }

    [[nodiscard]] std::uint64_t id() const override { return id_; }
    [[nodiscard]] runtime::Loop& loop() const override { return loop_; }
    [[nodiscard]] std::shared_ptr<const protocol::WorkerInfo> info() const override {
        return info_;
    }
    [[nodiscard]] fleet::MemberState state() const override {
        return gone_ ? fleet::MemberState::kGone : fleet::MemberState::kReady;
    }
    [[nodiscard]] protocol::LoadReport load(std::uint32_t) const override {
        protocol::LoadReport l;
        l.running = running_;
        l.running_limit = 64;
        l.waiting_limit = 64;
        l.kv_total_tokens = 100'000;
        return l;
    }
    [[nodiscard]] Result<requests::StreamId> open(
        std::shared_ptr<const protocol::GenerateRequest> request, std::uint32_t,
        fleet::StreamEvents& events, std::uint64_t tag) override {
        if (gone_) return error(ErrorCode::kUnavailable, "it is gone");
        const requests::StreamId stream(++last_stream_);
        ++opened_[static_cast<int>(request->leg)];
        streams_.emplace(stream.value, Stream{std::move(request), &events, tag, 0});
        ++running_;
        step_later(stream.value);
        return stream;
    }
    void cancel(requests::StreamId stream) override {
        if (streams_.erase(stream.value) > 0) --running_;
    }
    void release(requests::StreamId stream) override {
        const auto found = left_.find(stream.value);
        watched_.erase(stream.value);
        if (found == left_.end()) return;
        ++released_;
        world_.release(*found->second);
    }
    void watch_handoff(requests::StreamId stream, std::function<void(const Error&)> lost) override {
        watched_[stream.value] = std::move(lost);
    }
    void fetch(const requests::Fetch&, std::function<void(Result<std::string>)> done) override {
        done(error(ErrorCode::kUnavailable, "nothing is here"));
    }

    // From the test.
    /// The next `times` legs end with this error before anything else. kInternal is for legs that
    /// the fleet has made up: of a whole request it would be the client's to hear.
    void fail(ErrorCode code, int times) {
        fail_code_ = code;
        failures_ = times;
    }
    /// Its KV is the engine's own to move, and it hands off early.
    void move_own_kv() { own_kv_ = true; }
    /// Its early handoffs are lost.
    void lose_handoffs(ErrorCode code = ErrorCode::kInternal) {
        loop_.post([self = shared_from_this(), code] {
            for (const auto& [stream, handoff] : self->left_) self->world_.release(*handoff);
            for (auto& [stream, lost] : std::exchange(self->watched_, {})) {
                lost(error(code, "the prompt failed").value());
            }
        });
    }
    [[nodiscard]] int released() const { return released_; }
    void hold(bool on) {
        hold_ = on;
        if (on) return;
        loop_.post([self = shared_from_this()] {
            for (const auto& [id, stream] : self->streams_) self->step_later(id);
        });
    }
    /// Its streams are lost, and it takes no more.
    void kill() {
        gone_ = true;
        loop_.post([self = shared_from_this()] {
            for (auto& [id, s] : std::exchange(self->streams_, {})) {
                s.events->on_stream_lost(s.tag,
                                         error(ErrorCode::kUnavailable, "it is gone").value());
                s.events->on_turn_end();
            }
            self->running_ = 0;
        });
    }
    [[nodiscard]] int opened(protocol::Leg leg) const { return opened_[static_cast<int>(leg)]; }
    [[nodiscard]] int recomputed() const { return recomputed_; }
    [[nodiscard]] std::uint32_t running() const { return running_; }

  private:
    struct Stream {
        std::shared_ptr<const protocol::GenerateRequest> request;
        fleet::StreamEvents* events = nullptr;
        std::uint64_t tag = 0;
        std::uint32_t produced = 0;
    };

    void step_later(std::uint64_t id) {
        loop_.post([self = shared_from_this(), id] { self->step(id); });
    }
    void step(std::uint64_t id) {
        const auto at = streams_.find(id);
        if (at == streams_.end() || hold_) return;
        Stream& s = at->second;
        const protocol::GenerateRequest& r = *s.request;
        protocol::StepEvent e;
        e.id = r.id;
        std::vector<protocol::TokenOutput> tokens;
        if (s.produced == 0) begin(id, r, e);
        if (!e.finish) {
            // As the echo engine: the prompt over and over.
            const std::size_t own = r.prompt.size() - r.resumed_tokens;
            tokens.push_back({.token = r.prompt[(r.resumed_tokens + s.produced) % own]});
            e.count = 1;
            if (s.produced == 0) e.prompt_tokens = static_cast<std::uint32_t>(own);
            if (++s.produced == r.max_tokens) {
                e.finish = protocol::FinishReason::kLength;
                e.prompt_tokens = static_cast<std::uint32_t>(own);
            }
        }
        fleet::StreamEvents* const events = s.events;
        const std::uint64_t tag = s.tag;
        if (e.finish) {
            streams_.erase(at);
            --running_;
        } else {
            step_later(id);
        }
        events->on_step(tag, e, tokens, {});
        events->on_turn_end();
    }
    void begin(std::uint64_t stream, const protocol::GenerateRequest& r, protocol::StepEvent& e) {
        using protocol::Handoff;
        const auto failed = [&](ErrorCode code, const char* param) {
            e.finish = protocol::FinishReason::kError;
            e.error = error(code, "told to fail").value();
            e.error->param = param;
            e.error->retryable = true;
        };
        if (failures_ > 0 &&
            (fail_code_ != ErrorCode::kInternal || r.leg != protocol::Leg::kWhole)) {
            --failures_;
            return failed(fail_code_, "");
        }
        if (r.leg == protocol::Leg::kWhole || r.leg == protocol::Leg::kPrefill) {
            bool all = true;
            for (const auto& item : r.media) {
                all = item.embeddings && !item.content && world_.claim(*item.embeddings) && all;
            }
            if (!all) return failed(ErrorCode::kUnavailable, "media");
        }
        if (r.leg == protocol::Leg::kDecode && !world_.claim(*r.handoff)) {
            ++recomputed_;
            if (!r.media.empty()) return failed(ErrorCode::kUnavailable, "media");
        }
        if (r.leg != protocol::Leg::kEncode && r.leg != protocol::Leg::kPrefill) return;
        const bool kv = r.leg == protocol::Leg::kPrefill;
        e.finish = protocol::FinishReason::kHandoff;
        e.prompt_tokens = static_cast<std::uint32_t>(r.prompt.size());
        e.handoff = world_.make(kv ? Handoff::Kind::kKv : Handoff::Kind::kEmbeddings,
                                kv ? e.prompt_tokens - 1 : kRows, kv && own_kv_);
        if (own_kv_) left_[stream] = e.handoff;
    }

    runtime::Loop& loop_;
    World& world_;
    const std::uint64_t id_;
    std::shared_ptr<const protocol::WorkerInfo> info_;
    std::atomic<bool> gone_{false};
    std::atomic<bool> hold_{false};
    std::atomic<int> failures_{0};
    std::atomic<ErrorCode> fail_code_{ErrorCode::kOverloaded};
    std::atomic<std::uint32_t> running_{0};
    std::array<std::atomic<int>, 5> opened_{};
    std::atomic<int> recomputed_{0};
    std::atomic<bool> own_kv_{false};
    std::atomic<int> released_{0};
    // Of the loop.
    std::map<std::uint64_t, Stream> streams_;
    std::map<std::uint64_t, std::shared_ptr<const protocol::Handoff>> left_;
    std::map<std::uint64_t, std::function<void(const Error&)>> watched_;
    std::uint64_t last_stream_ = 0;
};

/// A fleet that is what the test says.
class FakeFleet final : public fleet::Fleet {
  public:
    explicit FakeFleet(runtime::Loop& loop) : loop_(loop) { set({}); }
    [[nodiscard]] std::shared_ptr<const fleet::FleetView> view() const override {
        const std::scoped_lock lock(mutex_);
        return view_;
    }
    void watch(std::function<void(std::shared_ptr<const fleet::FleetView>)> changed) override {
        const std::scoped_lock lock(mutex_);
        changed_ = std::move(changed);
    }
    void stop() override {
        const std::scoped_lock lock(mutex_);
        changed_ = nullptr;
    }
    void set(const std::vector<std::shared_ptr<LegWorker>>& workers) {
        auto view = std::make_shared<fleet::FleetView>();
        fleet::PoolView& pool = view->pools.emplace_back();
        pool.id = protocol::pool_id(echo_card());
        for (const auto& w : workers) {
            if (w->state() == fleet::MemberState::kReady) pool.ready.push_back(w);
        }
        std::promise<void> told;
        {
            const std::scoped_lock lock(mutex_);
            view_ = view;
            if (!changed_) return;
        }
        loop_.post([&] {
            changed_(view);
            told.set_value();
        });
        told.get_future().wait();
    }

  private:
    runtime::Loop& loop_;
    mutable std::mutex mutex_;
    std::shared_ptr<const fleet::FleetView> view_;
    std::function<void(std::shared_ptr<const fleet::FleetView>)> changed_;
};

class LegsFixture : public ::testing::Test {
  protected:
    LegsFixture() { loops_.start(); }
    ~LegsFixture() override {
        engine_.reset();
        fleet_.stop();
        for (std::size_t i = 0; i < loops_.size(); ++i) {
            std::promise<void> done;
            loops_.at(i).post([&] { done.set_value(); });
            done.get_future().wait();
        }
        workers_.clear();
        loops_.stop();
    }

    LegWorker& add(const std::string& name, std::vector<protocol::Role> roles) {
        const std::size_t n = workers_.size();
        workers_.push_back(
            std::make_shared<LegWorker>(name, std::move(roles), loops_.at(n % 2), world_, n + 1));
        return *workers_.back();
    }
    void start(router::Disaggregation disaggregation, PoolEngineOptions pool = {}) {
        routing::PoolRouterOptions routing;
        routing.policy.disaggregation = disaggregation;
        pool.router = std::make_shared<routing::PoolRouter>(routing, echo_card(), nullptr,
                                                            registry_, Clock::real());
        pool.card = echo_card();
        pool.pool = protocol::pool_id(pool.card);
        pool.release = [this](const auto& handoff) { world_.release(*handoff); };
        fleet_.set(workers_);
        engine_ = make_pool_engine(pool, fleet_, loops_, registry_);
    }
    void refresh() { fleet_.set(workers_); }

    protocol::GenerateRequest request(std::uint64_t id, std::uint32_t max_tokens) {
        protocol::GenerateRequest r;
        r.id = RequestId(id);
        const auto first = static_cast<protocol::TokenId>(id % 100);
        r.prompt = {first, first + 1, first + 2, first + 3, first + 4};
        r.max_tokens = max_tokens;
        return r;
    }
    protocol::GenerateRequest encode_request(std::uint64_t id, std::uint8_t item) {
        protocol::GenerateRequest r;
        r.id = RequestId(id);
        r.leg = protocol::Leg::kEncode;
        r.media.push_back(media_item(item));
        return r;
    }
    static protocol::MediaItem media_item(std::uint8_t n) {
        protocol::MediaItem item;
        item.digest[0] = n;
        item.tokens = LegWorker::kRows;
        item.content = std::make_shared<protocol::MediaContent>();
        return item;
    }
    void expect_whole(std::uint64_t id, std::uint32_t n) {
        ASSERT_TRUE(sink_->wait_end(id)) << id;
        const auto seen = sink_->of(id);
        EXPECT_EQ(seen.end->finish, protocol::FinishReason::kLength)
            << id << ": " << (seen.end->error ? seen.end->error->message : "");
        const auto prompt = request(id, 1).prompt;
        std::vector<protocol::TokenId> expected;
        for (std::uint32_t i = 0; i < n; ++i) expected.push_back(prompt[i % prompt.size()]);
        EXPECT_EQ(seen.tokens, expected) << id;
        EXPECT_EQ(seen.ends, 1);
        EXPECT_EQ(seen.after_end, 0);
        EXPECT_EQ(seen.end->prompt_tokens, 5U);
    }
    /// All handoffs are claimed or released, none is left to expire.
    void expect_settled() {
        EXPECT_TRUE(TestWorker::eventually([&] { return world_.counts().unsettled == 0; }))
            << world_.counts().unsettled;
    }
    double metric(const std::string& name) {
        std::istringstream text(registry_.render());
        double sum = 0;
        for (std::string line; std::getline(text, line);) {
            if (line.starts_with(name + " ") || line.starts_with(name + "{")) {
                sum += std::stod(line.substr(line.rfind(' ')));
            }
        }
        return sum;
    }

    World world_;
    metrics::Registry registry_;
    runtime::LoopPool loops_{2, "frontend"};
    FakeFleet fleet_{loops_.at(0)};
    std::vector<std::shared_ptr<LegWorker>> workers_;
    std::unique_ptr<PoolEngine> engine_;
    std::shared_ptr<Collector> sink_ = std::make_shared<Collector>();
};

}  // namespace stator::engine
