#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "stator/engine/mock/live/mock_engine.h"
#include "stator/events/kv_mirror.h"
#include "stator/tokens/hash.h"

namespace stator::engine {

using namespace std::chrono_literals;
using mock::ConstantTime;
using mock::StepTime;
using protocol::FinishReason;
using protocol::GenerateRequest;
using protocol::StepBatch;
using protocol::StepEvent;
using tokens::TokenId;

/// Collects everything and lets the test wait for it.
class Collector final : public StepSink {
  public:
    struct Seen {
        std::vector<TokenId> tokens;
        std::vector<protocol::TokenLogprob> top;
        std::optional<StepEvent> first;
        std::optional<StepEvent> last;
        TimePoint ended;
        int ends = 0;
        int after_end = 0;
    };

    void on_step(StepBatch&& batch) override {
        const std::scoped_lock lock(mutex_);
        ++batches_;
        for (StepEvent& e : batch.events) {
            Seen& seen = seen_[e.id.value];
            if (seen.ends > 0) ++seen.after_end;
            if (!seen.first) seen.first = e;
            for (std::uint32_t i = 0; i < e.count; ++i) {
                const auto& t = batch.tokens.at(e.first + i);
                seen.tokens.push_back(t.token);
                for (std::uint32_t k = 0; k < t.top_count; ++k) {
                    seen.top.push_back(batch.top.at(t.top_first + k));
                }
            }
            if (e.finish) {
                ++seen.ends;
                ++ended_;
                seen.last = e;
                seen.ended = Clock::real().now();
            }
            if (on_event) on_event(e);
        }
        changed_.notify_all();
    }

    void wait_ends(int n) {
        std::unique_lock lock(mutex_);
        ASSERT_TRUE(changed_.wait_for(lock, 20s, [&] { return ended_ >= n; }))
            << "ended: " << ended_;
    }
    void wait_tokens(std::uint64_t id, std::size_t n) {
        std::unique_lock lock(mutex_);
        ASSERT_TRUE(changed_.wait_for(lock, 20s, [&] { return seen_[id].tokens.size() >= n; }));
    }
    Seen of(std::uint64_t id) {
        const std::scoped_lock lock(mutex_);
        return seen_[id];
    }
    int batches() {
        const std::scoped_lock lock(mutex_);
        return batches_;
    }

    std::function<void(const StepEvent&)> on_event;

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::uint64_t, Seen> seen_;
    int ended_ = 0;
    int batches_ = 0;
};

inline GenerateRequest make_request(std::uint64_t id, std::vector<TokenId> prompt,
                                    std::uint32_t max_tokens) {
    GenerateRequest r;
    r.id = RequestId(id);
    r.prompt = std::move(prompt);
    r.max_tokens = max_tokens;
    return r;
}

inline std::vector<TokenId> prompt_of(TokenId first, std::size_t n) {
    std::vector<TokenId> out(n);
    std::iota(out.begin(), out.end(), first);
    return out;
}

/// A small engine with steps of a virtual millisecond.
inline MockOptions quick(double speedup = 100) {
    MockOptions o;
    o.core.blocks = 256;
    o.core.block_tokens = 4;
    o.core.context_tokens = 512;
    o.core.max_running = 16;
    o.core.max_waiting = 64;
    o.core.step_tokens = 32;
    o.core.vocab_size = 1000;
    o.core.step_time = StepTime(ConstantTime{1.0});
    o.speedup = speedup;
    return o;
}

inline MockOptions step_never_ends() {
    MockOptions o = quick(1);
    o.core.step_time = StepTime(ConstantTime{3.6e6});
    return o;
}

/// What one request gives from an engine that has nothing else to do.
inline std::vector<TokenId> alone(GenerateRequest request) {
    MockHost host;
    auto engine = make_mock_engine(host, quick(), {});
    auto sink = std::make_shared<Collector>();
    const auto id = request.id.value;
    EXPECT_TRUE(engine->submit(std::move(request), sink));
    sink->wait_ends(1);
    return sink->of(id).tokens;
}

/// What the events of a rank add up to, checked on the way.
class Listener {
  public:
    KvEventSink sink() {
        return [this](const std::vector<protocol::KvEvent>& events) {
            const std::scoped_lock lock(mutex_);
            for (const auto& event : events) hear(event);
        };
    }
    std::size_t size() {
        const std::scoped_lock lock(mutex_);
        return mirror_.size();
    }
    std::uint64_t gaps() {
        const std::scoped_lock lock(mutex_);
        return gaps_;
    }
    std::set<protocol::KvTier> stored_in() {
        const std::scoped_lock lock(mutex_);
        return stored_in_;
    }

  private:
    void hear(const protocol::KvEvent& event) {
        gaps_ += event.seq.value - last_ - 1;
        last_ = event.seq.value;
        if (const auto* stored = std::get_if<protocol::KvStored>(&event.what)) {
            auto parent = stored->parent;
            stored_in_.insert(stored->tier);
            for (const auto& block : stored->blocks) {
                EXPECT_EQ(block.sequence, parent ? tokens::sequence_hash(*parent, block.block)
                                                 : tokens::sequence_hash(block.block));
                if (stored->tier == protocol::KvTier::kDevice) {
                    EXPECT_EQ(block.block, tokens::block_hash(block.tokens, tokens::hash_seed()));
                }
                parent = block.sequence;
            }
        }
        mirror_.apply(event);
    }

    std::mutex mutex_;
    events::KvMirror mirror_;
    std::uint64_t last_ = 0;
    std::uint64_t gaps_ = 0;
    std::set<protocol::KvTier> stored_in_;
};

}  // namespace stator::engine
