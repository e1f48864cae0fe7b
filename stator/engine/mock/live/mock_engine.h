#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "stator/engine/engine.h"
#include "stator/engine/mock/core.h"
#include "stator/engine/mock/faults.h"
#include "stator/engine/mock/live/mock_handoffs.h"
#include "stator/engine/mock/live/mock_host.h"

namespace stator::engine {

struct MockOptions {
    mock::CoreOptions core;
    double speedup = 1.0;  ///< seconds of the engine's clock in one real second
    mock::FaultPlan faults;
    mock::HandoffOptions handoffs;
    /// What a crash does, on the host's thread; it must not block and not call the engine, which
    /// is silent from then on until stop(). None: the engine ends its requests with kError and
    /// serves no more.
    std::function<void()> crash;
    /// Real time an engine may lag behind before it gives up catching up: a machine that slept must
    /// not have it run through a minute at once.
    std::chrono::nanoseconds catch_up{std::chrono::milliseconds(500)};
};

/// A mock core in real time. Its clock began with the host's and runs `speedup` times as fast. A
/// step ends at its exact time and the next one begins there, however late the thread wakes, so
/// that what is late once is not late ever after; a request counts from when it came. Its tokens
/// are a pure function of prompt, cache salt, position and sampling.seed (none = 0), whatever else
/// runs: a resumed request goes on exactly. Sampling parameters but the seed mean nothing. The
/// chosen token's logprob is 0; of k alternatives the j-th is token + j, modulo the vocabulary,
/// with logprob -j. cancel() and deadlines count at the end of the step in work.
///
/// Legs: a prefill leg leaves made-up bytes of its KV's size, a decode leg checks those that came
/// and computes the prompt itself where they are not right or not all here; an encode leg leaves
/// made-up embeddings. Handing over takes the real time that it takes: the core's handoff_gb_per_s
/// and handoff_latency are the simulator's and count nothing here. What a request's media have
/// become must have arrived: kUnavailable, retryable, param "media".
///
/// forward_pass_metrics(): model_seconds is of the engine's clock; CPU seconds are the host's to
/// show. `kv_events` may be empty.
[[nodiscard]] std::unique_ptr<Engine> make_mock_engine(MockHost& host, MockOptions options,
                                                       KvEventSink kv_events);

}  // namespace stator::engine
