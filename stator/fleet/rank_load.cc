#include "stator/fleet/rank_load.h"

#include <algorithm>

namespace stator::fleet {

namespace {
constexpr auto kRelaxed = std::memory_order_relaxed;
}

RankLoad::RankLoad(const protocol::RankInfo& info)
    : running_limit_(info.max_running),
      waiting_limit_(info.max_waiting),
      kv_total_(info.kv_total_tokens) {}

void RankLoad::report(const protocol::LoadReport& load, std::uint64_t booking) {
    while (!unseen_.empty() && unseen_.front() <= booking) unseen_.pop_front();
    running_.store(load.running, kRelaxed);
    waiting_.store(load.waiting, kRelaxed);
    running_limit_.store(load.running_limit, kRelaxed);
    waiting_limit_.store(load.waiting_limit, kRelaxed);
    waiting_tokens_.store(load.waiting_tokens, kRelaxed);
    kv_used_.store(load.kv_used_tokens, kRelaxed);
    kv_cached_.store(load.kv_cached_tokens, kRelaxed);
    kv_total_.store(load.kv_total_tokens, kRelaxed);
    unclaimed_handoffs_.store(load.unclaimed_handoffs, kRelaxed);
    unclaimed_bytes_.store(load.unclaimed_bytes, kRelaxed);
    unclaimed_limit_.store(load.unclaimed_limit, kRelaxed);
    delta_.store(static_cast<std::int64_t>(unseen_.size()), kRelaxed);
}

void RankLoad::opened(std::uint64_t booking) {
    unseen_.push_back(booking);
    delta_.fetch_add(1, kRelaxed);
}

protocol::LoadReport RankLoad::read() const {
    protocol::LoadReport out;
    out.running = running_.load(kRelaxed);
    out.waiting = waiting_.load(kRelaxed);
    out.running_limit = running_limit_.load(kRelaxed);
    out.waiting_limit = waiting_limit_.load(kRelaxed);
    out.waiting_tokens = waiting_tokens_.load(kRelaxed);
    out.kv_used_tokens = kv_used_.load(kRelaxed);
    out.kv_cached_tokens = kv_cached_.load(kRelaxed);
    out.kv_total_tokens = kv_total_.load(kRelaxed);
    out.unclaimed_handoffs = unclaimed_handoffs_.load(kRelaxed);
    out.unclaimed_bytes = unclaimed_bytes_.load(kRelaxed);
    out.unclaimed_limit = unclaimed_limit_.load(kRelaxed);
    const std::int64_t delta = delta_.load(kRelaxed);
    if (delta >= 0) {
        out.waiting += static_cast<std::uint32_t>(delta);
        return out;
    }
    // Who waits moves up where one that ran has ended.
    auto ended = static_cast<std::uint64_t>(-delta);
    const auto from_waiting =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(out.waiting, ended));
    out.waiting -= from_waiting;
    ended -= from_waiting;
    out.running -= static_cast<std::uint32_t>(std::min<std::uint64_t>(out.running, ended));
    return out;
}

}  // namespace stator::fleet
