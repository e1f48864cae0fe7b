#pragma once

#include <atomic>
#include <cstdint>
#include <deque>

#include "stator/protocol/load.h"
#include "stator/protocol/worker_info.h"

namespace stator::fleet {

/// What one rank said last, corrected by what was opened and what ended here since: what it will
/// say once it has seen that. Written on the worker's loop, read anywhere; a reader may see parts
/// of two reports, which does no harm to a choice that is a guess anyway.
class RankLoad {
  public:
    explicit RankLoad(const protocol::RankInfo& info);

    // On the worker's loop.
    /// `booking`: the highest number the worker had seen when it wrote the report.
    void report(const protocol::LoadReport& load, std::uint64_t booking);
    void opened(std::uint64_t booking);
    void ended() { delta_.fetch_sub(1, std::memory_order_relaxed); }

    // Any thread.
    [[nodiscard]] protocol::LoadReport read() const;

  private:
    std::deque<std::uint64_t> unseen_;  ///< bookings that no report has seen yet
    std::atomic<std::int64_t> delta_{0};
    std::atomic<std::uint32_t> running_{0};
    std::atomic<std::uint32_t> waiting_{0};
    std::atomic<std::uint32_t> running_limit_;
    std::atomic<std::uint32_t> waiting_limit_;
    std::atomic<std::uint64_t> waiting_tokens_{0};
    std::atomic<std::uint64_t> kv_used_{0};
    std::atomic<std::uint64_t> kv_cached_{0};
    std::atomic<std::uint64_t> kv_total_;
    std::atomic<std::uint32_t> unclaimed_handoffs_{0};
    std::atomic<std::uint64_t> unclaimed_bytes_{0};
    std::atomic<std::uint64_t> unclaimed_limit_{0};
};

}  // namespace stator::fleet
